"""Export a function as ONNX, run it in onnxruntime, and compare with JAX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import onnx
import onnxruntime

from ptree import convert

TOLERANCE = 1e-5


def symbols(text: str = "batch, length", *constraints: str) -> Any:
    return jax.export.symbolic_shape(text, constraints=constraints)


def spec(*shape: Any, dtype: str = "float32") -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: what it constant-folds it says
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run(path: Path, inputs: Sequence[Any]) -> list[np.ndarray]:
    """The outputs for the leaves of the inputs, in order."""
    running = session(path)
    feeds = dict(zip([given.name for given in running.get_inputs()], map(np.asarray, jax.tree.leaves(tuple(inputs)))))
    return running.run(None, feeds)


def assert_equal(got: Sequence[np.ndarray], expected: Any, tolerance: float = TOLERANCE) -> None:
    """Compare values, shapes and dtypes; the tolerance is absolute up to 1, and relative above."""
    leaves = jax.tree.leaves(expected)
    assert len(got) == len(leaves)
    for number, (a, b) in enumerate(zip(got, map(np.asarray, leaves))):
        assert (a.shape, a.dtype) == (b.shape, b.dtype), f"output {number}"
        np.testing.assert_allclose(
            a.astype("float64"), b.astype("float64"), atol=tolerance, rtol=tolerance, err_msg=f"output {number}"
        )


def check(
    path: Path,
    f: Callable[..., Any],
    params: Any,
    *runs: tuple[Any, ...],
    specs: Sequence[Any] | None = None,
    tolerance: float = TOLERANCE,
    **options: Any,
) -> convert.OnnxFile:
    """Export once, and compare the outputs of each run with those of the function; `specs` are by default the first run."""
    written = convert.to_onnx(f, params, *(runs[0] if specs is None else specs), path=path, **options)
    onnx.checker.check_model(path, full_check=True)
    running = session(path)
    names = [given.name for given in running.get_inputs()]
    for inputs in runs:
        feeds = dict(zip(names, map(np.asarray, jax.tree.leaves(inputs))))
        assert_equal(running.run(None, feeds), jax.jit(f)(params, *inputs), tolerance)
    return written


def nodes(path: Path) -> list[str]:
    """The operations of a model, those in loops and branches too."""
    return _operations(onnx.load(path, load_external_data=False).graph)


def _operations(graph: onnx.GraphProto) -> list[str]:
    found: list[str] = []
    for node in graph.node:
        found.append(node.op_type)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found += _operations(attribute.g)
    return found


def initializers(path: Path) -> dict[str, onnx.TensorProto]:
    """The weights and constants by name."""
    return {tensor.name: tensor for tensor in onnx.load(path, load_external_data=False).graph.initializer}
