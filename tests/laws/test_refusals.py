"""What all functions refuse in the same way: names that collide, trees that are too deep; and how long their errors may be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from errors import says
from trees import arange

import ptree as pt
from ptree import initializers as I
from ptree import nn

Z = jnp.zeros(2)


@pytest.mark.parametrize("call", [
    lambda n: pt.random.keys(n, jax.random.key(0)), pt.flatten, pt.abstract, pt.summary, lambda n: pt.partition(n, "*"),
    lambda n: pt.reinit(n, jax.random.key(0), {"**": I.zeros}), lambda n: pt.update(n, "**", lambda leaf: leaf),
])  # fmt: skip
@pytest.mark.parametrize("names", [{"a/b": Z, "a": {"b": arange(3)}}, {1: Z, "1": arange(3)}], ids=["slash", "number"])
def test_names_that_collide_are_refused_everywhere(call, names):
    with pytest.raises(pt.PathError, match="is ambiguous"):
        call(names)


def nested(levels, leaf=1):
    for _ in range(levels):
        leaf = {"a": leaf}
    return leaf


@pytest.mark.parametrize("call", [
    pt.items, pt.flatten, pt.summary, pt.abstract, pt.Tree, lambda t: pt.merge(t, t), lambda t: pt.select(t, "**/a"),
    lambda t: pt.rename(t, {"a": "b"}), lambda t: pt.check(t, t), lambda t: pt.update(t, "**", lambda leaf: leaf),
    lambda t: pt.get(t, "/".join("a" * 3000)), lambda t: pt.set(t, "/".join("a" * 3000), 2), lambda t: pt.drop(t, "**/a"),
    lambda t: pt.put({"x/y": t}, "z/y", 1), lambda t: pt.label(t, {"**": 1}), lambda t: pt.unflatten({"a": 1}, like=t),
])  # fmt: skip
def test_plain_trees_of_thousands_of_levels_are_refused_in_a_sentence(call):
    with pytest.raises(pt.PathError) as error:
        call(nested(3000))
    assert len(str(error.value)) < 500
    call256 = nested(256)
    assert pt.paths(pt.drop(pt.put(call256, "b", 1), "a")) == ["b"]
    assert pt.merge(*pt.partition({"a": call256["a"], "b": 2}, "b")) == {"a": call256["a"], "b": 2}


@pytest.mark.parametrize("call", [
    lambda t: pt.mask(t, "a"), lambda t: pt.partition(t, "a"), lambda t: pt.update(t, "[a]", lambda x: x + 1), lambda t: pt.drop(t, "a"),
])  # fmt: skip
def test_depth_is_seen_also_where_nothing_is_selected(call):
    with pytest.raises(pt.PathError, match="the tree has more than 256 levels"):
        call({"a": 1, "deep": nested(3000)})
    call({"a": 1, "deep": nested(255)})


def test_no_message_fills_a_screen_with_what_was_asked():
    long = "x" * 5000
    tree = pt.Tree({"a": {"b": 1}})
    for call in (pt.get, pt.items, pt.put, pt.select, pt.drop):
        for name in (long, f"a/{long}", f"a/b/{long}", "[" + long, f"**/{long}"):
            try:
                call(tree, name, 1) if call is pt.put else call(tree, name)
            except pt.PtreeError as error:
                assert len(str(error)) < 700, (call, name[:9])


def test_foreign_exceptions_do_not_come_through():
    says(pt.StructureError, "cannot merge: ['b'] is in more than one tree."
         " Drop one side first, or use ptree.set to replace values",
         pt.merge, pt.tie({"a": {"x": 1}, "b": {"x": 1}}, {"b/x": "a/x"}), pt.Tree({"b": 5}))  # fmt: skip
    assert pt.ties(pt.untie({"m": pt.tie({"a": 1, "b": 1}, {"b": "a"})})) == {}
    assert pt.ties(pt.tie([1, 1], {1: 0})) == {"1": "0"}
    assert pt.Tree({"1" * 5000: 1, "2": 2})["2"] == 2
    assert 10**5000 not in pt.Tree({"a": 1})
    assert pt.Tree({np.int64(3): 1})[np.int64(3)] == 1
    with pytest.raises(pt.InitError, match=r"not a PRNG key: u32\[5\]; use jax.random.key\(seed\)"):
        pt.init({"a": pt.Param(2, init=I.zeros)}, jnp.zeros(5, jnp.uint32))
    says(pt.LayerError, "Dense(8): expected a bias of the shape (8,), got f32[3]",
         nn.Dense(8), {"kernel": jnp.ones((4, 8)), "bias": jnp.ones(3)}, jnp.ones((2, 4)))  # fmt: skip
    says(pt.PatternError, "the selector removes all that it selects", pt.paths, {"a": 1}, ["a", "!a"])
