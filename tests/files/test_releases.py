"""Files that released versions wrote load as they were saved, for good.

At each release a file is added, and none is ever changed: `PYTHONPATH=tests python tests/files/test_releases.py VERSION`.
"""

import os
import sys
from collections import OrderedDict
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from trees import Pair, equal, same_leaf

import ptree as pt

FILES = Path(__file__).parent / "releases"
DTYPES = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool", "complex64",
          "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "float8_e4m3fnuz", "float8_e5m2fnuz", "complex128", "int4", "float4_e2m1fn"]  # fmt: skip


def tree():
    """Each kind of leaf, and of node."""
    numbers = np.arange(6) % 2
    model = {
        "embed": {"table": jnp.arange(6.0).reshape(3, 2)},
        "blocks": [{"w": jnp.arange(4.0).reshape(2, 2) + at} for at in range(3)],
        "head": {"kernel": jnp.arange(6.0).reshape(3, 2).T},
        "twin": {"table": jnp.arange(6.0).reshape(3, 2)},
    }
    ties = {"head/kernel": pt.transposed("embed/table"), "twin": "embed"}
    jax_dtypes = ("bfloat16", "int8", "bool", "complex64", "int4")
    return {
        "z": jnp.float32(1.5),
        "model": pt.tie(pt.stacks.stack(pt.Tree(model), "blocks"), ties),
        "numpy": {name: numbers.astype(getattr(ml_dtypes, name, name)).reshape(2, 3) for name in DTYPES},
        "jax": {name: jnp.asarray(numbers, name) for name in jax_dtypes},
        "keys": {"one": jax.random.key(3), "more": jax.random.split(jax.random.key(1, impl="rbg"), 3)},
        "numbers": {"bool": True, "int": 7, "float": 0.5, "numpy": np.float32(2), "bf16": ml_dtypes.bfloat16(3)},
        "empty": {"node": {}, "none": None, "size 0": jnp.zeros((0, 3))},
        "nodes": {"list": [jnp.ones(1), (jnp.ones(2),)], "pair": Pair(jnp.ones(1), 2), "ordered": OrderedDict(b=1, a=2)},
        "odd \"names' β 日本": jnp.ones(1),
    }  # fmt: skip


def write(version):
    """Never over a file that is there."""
    file = FILES / f"{version}.safetensors"
    if file.exists():
        raise FileExistsError(f"{file} is there: what a release wrote is never changed")
    pt.save(file, tree(), metadata={"version": version, "é": "ü"})


@pytest.mark.parametrize("file", sorted(os.listdir(FILES)))
def test_what_a_release_wrote_loads_as_it_was_saved(file):
    saved = tree()
    back = pt.load(FILES / file)
    assert pt.paths(back, aliases=True) == pt.paths(saved, aliases=True)
    assert pt.ties(back) == pt.ties(saved)
    assert all(same_leaf(back[path], leaf) for path, leaf in pt.items(saved))
    assert equal(pt.load(FILES / file, like=saved), saved)
    with pt.open(FILES / file) as opened:
        assert opened.metadata == {"version": file.removesuffix(".safetensors"), "é": "ü"}
        assert opened.containers == {
            "nodes/list": "list",
            "nodes/list/1": "tuple",
            "nodes/pair": "trees.Pair",
            "nodes/ordered": "collections.OrderedDict",
        }


def test_a_released_file_is_not_written_again():
    with pytest.raises(FileExistsError, match="what a release wrote is never changed"):
        write("0.1.0")


if __name__ == "__main__":
    write(sys.argv[1])
