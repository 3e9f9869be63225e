"""Generated paths, patterns and trees at every function: each works, or raises an error of ptree's own.

The long run is in `conftest.py`.
"""

import jax
import jax.numpy as jnp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trees import equal

import ptree as pt
from ptree import initializers as I

own = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

TEXT = st.text(st.sampled_from("abkl01/*?[]{}.,!\\:~ β日"), max_size=12)
NASTY = st.sampled_from(
    ["", "/", "//", "a/", "/a", "a//b", "!", "!!a", "{", "}", "{a", "{5..1}", "{0..1000000000}", "**/**/**/**/x", "***", "[", "[]",
     "[!]", "\\", "a" * 5000, "/".join("a" * 3000), "{" * 100, "{a," * 60, "*" * 300, "{a,b}" * 200, "{a, b}", "{ }", "{1..2 }", "[0-9", "..", ":", "\ud800", "\x00"]
)  # fmt: skip
STRINGS = TEXT | NASTY
KEYS = st.sampled_from(["a", "b", "k", "l0", "l1", "l10", "a b", "β", "a*", "0", "1"])
LEAF = st.sampled_from([jnp.ones(2), jnp.zeros((2, 3)), 1, None, "label", True])


def nested(leaf):
    return st.recursive(leaf, lambda inner: st.dictionaries(KEYS, inner, max_size=4), max_leaves=12)


PLAIN = nested(LEAF)
FOREIGN = st.dictionaries(KEYS | st.sampled_from(["a/b", "a/b/k", "l0/~/l1"]), PLAIN, max_size=3) | st.recursive(
    LEAF,
    lambda inner: st.dictionaries(KEYS, inner, max_size=3) | st.lists(inner, max_size=3) | st.tuples(inner, inner),
    max_leaves=10,
)


@st.composite
def tied_trees(draw):
    """A Tree whose leaves are arrays of a few shapes, with ties drawn among those that fit."""
    mapping = draw(
        st.dictionaries(
            KEYS, nested(st.sampled_from([jnp.ones(2), jnp.arange(6.0).reshape(2, 3)])), min_size=1, max_size=4
        )
    )
    tree = pt.Tree(mapping)
    for _ in range(draw(st.integers(0, 3))):
        names = pt.paths(tree, aliases=True)
        if len(names) < 2:
            break
        alias, source = draw(st.sampled_from(names)), draw(st.sampled_from(names))
        try:
            tree = pt.tie(tree, {alias: source})
        except pt.TieError:
            continue
    return tree


def tolerant(call, *args):
    """What the call returns; None where it raises an error of ptree's own, whose text is a sentence.

    For `summary` a text is the name of a file, and Python's own error says that there is none.
    """
    try:
        return call(*args)
    except (pt.PtreeError, FileNotFoundError) as error:
        assert str(error)
        return None


CALLS = [
    pt.get, pt.items, pt.paths, pt.select, pt.partition, pt.mask, pt.count, pt.drop, pt.flatten,
    lambda t, s: pt.items(t, ["**", f"!{s}"]),
    lambda t, s: pt.set(t, s, 1),
    lambda t, s: pt.put(t, s, {"x": 1}),
    lambda t, s: pt.update(t, s, lambda leaf: leaf),
    lambda t, s: pt.label(t, {s: 1}, default=0),
    lambda t, s: pt.explain(t, {s: 1}),
    lambda t, s: pt.rename(t, {s: "a/*"}),
    lambda t, s: pt.rename(t, {"*": s}),
    lambda t, s: pt.tie(t, {s: "a"}),
    lambda t, s: pt.tie(t, {"a": s}),
    lambda t, s: pt.summary(t, s),
    lambda t, s: pt.random.child_key(jax.random.key(0), s),
    lambda t, s: pt.Tree({s: 1}),
    lambda t, s: pt.unflatten({s: 1}),
]  # fmt: skip


@own
@given(PLAIN.map(lambda t: pt.Tree(t) if isinstance(t, dict) else t) | FOREIGN | tied_trees(), STRINGS)
def test_any_string_at_any_function_works_or_is_refused(tree, text):
    before, structure = jax.tree.leaves(tree), jax.tree.structure(tree)
    for call in CALLS:
        tolerant(call, tree, text)
    assert jax.tree.structure(tree) == structure
    assert all(a is b for a, b in zip(before, jax.tree.leaves(tree), strict=True))


@own
@given(tied_trees(), st.data())
def test_the_laws_hold_for_generated_trees_with_ties(tree, data):
    names = pt.paths(tree, aliases=True)
    chosen = frozenset(data.draw(st.lists(st.sampled_from(names), max_size=4))) if names else frozenset()
    assert equal(pt.unflatten(pt.flatten(tree)), tree)
    assert equal(pt.tie(pt.untie(tree), pt.ties(tree)), tree)
    if any(path in chosen for path in pt.paths(tree)):
        parts = pt.partition(tree, lambda path, leaf: path in chosen)
        assert equal(pt.merge(*parts), tree)
        assert pt.paths(pt.merge(*parts), aliases=True) == names
    values = dict(pt.items(tree, aliases=True))
    for name in names[:4]:
        left = dict(pt.items(pt.drop(tree, lambda path, leaf, name=name: path == name), aliases=True))
        assert left.keys() == values.keys() - {name}
        assert all((left[path] == values[path]).all() for path in left)
        new = values[name] + 1
        written = pt.set(tree, name, new)
        assert written[name] is new
        assert [path for path, value in pt.items(written, aliases=True) if value is not values[path]] == [
            path for path in names if values[path] is values[name] and same_leaf_of(tree, path, name)
        ]
        assert pt.put(tree, name, 5)[name] == 5
    if names:
        drawn = pt.reinit(tree, jax.random.key(0), {"**": I.normal(1.0)})
        assert jax.tree.structure(drawn) == jax.tree.structure(tree)


@own
@given(PLAIN.filter(lambda t: isinstance(t, dict)).map(pt.Tree) | FOREIGN | tied_trees(), STRINGS, STRINGS)
def test_rename_never_loses_a_leaf(tree, old, new):
    renamed = tolerant(pt.rename, tree, {old: new})
    if renamed is not None:
        assert sorted(map(id, jax.tree.leaves(renamed))) == sorted(map(id, jax.tree.leaves(tree)))


def same_leaf_of(tree, a, b):
    """Whether two names are one leaf."""
    sources = pt.ties(tree)
    return sources.get(a, a) == sources.get(b, b)


@own
@given(tied_trees())
def test_generated_trees_come_back_from_a_file(tmp_path_factory, tree):
    file = tmp_path_factory.mktemp("fuzz") / "t.safetensors"
    pt.save(file, tree)
    assert equal(pt.load(file), tree)
    assert pt.paths(pt.load(file), aliases=True) == pt.paths(tree, aliases=True)


@pytest.mark.parametrize("depth", [10, 250])
def test_deep_trees_work_up_to_the_limit(depth):
    tree = pt.Tree({"/".join("a" * depth): jnp.ones(1)})
    path = pt.paths(tree)[0]
    assert pt.set(tree, path, jnp.zeros(1))[path] == 0
    assert equal(pt.merge(*pt.partition(tree, path)), tree)
    assert equal(jax.jit(lambda t: t)(tree), tree)
    assert repr(tree)
