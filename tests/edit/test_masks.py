"""A mask, a tree of bools, as a selector: the same leaves as the selector that it was made by, in every function."""

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


class IsWide(eqx.Module):
    """A predicate that is a module, with a bool in a field."""

    strictly: bool

    def __call__(self, path, leaf):
        return leaf.shape[-1] > 2 if self.strictly else leaf.shape[-1] >= 2


def test_a_module_of_another_class_is_a_predicate():
    assert pt.paths({"w": A, "v": A[:, :2]}, IsWide(strictly=True)) == ["w"]
    assert pt.paths({"w": A, "v": A[:, :2]}, [IsWide(strictly=False)]) == ["w", "v"]


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


def test_a_leaf_is_drawn_again_by_a_mask_and_the_spec():
    spec = pt.Tree({"w": pt.Param((2, 3), init=I.normal(1.0)), "b": pt.Param((3,), init=I.zeros)})
    params = pt.init(spec, jax.random.key(0))
    again = pt.reinit(params, jax.random.key(1), {"w": True, "b": False}, spec=spec)
    assert again["b"] is params["b"]
    assert not (again["w"] == params["w"]).any()


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
        ([True, False], "not a selector: True; a selector is a pattern such as '**/bias', a compiled regex, a function"
         " (path, leaf) -> bool, or a sequence of these"),
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
