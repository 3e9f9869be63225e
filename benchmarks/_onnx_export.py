"""GPT-2 small written as an ONNX file: CPU time and memory, beside jax2onnx where it is installed."""

import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from _command import Given
from _results import Row
from _timing import rows_of_times

MEGA = 1_000_000
GPT = Path(__file__).parents[1] / "examples" / "07_gpt.py"
IDS = np.arange(32, dtype="int32").reshape(2, 16) * 1000
JAX2ONNX = os.environ.get("JAX2ONNX_PYTHON", sys.executable)
"""The interpreter of an environment with jax2onnx, which needs other versions of packages."""
TOLERANCE = 2e-4  # of logits of about 3, after 12 blocks in float32


def gpt(stacked: bool, shrink: int) -> tuple[Callable[..., Any], Any]:
    """GPT-2 small with its parameters, of which the head is tied to the embedding."""
    spec = importlib.util.spec_from_file_location("gpt", GPT)
    assert spec is not None and spec.loader is not None  # noqa: PT018
    module = sys.modules["gpt"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    vocabulary, width, layers = 50257 // shrink, 12 * max(4, 64 // shrink), max(2, 12 // shrink)
    model = module.GPT(vocabulary=vocabulary, width=width, layers=layers, stacked=stacked)
    params = jax.block_until_ready(model.init(jax.random.key(0)))
    return lambda params, ids: model(params, ids)[0], params


def by_ptree(path: Path, f: Callable[..., Any], params: Any, *, weights: str) -> None:
    import ptree as pt
    from ptree import convert

    batch, length = jax.export.symbolic_shape("batch, length", constraints=["length <= 1024"])
    options: dict[str, Any] = {}
    if weights == "outside":
        options["weights"] = path.with_suffix(".safetensors")
        pt.save(options["weights"], params)
    start = time.process_time()
    convert.to_onnx(f, params, jax.ShapeDtypeStruct((batch, length), "int32"), path=path, **options)
    print_seconds(start)


def by_jax2onnx(path: Path, f: Callable[..., Any], params: Any) -> None:
    """With a symbolic batch: a symbolic length fails there."""
    import jax2onnx  # pyright: ignore[reportMissingImports]

    given = [jax.ShapeDtypeStruct(("B", 16), "int32")]  # pyright: ignore[reportArgumentType]
    start = time.process_time()
    jax2onnx.to_onnx(lambda ids: f(params, ids), given, return_mode="file", output_path=str(path))
    print_seconds(start)


def print_seconds(start: float) -> None:
    print(json.dumps({"seconds": time.process_time() - start}), flush=True)


WAYS: dict[str, tuple[bool, Callable[..., None]]] = {
    "to_onnx": (False, lambda *given: by_ptree(*given, weights="inside")),
    "to_onnx, stacked": (True, lambda *given: by_ptree(*given, weights="inside")),
    "to_onnx, weights outside": (False, lambda *given: by_ptree(*given, weights="outside")),
    "jax2onnx": (False, by_jax2onnx),
}
"""Name -> whether the blocks are stacked, and what writes the file."""


def child(name: str, path: str, shrink: str) -> None:
    """One export, in a process of its own: its CPU time, the memory it took on top, and the largest error of the logits."""
    stacked, write = WAYS[name]
    f, params = gpt(stacked, int(shrink))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    write(Path(path), f, params)
    extra = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({"extra": max(extra, 0) * 1024 / MEGA, "error": error(path, f, params)}))


def error(path: str, f: Callable[..., Any], params: Any) -> float:
    import onnxruntime

    ids = IDS % params["wte"].shape[0]
    running = onnxruntime.InferenceSession(path)
    (given,) = running.get_inputs()
    (got,) = running.run(None, {given.name: ids})
    return float(np.abs(np.asarray(got) - np.asarray(jax.jit(f)(params, ids))).max())


def onnx_part(given: Given) -> Iterator[Row]:
    """Rows of each way, the least of several turns; jax2onnx, which needs other versions of packages, has its own interpreter."""
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(given.turns):
            for at, name in enumerate(WAYS):
                path = f"{folder}/{at}-{turn}.onnx"
                interpreter = JAX2ONNX if name == "jax2onnx" else sys.executable
                facts = in_a_process(interpreter, name, path, given.shrink)
                if facts is not None:
                    least = found.setdefault(name, facts)
                    least["seconds"] = min(least["seconds"], facts["seconds"])
    what = "GPT-2 small as ONNX"
    times = {name: facts["seconds"] for name, facts in found.items()}
    most = dict.fromkeys((name for name in times if name != "jax2onnx"), 3.0)
    for row in rows_of_times(what, times, ours="to_onnx", values=most):
        yield row if row.who == "jax2onnx" else replace(row, ratio=None)
    for name, facts in found.items():
        yield Row(f"{what}, memory beyond the arrays", name, facts["extra"] * MEGA, "B", in_file_only=name != "to_onnx")
        yield Row(f"{what}, largest error of the logits", name, facts["error"], "", in_file_only=name != "to_onnx")


def in_a_process(interpreter: str, name: str, path: str, shrink: int) -> dict[str, float] | None:
    """The facts of one way; None, and the reason on the error stream, where it fails, as without jax2onnx."""
    command = [interpreter, "-W", "ignore", __file__, name, path, str(shrink)]
    root = str(Path(__file__).parents[1])  # for an environment in which ptree is not installed
    environment = {**os.environ, "PYTHONPATH": root}
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if run.returncode:
        if name != "jax2onnx":
            raise SystemExit(run.stderr)
        print(f"{name}: {run.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return None
    facts: dict[str, float] = {}
    for line in run.stdout.splitlines():
        if line.startswith("{"):
            facts.update(json.loads(line))
    assert facts["error"] < TOLERANCE, (name, facts)
    Path(path).unlink()
    return facts


if __name__ == "__main__":
    child(*sys.argv[1:])
