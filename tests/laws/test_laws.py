"""The laws of the design, each over the whole corpus."""

import copy
import pickle

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from trees import ARRAYS, SPECS, TREES, equal, same_leaf

import ptree as pt
from ptree._tree import leaves, map_leaves, with_leaves

ALL = {**TREES, **SPECS}
everywhere = pytest.mark.parametrize("tree", ALL.values(), ids=ALL)
on_trees = pytest.mark.parametrize(
    "tree", [t for t in ALL.values() if type(t) is pt.Tree], ids=[n for n, t in ALL.items() if type(t) is pt.Tree]
)
on_arrays = pytest.mark.parametrize("tree", ARRAYS.values(), ids=ARRAYS)


def nodes(tree, path=""):
    """Every node below, by path, as it is kept: without what its ties fill in."""
    if type(tree) is pt.Tree:
        for key, child in zip(tree._layout.keys, tree._children, strict=True):
            here = f"{path}/{key}" if path else key
            yield here, child
            yield from nodes(child, here)


def other_value(leaf):
    return (
        type(leaf)(leaf)
        if isinstance(leaf, (str, bool))
        else copy.copy(leaf)
        if not isinstance(leaf, jax.Array)
        else jnp.array(leaf)
    )


@everywhere
def test_law_1_get_returns_what_set_wrote_and_nothing_else_changes(tree):
    for path, leaf in pt.items(tree):
        value = other_value(leaf)
        before = jax.tree.leaves(tree)
        new = pt.set(tree, path, value)
        assert pt.get(new, path) is value
        assert [a is b for a, b in zip(before, jax.tree.leaves(tree), strict=True)] == [True] * len(before)
        off = [name for name, _ in nodes(tree) if not (path == name or path.startswith(name + "/"))]
        kept, was = dict(nodes(new)), dict(nodes(tree))
        assert all(kept[name] is was[name] for name in off)
        assert jax.tree.structure(new) == jax.tree.structure(tree)


@on_trees
def test_law_1_holds_through_every_alias(tree):
    for alias, source in pt.ties(tree).items():
        value = other_value(pt.get(tree, alias))
        new = pt.set(tree, alias, value)
        assert same_leaf(pt.get(new, alias), value)
        assert same_leaf(pt.get(new, alias), pt.get(pt.set(tree, alias, value), alias))
        if isinstance(source, str):
            assert new[alias] is value
            assert new[source] is value


@everywhere
def test_law_2_merge_undoes_partition(tree):
    paths = pt.paths(tree)
    for chosen in (paths[:1], paths[::2], paths):
        if not chosen:
            continue
        keep = frozenset(chosen)
        parts = pt.partition(tree, lambda path, leaf, keep=keep: path in keep)
        assert [set(pt.paths(part)) if part is not None else set() for part in parts] == [keep, set(paths) - keep]
        assert equal(pt.merge(*parts), tree)
        assert equal(pt.merge(*parts[::-1]), tree)


@on_trees
def test_law_2_keeps_the_declared_order(tree):
    for path in pt.paths(tree)[1::3]:
        selected, rest = pt.partition(tree, lambda p, _, path=path: p == path)
        assert pt.paths(pt.merge(selected, rest), aliases=True) == pt.paths(tree, aliases=True)


@everywhere
def test_law_2_unflatten_undoes_flatten(tree):
    flat = pt.flatten(tree)
    assert equal(pt.unflatten(flat, like=tree), tree)
    if type(tree) is pt.Tree:
        assert equal(pt.unflatten(flat), tree)
        assert pt.paths(pt.unflatten(flat), aliases=True) == pt.paths(tree, aliases=True)


@everywhere
def test_masks_labels_and_counts_have_the_same_structure_and_agree(tree):
    paths = pt.paths(tree)
    if not paths:
        return
    keep = frozenset(paths[::2])

    def chosen(path, leaf):
        return path in keep

    mask, labels = pt.mask(tree, chosen), pt.label(tree, {chosen: "in"}, default="out")
    assert jax.tree.structure(mask) == jax.tree.structure(labels) == jax.tree.structure(tree)
    assert {path for path, taken in pt.items(mask) if taken} == keep
    assert {path for path, name in pt.items(labels) if name == "in"} == keep
    told = pt.explain(tree, {chosen: 1, "**": 2})
    assert [row.value for row in told.rows] == [1 if row.path in keep else 2 for row in told.rows]
    assert pt.count(tree) == pt.summary(tree).count
    assert pt.check(tree, like=tree) is None
    assert pt.check(tree, like=pt.abstract(tree)) is None


@on_trees
def test_leaves_come_in_the_order_of_a_dict(tree):
    if not pt.ties(tree):
        assert all(a is b for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(pt.asdict(tree)), strict=True))


@on_trees
def test_both_names_of_a_tie_read_one_object(tree):
    plain = pt.asdict(tree)
    for alias, source in pt.ties(tree).items():
        if isinstance(source, str):
            assert tree[alias] is tree[source]
            assert pt.get(plain, alias) is pt.get(plain, source)
            above, _, name = alias.rpartition("/")
            assert pt.get(tree, above)[name] is tree[source]


PICKLED = {**ARRAYS, **SPECS}  # JAX cannot pickle typed PRNG keys


@pytest.mark.parametrize("tree", PICKLED.values(), ids=PICKLED)
def test_law_3_pickle_copy_and_deepcopy_keep_it(tree):
    assert equal(pickle.loads(pickle.dumps(tree)), tree)
    assert equal(copy.copy(tree), tree)
    assert equal(copy.deepcopy(tree), tree)


@on_arrays
def test_law_3_jit_tree_map_eval_shape_and_vmap_keep_it(tree):
    assert jax.tree.structure(jax.jit(lambda t: t)(tree)) == jax.tree.structure(tree)
    if type(tree) is pt.Tree:  # a plain dict comes out of JAX with its keys sorted
        assert pt.paths(jax.jit(lambda t: t)(tree)) == pt.paths(tree)
    assert jax.tree.structure(jax.eval_shape(lambda t: t, tree)) == jax.tree.structure(tree)
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), tree)
    if jax.tree.leaves(tree):
        back = jax.vmap(lambda t: t)(stacked)
        assert jax.tree.structure(back) == jax.tree.structure(tree)
        chex.assert_trees_all_equal(jax.tree.map(lambda leaf: leaf[1], back), jax.tree.map(jnp.asarray, tree))


def floats(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), tree)


FLOATS = {n: t for n, t in TREES.items() if type(t) is pt.Tree and n not in ("PRNG keys", "dtypes", "empty", "size 0")}


@pytest.mark.parametrize("tree", FLOATS.values(), ids=FLOATS)
def test_law_4_the_gradient_of_a_tied_leaf_is_the_sum_over_the_untied_copies(tree):
    tree = floats(tree)

    def loss(get, names):
        return sum((jnp.sin(get(name)) * (at + 1)).sum() for at, name in enumerate(names))

    names = pt.paths(tree, aliases=True)
    apart = pt.untie(tree)
    tied = jax.jit(jax.grad(lambda t: loss(lambda name: t[name], names)))(tree)
    untied = jax.grad(lambda t: loss(lambda name: t[name], names))(apart)
    assert jax.tree.structure(tied) == jax.tree.structure(tree)
    expected = {name: untied[name] for name in pt.paths(tree)}
    for alias, source in pt.ties(tree).items():
        if isinstance(source, str):
            expected[source] = expected[source] + untied[alias]
        else:
            expected[source.source] = expected[source.source] + jnp.swapaxes(untied[alias], -1, -2)
    for name, value in expected.items():
        np.testing.assert_allclose(tied[name], value, rtol=1e-6)


@pytest.mark.parametrize("tree", FLOATS.values(), ids=FLOATS)
@pytest.mark.parametrize("make", [optax.sgd, optax.adamw, optax.adafactor, optax.lion], ids=lambda m: m.__name__)
def test_law_3_optax_and_donation_keep_it(tree, make):
    tree = floats(tree)
    optimiser = make(1e-2)

    def step(params, state):
        updates, state = optimiser.update(jax.tree.map(jnp.ones_like, params), state, params)
        return optax.apply_updates(params, updates), state

    structure, names = jax.tree.structure(tree), pt.ties(tree)
    state = optimiser.init(tree)
    for _ in range(2):
        tree, state = jax.jit(step, donate_argnums=(0, 1))(
            jax.tree.map(jnp.array, tree), jax.tree.map(jnp.array, state)
        )
    assert jax.tree.structure(tree) == structure
    assert pt.ties(tree) == names


@everywhere
def test_law_7_no_function_writes_into_its_argument(tree):
    before, flat = jax.tree.structure(tree), jax.tree.leaves(tree)
    paths = pt.paths(tree)
    if paths:
        pt.update(tree, lambda path, leaf: True, lambda leaf: leaf)
        pt.partition(tree, lambda path, leaf: path == paths[0])
        pt.flatten(tree)
        pt.summary(tree)
        pt.abstract(tree)
        pt.random.keys(tree, jax.random.key(0))
    if type(tree) is pt.Tree and paths:
        pt.drop(tree, lambda path, leaf: path == paths[0])
        pt.put(tree, "a new/leaf", 1)
        pt.untie(tree)
        pt.rename(tree, {"**": "under/**"})
    assert jax.tree.structure(tree) == before
    assert all(a is b for a, b in zip(flat, jax.tree.leaves(tree), strict=True))


@on_trees
def test_dropping_any_leaf_or_alias_leaves_every_other_name(tree):
    names = dict(pt.items(tree, aliases=True))
    for gone in names:
        left = dict(pt.items(pt.drop(tree, lambda path, _, gone=gone: path == gone), aliases=True))
        assert list(left) == [name for name in names if name != gone]
        assert all(same_leaf(left[name], names[name]) for name in left)


@on_trees
def test_rename_there_and_back_is_the_same_tree(tree):
    if pt.paths(tree):
        assert equal(pt.rename(pt.rename(tree, {"**": "under/**"}), {"under/**": "**"}), tree)


@on_trees
def test_untie_then_tie_is_the_same_tree(tree):
    assert equal(pt.tie(pt.untie(tree), pt.ties(tree)), tree)
    assert pt.ties(pt.untie(tree)) == {}


@everywhere
def test_chex_accepts_it(tree):
    chex.assert_trees_all_equal_structs(tree, tree)
    if all(hasattr(leaf, "shape") for leaf in jax.tree.leaves(tree)) and jax.tree.leaves(tree):
        chex.assert_trees_all_equal_shapes_and_dtypes(tree, tree)


@everywhere
def test_leaves_put_in_their_order_are_those_put_by_path(tree):
    numbers = {path: number for number, (path, _) in enumerate(leaves(tree))}
    filled = with_leaves(tree, numbers.values())
    assert equal(filled, map_leaves(tree, lambda path, leaf: numbers[path]))
    assert jax.tree.structure(filled) == jax.tree.structure(tree)


def test_leaves_put_in_their_order_keep_the_order_of_a_dict():
    assert [*with_leaves({"b": {2: "x", 10: "y"}, "a": None}, "12")["b"].items()] == [(2, "1"), (10, "2")]
    assert [*with_leaves({"10": "y", "2": "x"}, "12").items()] == [("10", "2"), ("2", "1")]  # listed as 2, 10
