"""A Tree beside dicts: pairs, unions, equality, and the ties of a Tree that was unpacked into a dict."""

import copy
import json
import pickle
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from errors import says
from flax.core import freeze
from trees import TREES, arange, dense, equal, language_model, mlp, tied

import ptree as pt

ON_TREES = {name: tree for name, tree in TREES.items() if type(tree) is pt.Tree}
on_trees = pytest.mark.parametrize("tree", ON_TREES.values(), ids=ON_TREES)
TIED = {name: tree for name, tree in ON_TREES.items() if pt.ties(tree)}
on_tied = pytest.mark.parametrize("tree", TIED.values(), ids=TIED)


def lm():
    return tied({"head/kernel": pt.transposed("embed/table")}, language_model())


# ------------------------------------------------------------------------------------- pairs


@pytest.mark.parametrize(
    "made",
    [
        lambda d: d.items(),
        lambda d: list(d.items()),
        lambda d: tuple(d.items()),
        lambda d: iter(d.items()),
        lambda d: zip(d, d.values(), strict=True),
        lambda d: ((name, value) for name, value in d.items()),
        lambda d: ([name, d[name]] for name in d),
        lambda d: iter(list(d.items())),
    ],
    ids=["items", "list", "tuple", "iterator", "zip", "generator", "lists", "list iterator"],
)
def test_pairs_are_a_mapping_as_for_a_dict(made):
    plain = {"b": 1, "a": {"x": 2, "y": [3, 4]}, "c/d": 5}
    assert pt.Tree(made(plain)) == pt.Tree(dict(made(plain))) == pt.Tree(plain)
    assert list(pt.Tree(made(plain))) == list(pt.Tree(dict(made(plain))))


def test_a_list_of_layers_stays_one():
    w = arange(2)
    for layers in ([(w, w), (w, w)], [[w, "relu"]], [("dense", w, 1)], [("a", 1), 3], [(0, w), (1, w)], ("ab", "cd")):
        assert [*pt.Tree(layers)] == [str(at) for at in range(len(layers))]
    assert [*pt.Tree({"layers": [("a", 1), ("b", 2)]})["layers"]] == ["0", "1"]  # as in a dict, a list below is a value
    assert pt.Tree(enumerate([5, 6])) == pt.Tree([5, 6])
    assert pt.Tree(iter(())) == pt.Tree([]) == pt.Tree()


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (iter([1, 2]), "a Tree is made of pairs (name, value); got 1 as item 0 of an iterator. For layers under '0', '1', ... give a list"),
        (iter([("a", 1), ("b", 2, 3)]), "a Tree is made of pairs (name, value); got tuple as item 1 of an iterator. For layers under '0', '1', ... give a list"),
        (iter([([], 1)]), "a Tree is made of pairs (name, value); got tuple as item 0 of an iterator. For layers under '0', '1', ... give a list"),
        ([("a", 1), ("a", 2)], "two pairs have the name 'a': 1 and 2"),
        ({1, 2}, "a Tree is made of a mapping, a list or a tuple; got set"),
        ("ab", "a Tree is made of a mapping, a list or a tuple; got 'ab'"),
    ],
)  # fmt: skip
def test_what_is_no_pair_is_told(pairs, message):
    says(pt.StructureError, message, pt.Tree, pairs)


def dm_tree_map(function, node):
    """`tree.map_structure` of dm-tree: sorted names, values by name, and the type called with a generator of pairs."""
    if isinstance(node, (list, tuple)):
        return type(node)(dm_tree_map(function, value) for value in node)
    if not hasattr(node, "items"):
        return function(node)
    values = dict(zip(sorted(node), [dm_tree_map(function, node[name]) for name in sorted(node)], strict=True))
    return type(node)((name, values[name]) for name in node)


NUMBERS = {name: tree for name, tree in ON_TREES.items() if name != "PRNG keys" and "stack" not in name}


@pytest.mark.parametrize("tree", NUMBERS.values(), ids=NUMBERS)
def test_dm_tree_maps_a_tree_as_a_dict(tree):
    doubled = dm_tree_map(lambda leaf: leaf if leaf is None else leaf + leaf, tree)
    assert type(doubled) is pt.Tree
    assert equal(doubled, jax.tree.map(lambda leaf: leaf + leaf, tree))


def test_dm_tree_maps_a_stack_layer_by_layer():
    tree = ON_TREES["stacked"]
    doubled = dm_tree_map(lambda leaf: leaf + leaf, tree)
    assert equal(doubled, jax.tree.map(lambda leaf: leaf + leaf, pt.stacks.unstack(tree, "blocks")))


# ------------------------------------------------------------------------------------- unions


def test_a_union_takes_paths_and_keeps_ties():
    tree = lm()
    new = tree | {"head/bias": 1, "extra": {"w": 2}, "extra/b": 3}
    assert pt.flatten(new) == {**pt.flatten(tree), "head/bias": 1, "extra/w": 2, "extra/b": 3}
    assert new["blocks"] is tree["blocks"]
    assert (tree | {}) is tree
    assert ({"a": 1, "head": {"scale": 2}} | tree)["head"] == tree["head"]
    assert [*({"a": 1} | tree)] == ["a", *tree]
    assert tree | freeze({"extra": 1}) == tree | {"extra": 1}
    assert (pt.Tree({"a": 1}) | freeze({"b": 2})) == pt.Tree({"a": 1, "b": 2}) == (freeze({"b": 2}) | pt.Tree({"a": 1}))


def test_in_a_union_a_source_is_written_and_an_alias_ends_its_tie_as_by_put():
    tree = tied({"b": "a"}, {"a": 1, "b": 1, "c": 2})
    assert (tree | {"a": 5})["b"] == 5
    assert pt.ties(tree | {"b": 5}) == {}
    assert pt.flatten(lm() | {"embed": 3})["head/kernel"].shape == (4, 10)  # the alias takes over the leaf
    tied_anew = tree | {"e": arange(2, 2)} | {"d": pt.transposed("e")}
    assert pt.ties(tied_anew) == {"b": "a", "d": pt.transposed("e")}


def test_a_union_of_trees_has_the_ties_of_both():
    both = tied({"b": "a"}, {"a": 1, "b": 1}) | lm()
    assert pt.ties(both) == {"b": "a", "head/kernel": pt.transposed("embed/table")}
    assert pt.ties(pt.Tree({"z": 0}) | {**lm()}) == {"head/kernel": pt.transposed("embed/table")}
    stacked = pt.stacks.stack(pt.Tree([dense(2, 2)] * 3), "")
    assert (pt.Tree({"z": 0}) | stacked)[":"] == stacked[":"]


def test_what_is_no_mapping_is_no_union_and_a_tree_is_not_changed():
    tree = pt.Tree({"a": 1})
    for other in (3, None, [("a", 1)], {"a"}):
        with pytest.raises(TypeError, match="unsupported operand"):
            tree | other
        with pytest.raises(TypeError, match="unsupported operand"):
            other | tree
    with pytest.raises(pt.PathError, match=r"no path 1\.5"):
        tree | {1.5: 2}
    with pytest.raises(TypeError, match="a Tree is immutable"):
        tree |= {"a": 2}
    assert tree.copy() is tree
    assert tree == {"a": 1}


# ----------------------------------------------------------------------------------- equality


def test_a_loaded_tree_equals_the_dict_that_was_saved(tmp_path):
    saved = {
        "enc": {"kernel": arange(4, 8), "bias": jnp.zeros(8, jnp.bfloat16)},
        "head/bias": np.ones(2, np.float32),
        "step": jnp.int32(3),
    }
    pt.save(tmp_path / "a.safetensors", saved)
    loaded = pt.load(tmp_path / "a.safetensors")
    assert loaded == saved
    assert saved == loaded
    assert {"params": saved} == {"params": loaded}


@on_trees
def test_a_tree_equals_its_plain_dict_ties_or_not(tree):
    plain = pt.asdict(tree)
    assert tree == plain
    assert plain == tree
    assert pt.untie(tree) == plain
    assert tree != {**plain, "one more": 1}
    if len(pt.paths(tree)) > 1:
        assert tree != {name: plain[name] for name in list(plain)[1:]}


@pytest.mark.parametrize(
    ("other", "equal"),
    [
        ({"w": np.array([1.0, np.nan], np.float32)}, True),
        ({"w": np.array([1.0, 2.0], np.float32)}, False),
        ({"w": np.array([1.0, np.nan])}, False),
        ({"w": np.array([[1.0, np.nan]], np.float32)}, False),
        ({"w": {}}, False),
        ({}, False),
        ({"w": np.array([1.0, np.nan], np.float32), "e": {}}, False),
        ({1.5: 1}, False),
        ({"w": 1, "w/x": 2}, False),
        ([1], False),
        (3, False),
        (None, False),
    ],
)
def test_equality_with_other_things_is_by_all_that_can_be_read(other, equal):
    tree = pt.Tree({"w": jnp.array([1.0, jnp.nan])})
    assert (tree == other) is equal
    assert (other == tree) is equal
    assert (tree != other) is not equal


def test_keys_of_a_dict_are_read_as_paths_in_a_comparison():
    assert pt.Tree({"a": {"b": [1, 2]}}) == {"a/b": [1, 2]} == pt.Tree({"a/b/0": 1, "a/b/1": 2})
    assert pt.Tree([5]) == {0: 5}
    assert pt.Tree({"a": {}}) == {"a": {}}
    assert pt.Tree() == {}


# ------------------------------------------------------------------- a tied Tree that was unpacked

UNPACKED = {
    "unpacked": lambda tree: {**tree},
    "dict": dict,
    "items": lambda tree: dict(tree.items()),
    "comprehension": lambda tree: {name: tree[name] for name in tree},
    "pairs": lambda tree: [(name, value) for name, value in tree.items()],
    "mapped": lambda tree: {name: jax.tree.map(lambda leaf: leaf + 1, value) for name, value in tree.items()},
    "deep copy": lambda tree: copy.deepcopy({**tree}),
    "merged": lambda tree: {"new": 1} | {**tree},
}


def test_fresh_values_under_the_names_of_a_tied_tree_are_not_tied_in_silence():
    tree = tied({"b": "a"}, {"a": arange(2), "b": arange(2)})
    for fresh in (lambda: jnp.zeros(2), lambda: pt.Param((2,)), lambda: {"lora": np.zeros((2, 2))}):
        with pytest.warns(UserWarning, match="does not hold the same"):
            assert pt.ties(pt.Tree({name: fresh() for name in tree})) == {}
    with pytest.warns(UserWarning, match="does not hold the same"):
        assert pt.ties(pt.Tree({name: at for at, name in enumerate(tree)})) == {}
    labels = pt.Tree(dict.fromkeys(tree, "decay"))  # one label for one leaf, as from `pt.label`
    assert jax.tree.structure(labels) == jax.tree.structure(pt.label(tree, {"**": "decay"}))
    transposed = lm()
    with pytest.warns(UserWarning, match=r"head/kernel = transposed\(embed/table\)"):
        pt.Tree({name: jax.tree.map(jnp.zeros_like, node) for name, node in transposed.items()})


@on_tied
@pytest.mark.parametrize("unpack", UNPACKED.values(), ids=UNPACKED)
def test_a_tree_of_an_unpacked_tree_has_its_ties(tree, unpack):
    if any(":" in path.split("/") and not path.split("/")[0] for path in pt.paths(tree)):
        return
    again = pt.Tree(unpack(tree))
    assert pt.ties(again) == pt.ties(tree)
    nested = pt.Tree({"model": dict(unpack(tree)), "step": 0})
    assert pt.ties(nested["model"]) == pt.ties(tree)
    assert len(jax.tree.leaves(again)) == len(jax.tree.leaves(tree)) + ("new" in again)


def test_more_names_and_a_leaf_of_its_own_keep_the_tie():
    tree = tied({"b": "a"}, {"a": jnp.ones(2), "b": jnp.ones(2)})
    assert pt.ties(pt.Tree({**tree, "c": 3})) == {"b": "a"}
    assert pt.ties(pt.Tree({"z": 1, **tree})) == {"b": "a"}
    assert pt.ties(pt.Tree({"m": {**tree, "c": 3}})) == {"m/b": "m/a"}
    spec = tied({"k": pt.transposed("t")}, {"t": pt.Param((5, 3)), "k": pt.Param((3, 5))})
    assert pt.ties(pt.Tree({**spec, "c": pt.Param((2,))})) == {"k": pt.transposed("t")}
    jitted = jax.jit(lambda tree: pt.Tree({**tree, "c": tree["a"] * 2}))(tree)
    assert pt.ties(jitted) == {"b": "a"}


def test_without_its_source_the_first_alias_has_the_leaf():
    tree = tied({"blocks/1": "blocks/0", "blocks/2": "blocks/0"}, language_model())
    later = pt.Tree({name: block for name, block in tree["blocks"].items() if name != "0"})
    assert pt.ties(later) == {f"2/{path}": f"1/{path}" for path in pt.paths(tree["blocks/0"])}
    assert pt.ties(pt.Tree({name: value for name, value in lm().items() if name != "embed"})) == {}


LOST = {
    "another alias": (lambda tree: {**tree, "b": jnp.zeros(2)}, "b = a"),
    "another source": (lambda tree: {**tree, "a": jnp.zeros(2)}, "b = a"),
    "other values": (lambda tree: {name: value + at for at, (name, value) in enumerate(tree.items())}, "b = a"),
    "another shape": (lambda tree: {**tree, "b": jnp.ones(3)}, "b = a"),
    "a node": (lambda tree: {**tree, "b": {"x": 1}}, "b = a"),
}


@pytest.mark.parametrize(("change", "shown"), LOST.values(), ids=LOST)
def test_a_tie_whose_ends_hold_other_values_is_lost_with_a_warning(change, shown):
    tree = tied({"b": "a"}, {"a": jnp.ones(2), "b": jnp.ones(2)})
    changed = change(tree)
    with pytest.warns(
        UserWarning, match=f"does not hold the same at the two ends of \\['{shown}'\\].* tree | "
    ) as warned:
        again = pt.Tree(changed)
    assert warned[0].filename == __file__
    assert pt.ties(again) == {}
    assert again["b"] is changed["b"] or again["b"] == changed["b"]


def test_a_transposed_tie_inside_jit_is_lost_with_a_warning_as_values_are_not_known():
    with pytest.warns(UserWarning, match=r"head/kernel = transposed\(embed/table\)"):
        jax.jit(lambda tree: pt.Tree({**tree, "c": 3}))(lm())
    assert pt.ties(jax.jit(lambda tree: tree | {"c": 3})(lm())) == pt.ties(lm())


@on_tied
def test_names_of_a_tied_tree_are_plain_strings_for_everyone_else(tree):
    plain = dict.fromkeys(tree, 1)
    assert all(isinstance(name, str) for name in plain)
    assert json.loads(json.dumps(plain)) == plain == {str(name): 1 for name in tree}
    assert {type(name) for name in pickle.loads(pickle.dumps(plain))} <= {str}
    assert {type(name) for name in pt.asdict(tree)} <= {str}
    assert jax.tree.structure(plain) == jax.tree.structure({str(name): 1 for name in tree})
    assert pt.paths(plain) == pt.paths({str(name): 1 for name in tree})
    assert "".join(tree) == "".join(str(name) for name in tree)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tree == pt.asdict(tree)
        assert tree != dict.fromkeys(tree, 1)
        jax.jit(lambda plain: plain)(plain)
    assert pt.put(dict(plain), "zz", 1).keys() == {*plain, "zz"}


def test_untied_and_mlp_trees_pay_nothing():
    tree = pt.Tree(mlp())
    assert {type(name) for name in tree} == {str}
    assert tree._layout.tied_names == {}
