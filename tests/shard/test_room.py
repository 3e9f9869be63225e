"""The room `ptree.shard`: it opens when it is first used, and says what is in it."""

import subprocess
import sys


def test_import_ptree_does_not_open_the_room():
    code = (
        "import sys, ptree; assert 'ptree.shard' not in sys.modules; ptree.shard; assert 'ptree.shard' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_jax_without_the_private_names_that_are_used_here_is_enough():
    code = """
import builtins, warnings
import jax
from jax.sharding import PartitionSpec as P

imported = builtins.__import__
def without_private_names(name, scope=None, *more):
    if name.startswith("jax._src") and str((scope or {}).get("__name__")).startswith("ptree"):
        raise ImportError(name)
    return imported(name, scope, *more)
builtins.__import__ = without_private_names

import ptree as pt
import ptree.convert, ptree.look, ptree.nn, ptree.train
mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
plan = pt.shard.plan({"w": pt.Param((8,))}, P("data"), mesh)
with jax.set_mesh(mesh):
    placed = jax.jit(lambda w: pt.shard.place({"w": w}, plan))(jax.numpy.ones(8))
assert placed["w"].sum() == 8
from ptree._shardings import process_agreement
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    assert process_agreement._store() is None
assert "does not give the key-value store of its processes" in str(caught[0].message)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
