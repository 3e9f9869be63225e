"""How much memory files need beside the leaves: save one leaf at a time, load the size of what it gives."""

import subprocess
import sys

import pytest

LEAVES, LEAF = 40, 4  # MB each
START = """
import os, sys, jax, jax.numpy as jnp, numpy as np, ptree as pt
from jax.sharding import AxisType, NamedSharding, PartitionSpec
mesh = jax.make_mesh((8,), ("d",), axis_types=(AxisType.Auto,))
file = sys.argv[1]

def grown(call):
    "MB by which the memory that is this process's own grew at its peak."
    call(small)  # code is compiled, threads are started
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")
    before = now("VmHWM")
    kept = call(large)
    print((now("VmHWM") - before) / 2**20)

def now(what):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith(what))

def made(rows):
    place = NamedSharding(mesh, PartitionSpec("d"))
    return {str(at): jax.device_put(np.full((rows, 1024), at, np.float32), place) for at in range(40)}

small, large = made(8), made(1024)
"""


def grown(code, file):
    """MB."""
    done = subprocess.run([sys.executable, "-c", START + code, str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


def test_save_of_sharded_leaves_needs_the_memory_of_one_leaf(tmp_path):
    assert grown("grown(lambda tree: pt.save(file, tree))", tmp_path / "m") < 3 * LEAF


@pytest.mark.parametrize(
    "how", ["", ", like=tree", ", shardings={'**': PartitionSpec('d')}, mesh=mesh"], ids=["alone", "like", "sharded"]
)
def test_load_needs_the_memory_of_what_it_gives(tmp_path, how):
    code = "for tree in (small, large): pt.save(file + str(id(tree)), tree)\n"
    code += f"grown(lambda tree: pt.load(file + str(id(tree)){how}))"
    assert LEAVES * LEAF * 0.8 < grown(code, tmp_path / "m") < LEAVES * LEAF + 6 * LEAF


def test_mapped_leaves_need_none(tmp_path):
    code = "for tree in (small, large): pt.save(file + str(id(tree)), tree)\n"
    assert grown(code + "grown(lambda tree: pt.load(file + str(id(tree)), mmap=True))", tmp_path / "m") < LEAF
