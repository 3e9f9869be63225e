"""auto and plan together: for any tree the rules that auto proposes are taken by plan, and give each leaf the split that was chosen."""

import random

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

import ptree as pt
from ptree import shard
from ptree._tree import aliases, leaves, stacked_axes
from ptree.shard._auto.auto import _layer_leaf
from ptree.shard._auto.leaf_splits import splits_of
from ptree.shard._auto.mesh_roles import mesh_roles

MESHES = (
    AbstractMesh((4, 2), ("data", "model")),
    AbstractMesh((2, 2, 2), ("data", "model", "expert")),
    AbstractMesh((8,), ("fsdp",)),
    AbstractMesh((8,), ("tp",)),
)
ORDINARY = (
    *("up", "down", "q", "k", "v", "o", "kernel", "weight", "bias", "table", "embedding", "head", "w", "scale"),
    *("experts", "layers", "blocks", "0", "1", "2", "dense", "gate"),
)
UNUSUAL = (*ORDINARY, "a*b", "{x}", "**", "*", "!n", "x.y", "kernel.w", "a b", "é", "[0]", "a,b", "1..3")
SIZES = (1, 2, 3, 4, 6, 7, 8, 12, 16, 24, 32, 64)


def random_tree(draw, names, depth=0):
    """A dict of dicts in which a name may be that of a node in one place and of a leaf in another."""
    tree = {}
    for name in draw.sample(names, draw.randrange(1, 6)):
        if depth < 3 and draw.random() < 0.5:
            tree[name] = random_tree(draw, names, depth + 1)
        else:
            shape = [draw.choice(SIZES) for _ in range(draw.choice([0, 1, 1, 2, 2, 2, 3, 4]))]
            tree[name] = jax.ShapeDtypeStruct(tuple(shape), jnp.float32)
    return tree


def stacked_or_tied(draw, tree):
    """A Tree of it, with a stack of experts and of layers, or with two leaves of one shape tied."""
    shape = {"up/kernel": (2, 4, 16, 64), "down/kernel": (2, 4, 64, 16), "scale": (2, 4, 16)}
    experts = {f":/experts/:/{path}": jax.ShapeDtypeStruct(whole, jnp.float32) for path, whole in shape.items()}
    q = jax.ShapeDtypeStruct((2, 64, 64), jnp.float32)
    tree = pt.Tree({**tree, draw.choice(("blocks", "scale", "kernel")): {**experts, ":/q": q}})
    alike = {}
    for path, leaf in leaves(tree):
        alike.setdefault(leaf.shape, []).append(path)
    pairs = [paths for paths in alike.values() if len(paths) > 1 and not any("/:/" in path for path in paths)]
    if not pairs:
        return tree
    source, target = draw.sample(draw.choice(pairs), 2)
    try:
        return pt.tie(tree, {target: source})
    except pt.TieError:  # an alias may not be above a leaf
        return tree


def with_layers(draw, names):
    """A dict of dicts with numbered layers, of which most are alike."""
    tree, layer = random_tree(draw, names), random_tree(draw, names)
    layers = {str(at): layer if draw.random() < 0.7 else random_tree(draw, names) for at in range(draw.randrange(2, 5))}
    tree[draw.choice(("blocks", "net"))] = layers
    return {"a": {str(at): {"net": dict(tree)} for at in range(2)}, "z": tree} if draw.random() < 0.3 else tree


def tied_through_a_transpose(draw, tree):
    """A Tree of it with an alias for a kernel, or for a view of it, in some other place."""
    kernels = [(path, leaf) for path, leaf in leaves(tree) if len(leaf.shape) == 2]
    if not kernels:
        return pt.Tree(tree)
    path, leaf = draw.choice(kernels)
    alias = draw.choice(
        ("head/kernel", f"x/{path.rpartition('/')[2]}", "blocks/9/w", f"{path.rpartition('/')[0]}/tied")
    )
    try:
        tree = pt.put(pt.Tree(tree), alias, jax.ShapeDtypeStruct(leaf.shape[::-1], leaf.dtype))
    except pt.PtreeError:  # there is a leaf above it
        return pt.Tree(tree)
    return pt.tie(tree, {alias: pt.transposed(path)})


def chosen(tree, mesh, min_size):
    """Path -> the spec of the whole array that auto chooses, before it writes rules."""
    layers = {path: _layer_leaf(path, leaf.shape) for path, leaf in leaves(tree)}
    specs = {}
    for path, split in splits_of(layers, mesh_roles(mesh, None), min_size, None).items():
        front = stacked_axes(path) - split.is_expert
        specs[path] = P(*[None] * front, *split.spec) if split.spec else P()
    return specs


@pytest.mark.parametrize("names", [ORDINARY, UNUSUAL], ids=["ordinary", "unusual"])
@pytest.mark.parametrize("form", ["dict", "Tree"])
def test_plan_takes_what_auto_proposes_and_each_leaf_gets_its_split(names, form):
    ties = 0
    for seed in range(120):
        draw = random.Random(seed)
        tree = random_tree(draw, names)
        if form == "Tree":
            tree = stacked_or_tied(draw, tree)
            ties += bool(aliases(tree))
        mesh, min_size = draw.choice(MESHES), draw.choice((1, 8, 100, 2**20))
        rules = shard.auto(tree, mesh, min_size=min_size)
        plan = shard.plan(tree, rules, mesh)
        assert {leaf.path: leaf.sharding.spec for leaf in plan.leaves} == chosen(tree, mesh, min_size), seed
        assert eval(repr(rules), {"P": P}) == rules
    assert form == "dict" or ties > 20


@pytest.mark.parametrize("form", ["dict", "dotted", "Tree"])
def test_layers_that_are_alike_get_the_split_of_each(form):
    ties = 0
    for seed in range(60):
        draw = random.Random(seed)
        tree = with_layers(draw, draw.choice((ORDINARY, (*UNUSUAL, "x.0.y", "x.1.y", "0.q"))))
        if form == "dotted":
            tree = {path.replace("/", "."): leaf for path, leaf in leaves(tree)}
        if form == "Tree":
            tree = tied_through_a_transpose(draw, tree)
            ties += bool(aliases(tree))
        mesh, min_size = draw.choice(MESHES), draw.choice((1, 8, 100, 2**20))
        plan = shard.plan(tree, shard.auto(tree, mesh, min_size=min_size), mesh)
        assert {leaf.path: leaf.sharding.spec for leaf in plan.leaves} == chosen(tree, mesh, min_size), seed
    assert form != "Tree" or ties > 30


def test_a_node_of_the_name_of_a_leaf_keeps_its_own_leaves():
    """The convolution of a ViT in Flax is a node `embedding`, the table of its text tower a leaf `embedding`."""
    array = jax.ShapeDtypeStruct
    tree = {
        "visual": {"embedding": {"kernel": array((16, 16, 3, 768), jnp.float32), "bias": array((768,), jnp.float32)}},
        "text": {"tok": {"embedding": array((32000, 512), jnp.float32)}},
    }
    rules = shard.auto(tree, MESHES[0])
    assert rules == {"**/tok/embedding": P("model", "data"), "**": P()}
    assert shard.plan(tree, rules, MESHES[0])["visual/embedding/bias"].spec == P()


def test_where_rules_would_be_too_many_leaves_are_replicated_and_plan_takes_the_rest(monkeypatch):
    monkeypatch.setattr("ptree.shard._auto.few_rules._LEAST_FORMS", 3)
    monkeypatch.setattr("ptree.shard._auto.few_rules._MATCHES", 0)
    divided = 0
    for seed in range(100):
        draw = random.Random(seed)
        tree = stacked_or_tied(draw, random_tree(draw, UNUSUAL))
        rules = shard.auto(tree, MESHES[0], min_size=1)
        plan = shard.plan(tree, rules, MESHES[0])
        expected = chosen(tree, MESHES[0], 1)
        assert all(leaf.sharding.spec in (P(), expected[leaf.path]) for leaf in plan.leaves), seed
        divided += any(not leaf.is_replicated for leaf in plan.leaves)
    assert divided > 50
