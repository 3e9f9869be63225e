"""GPT-2 small written as an ONNX file: CPU time and memory, beside jax2onnx where it is installed."""

import importlib.util
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

MEGA = 1_000_000
GPT = Path(__file__).parents[1] / "examples" / "07_gpt.py"
IDS = np.arange(32, dtype="int32").reshape(2, 16) * 1000
TOLERANCE = 2e-4  # of logits of about 3, after 12 blocks in float32


def gpt(stacked: bool) -> tuple[Callable[..., Any], Any]:
    """GPT-2 small with its parameters, of which the head is tied to the embedding."""
    spec = importlib.util.spec_from_file_location("gpt", GPT)
    assert spec is not None and spec.loader is not None  # noqa: PT018
    module = sys.modules["gpt"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.GPT(stacked=stacked)
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
    report(start)


def by_jax2onnx(path: Path, f: Callable[..., Any], params: Any) -> None:
    """With a symbolic batch: a symbolic length fails there."""
    import jax2onnx  # pyright: ignore[reportMissingImports]

    given = [jax.ShapeDtypeStruct(("B", 16), "int32")]  # pyright: ignore[reportArgumentType]
    start = time.process_time()
    jax2onnx.to_onnx(lambda ids: f(params, ids), given, return_mode="file", output_path=str(path))
    report(start)


def report(start: float) -> None:
    print(json.dumps({"seconds": time.process_time() - start}), flush=True)


WAYS: dict[str, tuple[bool, Callable[..., None]]] = {
    "to_onnx, stacked": (True, lambda *given: by_ptree(*given, weights="inside")),
    "to_onnx": (False, lambda *given: by_ptree(*given, weights="inside")),
    "to_onnx, weights outside": (False, lambda *given: by_ptree(*given, weights="outside")),
    "jax2onnx": (False, by_jax2onnx),
}
"""Name -> whether the blocks are stacked, and what writes the file."""


def child(name: str, path: str) -> None:
    """One export, in a process of its own: its CPU time, the memory it took on top, and the largest error of the logits."""
    stacked, write = WAYS[name]
    f, params = gpt(stacked)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    write(Path(path), f, params)
    extra = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({"extra": max(extra, 0) * 1024 / MEGA, "error": error(path, f, params)}))


def error(path: str, f: Callable[..., Any], params: Any) -> float:
    import onnxruntime

    running = onnxruntime.InferenceSession(path)
    (given,) = running.get_inputs()
    (got,) = running.run(None, {given.name: IDS})
    return float(np.abs(np.asarray(got) - np.asarray(jax.jit(f)(params, IDS))).max())


def onnx_part(turns: int, python: str) -> None:
    """Measure each way so many times, in turns.

    Args:
        python: the interpreter of an environment with jax2onnx, which needs other versions of packages.
    """
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(turns):
            for at, name in enumerate(WAYS):
                path = f"{folder}/{at}-{turn}.onnx"
                interpreter = python if name == "jax2onnx" else sys.executable
                run = subprocess.run(
                    [interpreter, "-W", "ignore", __file__, name, path], capture_output=True, text=True, check=False
                )
                if run.returncode:
                    last = run.stderr.strip().splitlines()[-1]
                    print(f"{name}: {last}")
                    continue
                facts = {}
                for line in run.stdout.splitlines():
                    if line.startswith("{"):
                        facts.update(json.loads(line))
                assert facts["error"] < TOLERANCE, (name, facts)
                facts["size"] = Path(path).stat().st_size / MEGA
                least = found.setdefault(name, facts)
                least["seconds"] = min(least["seconds"], facts["seconds"])
                Path(path).unlink()
    print("| way | CPU s | extra memory MB | ONNX file MB | largest error |\n| --- | ---: | ---: | ---: | ---: |")
    for name, facts in found.items():
        numbers = f"{facts['seconds']:.2f} | {facts['extra']:,.0f} | {facts['size']:,.1f} | {facts['error']:.1e}"
        print(f"| {name} | {numbers} |")


if __name__ == "__main__":
    child(*sys.argv[1:])
