"""A mask, a tree of bools, as a selector: the same leaves as the selector that it was made by, in every function."""

import re
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from errors import says
from flax import nnx
from trees import TREES, equal, language_model, mlp

import ptree as pt
from ptree import initializers as I

WITH_LEAVES = {name: tree for name, tree in TREES.items() if pt.paths(tree) and name != "a bare array"}
CALLS = {
    "items": pt.items,
    "items by all names": lambda tree, selector: pt.items(tree, selector, aliases=True),
    "paths": pt.paths,
    "count": pt.count,
    "flatten": pt.flatten,
    "select": pt.select,
    "partition": pt.partition,
    "mask": pt.mask,
    "update": lambda tree, selector: pt.update(tree, selector, lambda leaf: leaf),
}


def every_second(tree):
    return frozenset(pt.paths(tree)[::2])


@pytest.mark.parametrize("name", WITH_LEAVES)
@pytest.mark.parametrize("call", CALLS)
def test_a_mask_selects_what_the_selector_does_that_it_was_made_by(name, call):
    tree = WITH_LEAVES[name]
    chosen = every_second(tree)
    mask = pt.mask(tree, lambda path, leaf: path in chosen)
    assert equal(CALLS[call](tree, mask), CALLS[call](tree, lambda path, leaf: path in chosen))


class Pair(NamedTuple):
    w: object
    b: object


A, B = jnp.ones((2, 3)), jnp.zeros(3)


@pytest.mark.parametrize(
    ("tree", "mask", "paths"),
    [
        ({"w": A, "b": B}, {"w": True, "b": False}, ["w"]),
        ({"w": A, "b": B}, {"w": np.True_, "b": np.False_}, ["w"]),
        ([A, B], [False, True], ["1"]),
        ((A, [B]), (True, [True]), ["0", "1/0"]),
        (Pair(A, B), Pair(True, False), ["w"]),
        ({"w": A, "n": None}, {"w": True, "n": None}, ["w"]),
        (pt.Tree({"w": A, "b": B}), {"w": True, "b": False}, ["w"]),
        ({"a/b": A, "c": B}, {"a": {"b": True}, "c": False}, ["a/b"]),
        (optax.adam(1e-3).init({"w": A}), jax.tree.map(jnp.ndim, optax.adam(1e-3).init({"w": A})), None),
    ],
)
def test_masks_of_any_container(tree, mask, paths):
    if paths is None:  # of numbers, which are no bools
        with pytest.raises(pt.PatternError, match="not a selector: 0"):
            pt.paths(tree, mask)
        return
    assert pt.paths(tree, mask) == paths


def test_masks_of_equinox_and_nnx_can_be_called_and_are_masks():
    model = eqx.nn.MLP(3, 2, 4, 1, key=jax.random.key(0))
    mask = jax.tree.map(eqx.is_array, model)
    assert callable(mask)
    arrays, rest = pt.partition(model, mask)
    expected, expected_rest = eqx.partition(model, mask)
    assert eqx.tree_equal(arrays, expected)
    assert pt.paths(rest) == pt.paths(expected_rest)
    weights = pt.mask(arrays, "**/weight")
    assert pt.paths(arrays, weights) == ["layers/0/weight", "layers/1/weight"]
    assert pt.paths(arrays, [weights, "!layers/0"]) == ["layers/1/weight"]
    state = nnx.state(nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
    assert pt.paths(state, pt.mask(state, "kernel")) == ["kernel/value"]


def test_a_mask_fits_a_tree_of_the_same_paths_whatever_the_containers_are():
    layers, model = [{"w": A}, {"w": B}], eqx.nn.MLP(3, 2, 4, 1, key=jax.random.key(0))
    assert pt.paths(pt.Tree(layers), [{"w": False}, {"w": True}]) == ["1/w"]
    assert pt.paths({"0": {"w": A}, "1": {"w": B}}, ({"w": False}, {"w": True})) == ["1/w"]
    assert pt.paths(layers, {"0": {"w": True}, "1": {"w": False}}) == ["0/w"]
    assert pt.paths(layers, pt.mask(pt.Tree(layers), "1")) == ["1/w"]
    mask = pt.mask(model, "layers/1")
    assert pt.paths(pt.flatten(model), mask) == pt.paths(model, "layers/1")
    assert pt.paths(pt.Tree(pt.flatten(model)), [mask, "!**/bias"]) == ["layers/1/weight"]


def test_a_sequence_of_masks_selects_what_one_of_them_marks():
    tree = {"w": A, "b": B, "c": B}
    masks = [{"w": True, "b": False, "c": False}, {"w": False, "b": False, "c": np.True_}]
    assert pt.paths(tree, masks) == pt.paths(tree, tuple(masks)) == ["w", "c"]
    assert pt.paths([A, B, B], [[True, False, False], (False, True, False)]) == ["0", "1"]


class IsWide(eqx.Module):
    """A predicate that is a module, with a bool in a field."""

    strictly: bool

    def __call__(self, path, leaf):
        return leaf.shape[-1] > 2 if self.strictly else leaf.shape[-1] >= 2


def test_a_module_of_another_class_is_a_predicate():
    assert pt.paths({"w": A, "v": A[:, :2]}, IsWide(strictly=True)) == ["w"]
    assert pt.paths({"w": A, "v": A[:, :2]}, [IsWide(strictly=False)]) == ["w", "v"]
    with pytest.raises(pt.PatternError, match=r"the predicate .* is true of no leaf"):
        pt.paths({}, IsWide(strictly=True))


def test_a_mask_in_a_sequence_adds_its_leaves():
    tree = {"enc": {"w": A, "b": B}, "head": {"w": A}}
    mask = {"enc": {"w": True, "b": False}, "head": {"w": False}}
    assert pt.paths(tree, ["head", mask]) == ["enc/w", "head/w"]
    assert pt.paths(tree, [mask, "!**/w", "enc/b"]) == ["enc/b"]


def test_a_mask_marks_a_tied_leaf_under_all_its_names():
    tied = pt.tie(language_model(), {"head/kernel": pt.transposed("embed/table")})
    mask = pt.mask(tied, "embed")
    assert pt.paths(tied, mask, aliases=True) == ["embed/table", "head/kernel"]
    dropped = pt.drop(tied, mask)
    assert "embed" not in dropped
    assert pt.paths(dropped["head"]) == ["bias"]
    assert pt.ties(pt.untie(tied, mask)) == {}


def names_marked(**marks):
    """A mask as plain dicts, which has a mark for each name of a tied tree."""
    return {"embed": {"table": marks["table"]}, "head": {"kernel": marks["kernel"], "bias": marks["bias"]}}


def tied_model():
    model = {"embed": {"table": jnp.ones((5, 3))}, "head": {"kernel": jnp.ones((3, 5)), "bias": jnp.zeros(5)}}
    return pt.tie(model, {"head/kernel": pt.transposed("embed/table")})


CALLS_BY_NAME = {
    **CALLS,
    "drop": pt.drop,
    "untie": pt.untie,
    "summary": lambda tree, mask: str(pt.summary(tree, mask)),
    "stats": lambda tree, mask: str(pt.look.stats(tree, mask)),
    "total": lambda tree, mask: pt.summary(tree).total(mask),
}


@pytest.mark.parametrize("call", CALLS_BY_NAME)
@pytest.mark.parametrize(
    "mask",
    [
        names_marked(table=True, kernel=True, bias=False),
        names_marked(table=np.True_, kernel=True, bias=np.False_),
        pt.Tree(names_marked(table=True, kernel=True, bias=False)),
        {"embed/table": True, "head/kernel": True, "head/bias": False},
        {"embed": {"table": True}, "head": {"bias": False}},
        {"head": {"kernel": True, "bias": False}},
    ],
)
def test_a_mask_may_name_a_tied_leaf_by_each_of_its_names(call, mask):
    tied = tied_model()
    of_leaves = pt.mask(tied, "embed")
    assert equal(CALLS_BY_NAME[call](tied, mask), CALLS_BY_NAME[call](tied, of_leaves))


def test_a_mask_from_before_a_tie_and_one_from_after_it_fit_both():
    tied, apart = tied_model(), pt.untie(tied_model())
    assert pt.paths(tied, pt.mask(apart, "**/{table,kernel}")) == ["embed/table"]
    assert pt.paths(apart, pt.mask(tied, "embed")) == ["embed/table", "head/kernel"]


@pytest.mark.parametrize("call", CALLS_BY_NAME)
@pytest.mark.parametrize(("marked", "other"), [("embed/table", "head/kernel"), ("head/kernel", "embed/table")])
def test_a_mask_that_contradicts_itself_at_a_tied_leaf_says_so(call, marked, other):
    mask = names_marked(table=marked == "embed/table", kernel=marked == "head/kernel", bias=True)
    says(
        pt.PatternError,
        f"a mask has True or False at each leaf of the tree: {marked!r} is True and {other!r} is False in the mask, and they"
        " are names of one tied leaf: give both the same, or select by a pattern",
        CALLS_BY_NAME[call],
        tied_model(),
        mask,
    )


def test_a_mask_unties_every_alias_of_a_leaf():
    block = {"w": jnp.ones(2), "b": jnp.zeros(2)}
    tied = pt.tie({"x": block, "y": block, "z": {"w": jnp.ones(2)}}, {"y": "x", "z/w": "x/w"})
    assert pt.ties(tied).keys() == {"y/w", "y/b", "z/w"}
    assert pt.ties(pt.untie(tied, {"x": {"w": True, "b": False}})).keys() == {"y/b"}
    both = {"x": {"w": False, "b": True}, "y": {"w": False, "b": True}, "z": {"w": False}}
    assert pt.ties(pt.untie(tied, both)).keys() == {"y/w", "z/w"}


ALIASES = "['head/kernel']"


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        (names_marked(table=False, kernel=False, bias=True), f"the mask is True at no leaf that has an alias: the aliases are {ALIASES}"),
        (names_marked(table=False, kernel=False, bias=False), f"the mask is True at no leaf that has an alias: the aliases are {ALIASES}"),
        ([{"embed": {"table": False}, "head": {"bias": True}}], f"the mask is True at no leaf that has an alias: the aliases are {ALIASES}"),
        ({"embed": {"table": True}}, "a mask has True or False at each leaf of the tree: missing in the mask: ['head/bias']"),
        ("head/bias", f"the pattern 'head/bias' matches no alias: there are {ALIASES}"),
        (["head/bias"], f"the pattern 'head/bias' matches no alias: there are {ALIASES}"),
        (["head/kernel", "head/bias"], f"the pattern 'head/bias' matches no alias: there are {ALIASES}"),
        (["head/kernel", "!head/bias"], f"the pattern 'head/bias' matches no alias: there are {ALIASES}"),
        (["embed/table"], f"'embed/table' is a source: name its aliases, {ALIASES}"),
        (["**", "!embed/table"], f"'embed/table' is a source: name its aliases, {ALIASES}"),
        ("head/{kernel,bias,x}", f"in the pattern 'head/{{kernel,bias,x}}' the alternatives ['bias', 'x'] match no alias: there are {ALIASES}"),
        (re.compile(".*bias"), f"the regex '.*bias' matches no alias: there are {ALIASES}"),
        (["head/kernel", re.compile(".*bias")], f"the regex '.*bias' matches no alias: there are {ALIASES}"),
        (lambda path, leaf: leaf.ndim == 1, f"the predicate '<lambda>' is true of no alias: there are {ALIASES}"),
        (["a", "b"], f"the pattern 'a' matches no alias: there are {ALIASES}\nthe pattern 'b' matches no alias: there are {ALIASES}"),
        (["head/kernal", "**"], f"the pattern 'head/kernal' matches no alias: there are {ALIASES}. Did you mean 'head/kernel'?"),
        ("!head/kernel", "the selector removes all that it selects"),
    ],
)  # fmt: skip
def test_untie_says_that_a_selector_means_no_alias(selector, message):
    tied = tied_model()
    says(pt.PatternError, message, pt.untie, tied, selector)
    assert pt.ties(tied).keys() == {"head/kernel"}


def test_a_leaf_is_drawn_again_by_a_mask_and_the_spec():
    spec = pt.Tree({"w": pt.Param((2, 3), init=I.normal(1.0)), "b": pt.Param((3,), init=I.zeros)})
    params = pt.init(spec, jax.random.key(0))
    again = pt.reinit(params, jax.random.key(1), {"w": True, "b": False}, spec=spec)
    assert again["b"] is params["b"]
    assert not (again["w"] == params["w"]).any()


@pytest.mark.parametrize(
    "mask",
    [{"w": True, "b": False}, {"w": np.True_, "b": np.False_}, pt.Tree({"w": True, "b": False}), {"a": {"w": True}}],
)
def test_drawing_again_by_a_mask_without_a_spec_says_what_is_missing(mask):
    says(
        pt.PatternError,
        "reinit takes rules, selector -> initialiser, and got a mask: to draw its leaves as they were declared, give spec=",
        pt.reinit,
        {"w": A, "b": B},
        jax.random.key(0),
        mask,
    )


def test_a_selector_of_masks_patterns_and_regexes():
    model = eqx.nn.Linear(3, 2, key=jax.random.key(0))
    marked = jax.tree.map(lambda leaf: leaf.ndim == 1, model)
    assert pt.paths(model, marked) == pt.paths(model, [marked, "bias"]) == ["bias"]
    assert pt.paths({"w": A, "b": B}, [{"w": True, "b": True}, "!b", re.compile("w")]) == ["w"]
    for wrong in (1, [1], A):
        with pytest.raises(pt.PatternError, match="not a selector"):
            pt.select({"w": A}, wrong)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ({"enc": {"w": True}, "dec": True},
         "a mask has True or False at each leaf of the tree: missing in the mask: ['enc/b']\nunexpected in the mask: ['dec']"),
        ({"enc": {"w": True, "b": 1}}, "a mask has True or False at each leaf of the tree: 'enc/b' is 1, and not True or False"),
        ({"enc": {"w": True, "b": jnp.ones(3, bool)}},
         "a mask has True or False at each leaf of the tree: 'enc/b' is bool[3], and not True or False"),
        ({"enc": True}, "a mask has True or False at each leaf of the tree: missing in the mask: ['enc/w', 'enc/b']\n"
         "unexpected in the mask: ['enc']"),
        ([True, False], "a mask has True or False at each leaf of the tree: missing in the mask: ['enc/w', 'enc/b']\n"
         "unexpected in the mask: ['0', '1']"),
        ({"enc": {"w": jnp.array(True), "b": np.array(False)}},
         "a mask has True or False at each leaf of the tree: 'enc/w' is bool[], and not True or False: write bool(...)\n"
         "'enc/b' is bool[], and not True or False: write bool(...)"),
        ({"enc": {"w": False, "b": False}}, "the mask is True at no leaf"),
        (["enc", True], "not a selector: True; a selector is a pattern such as '**/bias', a compiled regex, a function"
         " (path, leaf) -> bool, or a sequence of these"),
        ({"enc": {"w": A, "b": B}}, "not a selector: a dict; the tree comes first, and then the selector (a mask has True or False at each leaf)"),
        ({}, "not a selector: a dict; the tree comes first, and then the selector (a mask has True or False at each leaf)"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("call", [pt.items, pt.select, pt.partition, pt.drop])
def test_a_mask_that_does_not_fit_says_where(call, mask, message):
    says(pt.PatternError, message, call, {"enc": {"w": A, "b": B}}, mask)


def test_a_list_of_bools_that_does_not_fit_a_list_says_where():
    says(
        pt.PatternError,
        "a mask has True or False at each leaf of the tree: missing in the mask: ['1']",
        pt.items,
        [A, B],
        [True],
    )


def test_a_mask_of_the_layers_apart_does_not_fit_their_stack():
    layers = pt.Tree({"blocks": [{"w": A}] * 3})
    stacked = pt.stacks.stack(layers, "blocks")
    with pytest.raises(pt.PatternError, match=r"missing in the mask: \['blocks/:/w'\]"):
        pt.select(stacked, pt.mask(layers, "**"))


def test_a_mask_of_optax_selects_the_leaves_that_optax_takes():
    params = mlp()
    mask = jax.tree.map(lambda leaf: leaf.ndim > 1, params)
    state = optax.masked(optax.trace(0.9), mask).init(params)
    moved = {path for path, leaf in pt.items(state.inner_state.trace) if isinstance(leaf, jax.Array)}
    assert moved == {*pt.paths(params, mask)}


def test_nested_rules_are_not_taken_for_a_mask():
    tree = pt.Tree({"enc": {"kernel": jnp.ones((2, 3))}})
    with pytest.raises(pt.InitError, match=r"^cannot draw 'enc/kernel': not an initialiser: dict"):
        pt.reinit(tree, jax.random.key(0), {"enc": {"kernel": pt.initializers.zeros}})
