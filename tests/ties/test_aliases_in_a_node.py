"""A node that is read keeps the ties among its aliases, whose source lies outside, and reads the same bits under every name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trees import arange

import ptree as pt

W = arange(2, 3)
quarter = pt.sharing.register_transform("quarter", lambda w: w / 4, lambda w: w * 4)


def to(path):
    return pt.tie({path: 1, "_": 1}, {"_": path})._layout.ties[0][1]


NODES = {
    "nothing else in it": ({"x": to("a"), "y": to("a")}, {"y": "x"}),
    "a leaf of its own": ({"z": 3, "x": to("a"), "y": to("a")}, {"y": "x"}),
    "a leaf of its own, last": ({"x": to("a"), "y": to("a"), "z": 3}, {"y": "x"}),
    "three of one": ({"z": 3, "x": to("a"), "y": to("a"), "v": to("a")}, {"y": "x", "v": "x"}),
    "of two sources": ({"y": to("a"), "x": to("a"), "z": 3, "p": to("c"), "q": to("c")}, {"x": "y", "q": "p"}),
    "one of each": ({"y": to("a"), "p": to("c"), "z": 3}, {}),
    "deeper": ({"c": {"x": to("a"), "k": 2}, "d": {"e": {"y": to("a")}}, "z": 4}, {"d/e/y": "c/x"}),
    "beside a tie of its own": ({"z": 3, "v": to("b/z"), "y": to("a"), "x": to("a")}, {"v": "z", "x": "y"}),
    "both transposed": ({"z": 3, "x": pt.transposed("a"), "y": pt.transposed("a")}, {"y": "x"}),
    "one transposed": ({"z": 3, "x": pt.transposed("a"), "y": to("a")}, {"x": pt.transposed("y")}),
    "one transposed, alone": ({"x": pt.transposed("a"), "y": to("a")}, {"x": pt.transposed("y")}),
    "one registered function": ({"z": 3, "x": quarter("a"), "y": quarter("a")}, {"y": "x"}),
    "a function after it": ({"z": 3, "x": quarter("a"), "y": to("a")}, {"x": quarter("y")}),
    "a function and a transpose": ({"z": 3, "x": quarter("a"), "y": pt.transposed("a")}, {"x": quarter(pt.transposed("y"))}),
    "functions that do not undo each other": ({"z": 3, "x": quarter("a"), "y": quarter(quarter("a"))}, {"y": quarter("x")}),
}  # fmt: skip


@pytest.mark.parametrize(("node", "expected"), NODES.values(), ids=NODES)
def test_a_node_keeps_the_ties_among_its_aliases(node, expected):
    tree = pt.Tree({"a": W, "c": 7, "b": node})
    read = tree["b"]
    assert pt.ties(read) == expected
    assert pt.get(tree, "b") == read
    names = [path.removeprefix("b/") for path in pt.paths(tree, aliases=True) if path.startswith("b/")]
    assert list(read) == list(dict.fromkeys(name.split("/")[0] for name in names))
    for name in names:
        np.testing.assert_array_equal(read[name], tree[f"b/{name}"], strict=True)


@pytest.mark.parametrize("node", [node for node, _ in NODES.values()], ids=NODES)
def test_a_node_that_was_read_can_be_changed_and_set(node):
    tree = pt.Tree({"a": W, "c": 7, "b": node})
    assert pt.set(tree, "b", tree["b"]) == tree
    doubled = pt.set(tree, "b", jax.tree.map(lambda leaf: leaf * 2, tree["b"]))
    if pt.ties(tree["b"]):
        np.testing.assert_allclose(doubled["a"], 2 * W, rtol=1e-6)
    assert pt.ties(doubled) == pt.ties(tree)
    assert jax.tree.structure(pt.put(pt.Tree(), "n", tree["b"])["n"]) == jax.tree.structure(tree["b"])


def test_the_leaves_of_a_node_that_functions_part_are_leaves_apart():
    eightfold = pt.sharing.register_transform("eightfold", lambda w: w * 8, lambda w: w / 8)
    tree = pt.Tree({"a": W, "b": {"z": 3, "x": quarter("a"), "y": eightfold("a")}})
    assert pt.ties(tree["b"]) == {}
    np.testing.assert_array_equal(tree["b"]["y"], W * 8)


def test_it_is_one_parameter_for_the_gradient_too():
    tree = pt.Tree({"a": jnp.ones(3), "b": {"z": jnp.ones(3), "x": to("a"), "y": to("a")}})
    inner = jax.grad(lambda node: (node["x"] + 2 * node["y"] + node["z"]).sum())(tree["b"])
    assert len(jax.tree.leaves(inner)) == 2
    np.testing.assert_array_equal(inner["y"], [3, 3, 3])
    whole = jax.jit(jax.grad(lambda t: (t["b"]["x"] + 2 * t["b"]["y"]).sum()))(tree)
    np.testing.assert_array_equal(whole["a"], [3, 3, 3])
