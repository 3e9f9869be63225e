"""Claims about files of other frameworks and conversions, one part for each; `python benchmarks/convert.py torch` runs one.

torch: a `.pt` of 500 MB is read into JAX arrays in at most the time of torch.load and jnp.asarray, with one leaf of extra memory,
where numbers are not compared with checksums, as PyTorch compares none. The comparison takes the time of two copies.

gpt2: the table that splits the fused kernels of GPT-2 small takes at most 1.5 times plain copies, and into a stack no more than by hand.

onnx: GPT-2 small (124 M parameters) is written as an ONNX file in less than 3 s, with one leaf of extra memory; beside jax2onnx,
if it is installed there or in the environment of the interpreter `JAX2ONNX_PYTHON`.

Times are CPU time, since the machine may be busy, the least of several turns that the ways take one after the other; the numbers are
compared first. Memory is what a process of its own needed at most beyond the arrays that it ends with, on Linux.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _command import Given, Option, main
from _onnx_export import onnx_part
from _results import Aim, Row
from _timing import NO_AIMS, least_times, rows_of_times

MEGA = 1_000_000
Way = Callable[[str], Mapping[str, Any]]
"""Reads the file at a path into named arrays."""


# --------------------------------------------------------------------------------- PyTorch's files


def with_ptree(path: str, verify: bool = True) -> dict[str, jax.Array]:
    """Copies, as torch.load makes them: the file may be removed or written to afterwards."""
    import ptree as pt

    tree = pt.load(path, verify=verify)
    return {name: tree[name] for name in pt.paths(tree)}


def with_reader(path: str, verify: bool = True) -> dict[str, jax.Array]:
    from ptree._foreign import open_foreign

    with open_foreign(path, verify=verify) as file:
        return {name: jnp.asarray(file.read(name)) for name in file.arrays}


def with_torch(path: str) -> dict[str, jax.Array]:
    import torch

    return {name: jnp.asarray(tensor.numpy()) for name, tensor in torch.load(path).items()}


def with_torch_mapped(path: str) -> dict[str, jax.Array]:
    import torch

    return {name: jnp.asarray(tensor.numpy()) for name, tensor in torch.load(path, mmap=True).items()}


TORCH_WAYS: dict[str, Way] = {
    "ptree.load(verify=False)": partial(with_ptree, verify=False),
    "ptree.load": with_ptree,
    "open_foreign(verify=False), jnp.asarray": partial(with_reader, verify=False),
    "open_foreign, jnp.asarray": with_reader,
    "torch.load, jnp.asarray": with_torch,
    "torch.load(mmap=True), jnp.asarray": with_torch_mapped,
}
"""PyTorch compares nothing with checksums."""


def torch_file(folder: Path, megabytes: int) -> str:
    """A state_dict of 100 matrices of float32."""
    import torch

    width = int((megabytes * MEGA / 4 / 100) ** 0.5)
    state = {f"blocks.{at}.weight": torch.randn(width, width) for at in range(100)}
    path = folder / "model.pt"
    torch.save(state, path)
    return str(path)


def torch_part(given: Given) -> Iterator[Row]:
    from ptree._foreign import open_foreign

    with tempfile.TemporaryDirectory() as folder:
        path = torch_file(Path(folder), max(1, given.megabytes // given.shrink))
        expected = with_torch(path)
        for name, way in TORCH_WAYS.items():
            same_arrays(name, way(path), expected)
        del expected
        ways = {name: lambda way=way: jax.block_until_ready(way(path)) for name, way in TORCH_WAYS.items()}
        times = least_times(ways, given.turns)
        what = f"`.pt` of {os.path.getsize(path) / MEGA:,.0f} MB in 100 arrays, into JAX"
        peers = ["torch.load, jnp.asarray", "torch.load(mmap=True), jnp.asarray"]
        yield from beside(what, times, "ptree.load(verify=False)", peers, {peers[0]: 1.0})
        yield from beside(f"{what}, compared with checksums", times, "ptree.load", peers[:1])
        yield from beside(f"{what}, without a Tree", times, "open_foreign(verify=False), jnp.asarray", peers[:1])
        leaf = os.path.getsize(path) / 100
        for name in TORCH_WAYS:
            aim = Aim(leaf + 2**20, "value") if name.startswith("ptree") else None
            yield Row("... memory beyond the arrays", name, extra_memory(name, path) * MEGA, "B", aim=aim)
        opened = least_times({"open": lambda: open_foreign(path).close()}, given.turns)
        yield Row("open_foreign alone", "ptree", opened["open"], "s", in_file_only=True)


def beside(
    what: str, times: Mapping[str, float], ours: str, others: Sequence[str], ratios: Mapping[str, float] = NO_AIMS
) -> list[Row]:
    """Rows of one way of ptree's and of others."""
    return rows_of_times(what, {name: times[name] for name in (ours, *others)}, ours=ours, ratios=ratios)


def same_arrays(name: str, got: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    assert {*got} == {*expected}, name
    for path, array in expected.items():
        assert np.array_equal(got[path], array), f"{name}: {path}"


def extra_memory(way: str, path: str) -> float:
    """MB that reading needed at most beyond the arrays, in a process of its own."""
    run = subprocess.run([sys.executable, __file__, "--memory", way, path], capture_output=True, text=True, check=True)
    return float(run.stdout)


def print_extra_memory(way: str, path: str) -> None:
    import torch  # noqa: F401 - before the start, as for JAX below

    jnp.asarray(np.ones(3)).block_until_ready()
    before = own_memory()
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(lambda: jax.block_until_ready(TORCH_WAYS[way](path)))
        most = before
        while not reading.done():
            most = max(most, own_memory())
            time.sleep(0.001)
    total = sum(array.nbytes for array in reading.result().values())
    print((most - before - total) / MEGA)


def own_memory() -> int:
    """Bytes of memory of this process, without the pages of mapped files, which the system takes back when it needs them."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


# --------------------------------------------------------------------------------- GPT-2 small by a table


def gpt2_part(given: Given) -> Iterator[Row]:
    from _convert_gpt2 import ways

    contestants = ways(given.shrink)
    turns = {name: lambda way=way: jax.block_until_ready(way()) for name, way in contestants.items()}
    times = least_times(turns, given.turns)
    what = "GPT-2 small by its published names"
    for name in [name for name in times if name.endswith("by the table")]:
        form, hand = name.split(",")[0], name.replace("by the table", "by hand")
        limits = {"plain copies": 1.5} | ({hand: 1.0} if "stack" in name else {})
        others = ["plain copies", hand] if hand in times else ["plain copies"]
        yield from beside(f"{what}, {form}", times, name, others, limits)


# --------------------------------------------------------------------------------- all parts


PARTS = {"torch": torch_part, "gpt2": gpt2_part, "onnx": onnx_part}
OPTIONS = [
    Option("--turns", 5, "how often all take their turn"),
    Option("--megabytes", 500, "the size of the file of PyTorch"),
]

if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        print_extra_memory(*sys.argv[2:])
    else:
        main(PARTS, OPTIONS, ["torch", "onnx", "onnxruntime", "jax2onnx"])
