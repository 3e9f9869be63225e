"""The static part of a Tree in other processes: pickles, copies, pickled treedefs, and functions that jax.export writes."""

import copy
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import cloudpickle
import jax
import jax.numpy as jnp
import pytest
from jax import export
from trees import ARRAYS, TREES, arange, equal, language_model, mlp, tied

import ptree as pt

ROOT = Path(__file__).parents[2]

ON_TREES = {name: tree for name, tree in TREES.items() if type(tree) is pt.Tree}
on_trees = pytest.mark.parametrize("tree", ON_TREES.values(), ids=ON_TREES)

COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "cloudpickle": lambda what: cloudpickle.loads(cloudpickle.dumps(what)),
    # JAX's treedefs need protocol 2 or later
    **{f"pickle {at}": lambda what, at=at: pickle.loads(pickle.dumps(what, at)) for at in range(2, pickle.HIGHEST_PROTOCOL + 1)},
}  # fmt: skip


def layouts(structure):
    """The layouts in a treedef."""
    data = structure.node_data()
    here = [data[1]] if data is not None and data[0] is pt.Tree else []
    return here + [layout for child in structure.children() for layout in layouts(child)]


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
@on_trees
def test_copies_of_treedefs_and_trees_have_the_interned_layouts(tree, copied):
    structure = jax.tree.structure(tree)
    if copied is not copy.copy:  # a copied treedef is the same object
        assert all(a is b for a, b in zip(layouts(copied(structure)), layouts(structure), strict=True))
    assert hash(copied(structure)) == hash(structure)
    if not any("PRNG" in name for name, other in ON_TREES.items() if other is tree):  # JAX cannot pickle typed keys
        again = jax.tree.structure(copied(tree))
        assert all(a is b for a, b in zip(layouts(again), layouts(structure), strict=True))


WRITE = """
import pickle, sys
import jax
import ptree as pt
lm = {"embed": {"table": jax.numpy.ones((5, 2))}, "head": {"kernel": jax.numpy.ones((2, 5)), "bias": jax.numpy.ones(5)}}
tree = pt.tie(lm, {"head/kernel": pt.transposed("embed/table")})
structure = jax.tree.structure(tree)
with open(sys.argv[1], "wb") as file:
    pickle.dump((structure, tree, {structure: "found"}, tree._layout), file)
"""


@pytest.mark.parametrize("seed", ["1", "2"])
def test_a_treedef_of_a_process_with_other_hashes_is_found_again(tmp_path, seed):
    file = tmp_path / "tree.pickle"
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", WRITE, file], check=True, env=environment, cwd=tmp_path)
    structure, tree, table, layout = pickle.loads(file.read_bytes())
    here = pt.tie(
        {"embed": {"table": jnp.ones((5, 2))}, "head": {"kernel": jnp.ones((2, 5)), "bias": jnp.ones(5)}},
        {"head/kernel": pt.transposed("embed/table")},
    )
    assert layout is here._layout
    assert structure == jax.tree.structure(here)
    assert table[jax.tree.structure(here)] == "found"
    assert {jax.tree.structure(here): 1}[structure] == 1
    assert all(a is b for a, b in zip(layouts(structure), layouts(jax.tree.structure(here)), strict=True))
    assert tree == here
    compiled = []

    @jax.jit
    def summed(params):
        compiled.append(params)
        return params["head/kernel"].sum()

    leaves = jax.tree.leaves(here)
    for params in (here, tree, jax.tree.unflatten(structure, leaves)):
        assert summed(params) == 10
    assert len(compiled) == 1


# --------------------------------------------------------------------------------- jax.export


def through_bytes(structure):
    """A treedef as jax.export writes it and reads it back: static parts as bytes, by the functions that are registered."""
    from jax._src.export import _export

    data = structure.node_data()
    if data is None:
        return 0.0
    children = [through_bytes(child) for child in structure.children()]
    kind, static = data
    if kind is dict:
        return dict(zip(static, children, strict=True))
    if kind in (list, tuple):
        return kind(children)
    if kind is type(None):
        return None
    name, write = _export.serialization_registry[kind]
    same_kind, read, build = _export.deserialization_registry[name]
    assert same_kind is kind
    written = write(static)
    assert type(written) is bytes
    return build(read(written), children)


EXPORTED = {name: tree for name, tree in ARRAYS.items() if type(tree) is pt.Tree}


@pytest.mark.parametrize("tree", EXPORTED.values(), ids=EXPORTED)
def test_the_structure_of_a_tree_goes_through_the_bytes_of_an_export(tree):
    structure = jax.tree.structure((tree, {"flat": pt.flatten(tree)}))  # a flat tree holds its ties as nodes
    again = jax.tree.structure(through_bytes(structure))
    assert again == structure
    assert all(a is b for a, b in zip(layouts(again), layouts(structure), strict=True))


def test_a_transform_that_is_not_registered_where_an_export_is_read_is_named():
    from jax._src.export import _export

    halved = pt.sharing.register_transform("halved", lambda w: w / 2, lambda w: w * 2)
    layout = pt.Tree({"a": 1.0, "b": halved("a")})._layout
    name, write = _export.serialization_registry[pt.Tree]
    _, read, _ = _export.deserialization_registry[name]
    assert read(write(layout)) is layout
    with pytest.raises(
        pt.TieError, match=r"no transform has the name 'quartered'.*Call ptree.sharing.register_transform"
    ):
        read(write(layout).replace(b"halved", b"quartered"))
    assert json.loads(write(layout))["keys"] == ["a"]


def double(params, x):
    return jax.tree.map(lambda leaf: leaf * x, params), params["head"]["kernel"].sum() + x


def test_an_exported_function_takes_and_gives_trees():
    params = tied({"head/kernel": pt.transposed("embed/table")}, language_model())
    exported = export.export(jax.jit(double))(params, 2.0)
    doubled, total = exported.call(params, 2.0)
    assert equal(doubled, jax.tree.map(lambda leaf: leaf * 2.0, params))
    assert total == params["embed/table"].sum() + 2
    with pytest.raises(ValueError, match="head/kernel = transposed"):
        exported.call(pt.untie(params), 2.0)


@pytest.mark.parametrize("order", [0, 1])
def test_an_exported_function_over_trees_is_written_and_read(order):
    pytest.importorskip("flatbuffers")  # which jax.export needs to write bytes
    params = tied({"4": "2"}, mlp())

    def loss(params, x):
        for name in "0246":
            x = jnp.tanh(x @ params[name]["kernel"] + params[name]["bias"])
        return x.sum()

    x = arange(3, 4)
    data = export.export(jax.jit(loss))(params, x).serialize(vjp_order=order)
    again = export.deserialize(bytearray(data))
    assert again.in_tree == jax.tree.structure(((params, x), {}))
    assert again.call(params, x) == jax.jit(loss)(params, x)
    if order:
        grads = jax.grad(again.call)(params, x)
        assert jax.tree.structure(grads) == jax.tree.structure(params)
        assert bool(jnp.allclose(grads["4/kernel"], jax.grad(loss)(params, x)["2/kernel"], rtol=1e-6))
