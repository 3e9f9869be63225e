"""Claims about files of other frameworks and conversions, one part for each; `python benchmarks/convert.py torch` runs one.

torch: a `.pt` of 500 MB is read into JAX arrays in at most the time of torch.load and jnp.asarray, with one leaf of extra memory,
where numbers are not compared with checksums, as PyTorch compares none. The comparison takes the time of two copies.

onnx: GPT-2 small (124 M parameters) is written as an ONNX file in less than 3 s, with one leaf of extra memory; beside jax2onnx,
if it is installed there or in the environment of `--jax2onnx PYTHON`.

Times are CPU time, since the machine may be busy, the least of several turns that the ways take one after the other; the numbers are
compared first. Memory is what a process of its own needed at most beyond the arrays that it ends with, on Linux.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _onnx_export import onnx_part

MEGA = 1_000_000
Way = Callable[[str], Mapping[str, Any]]
"""Reads the file at a path into named arrays."""


def least_times(ways: Mapping[str, Callable[[], Any]], turns: int) -> dict[str, float]:
    """The least CPU time of each way, in seconds; they take turns."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(turns):
        for name, way in ways.items():
            start = time.process_time()
            result = way()
            times[name].append(time.process_time() - start)
            del result
    return {name: min(taken) for name, taken in times.items()}


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


def torch_part(turns: int, megabytes: int) -> None:
    from ptree._foreign import open_foreign

    with tempfile.TemporaryDirectory() as folder:
        path = torch_file(Path(folder), megabytes)
        expected = with_torch(path)
        for name, way in TORCH_WAYS.items():
            same_arrays(name, way(path), expected)
        del expected
        ways = {name: lambda way=way: jax.block_until_ready(way(path)) for name, way in TORCH_WAYS.items()}
        times = least_times(ways, turns)
        peer = times["torch.load, jnp.asarray"]
        print(f"{os.path.getsize(path) / MEGA:,.0f} MB, 100 arrays")
        print("| way | CPU s | of torch.load | extra memory MB |\n| --- | ---: | ---: | ---: |")
        for name, taken in times.items():
            print(f"| {name} | {taken:.3f} | {taken / peer:.2f} | {extra_memory(name, path):,.0f} |", flush=True)
        opened = least_times({"open": lambda: open_foreign(path).close()}, turns)
        print(f"\nopen_foreign alone: {opened['open'] * 1000:.1f} ms")


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


# --------------------------------------------------------------------------------- all parts


PARTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "torch": lambda given: torch_part(given.turns, given.megabytes),
    "onnx": lambda given: onnx_part(given.turns, given.jax2onnx),
}
"""By name: measure so many turns with so many megabytes, and print a table."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("parts", nargs="*", help=", ".join(PARTS))
    arguments.add_argument("--turns", type=int, default=5)
    arguments.add_argument("--megabytes", type=int, default=500)
    arguments.add_argument(
        "--jax2onnx", default=sys.executable, metavar="PYTHON", help="an interpreter that has jax2onnx"
    )
    arguments.add_argument("--memory", nargs=2, metavar=("WAY", "PATH"), help="one way, in a process of its own")
    given = arguments.parse_args()
    if given.memory:
        print_extra_memory(*given.memory)
        return
    for name in given.parts or PARTS:
        PARTS[name](given)


if __name__ == "__main__":
    main()
