"""Rules for sort and top_k, by ONNX's TopK of all or some places."""

from __future__ import annotations

import numpy as np

from .kernels import computed_dtype
from .translation import Equation, Translation, rule
from .values import Value


@rule("sort")
def _sort(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    axis = int(equation.options["dimension"])
    graph = t.graph
    tensors = [graph.full(value) for value in inputs]
    # TopK keeps the order of equal numbers: sorted by the last key first, then by the ones before
    for key in reversed(range(equation.options["num_keys"])):
        dtype, size = inputs[key].dtype, graph.size(inputs[key].shape[axis])
        _, order = _top(t, tensors[key], size, dtype, axis, largest=0)
        tensors = [graph.add("GatherElements", tensor, order, axis=axis) for tensor in tensors]
    return [graph.value(tensor, about) for tensor, about in zip(tensors, equation.outputs)]


@rule("top_k")
def _top_k(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    (x,) = inputs
    values, places = equation.outputs
    axis = int(equation.options.get("axis", len(x.shape) - 1))
    largest, order = _top(t, t.graph.full(x), t.graph.size(equation.options["k"]), x.dtype, axis, largest=1)
    place = t.graph.cast(order, places.dtype)
    return [t.graph.value(largest, values), t.graph.value(place, places)]


def _top(t: Translation, tensor: str, count: str, dtype: np.dtype, axis: int, *, largest: int) -> tuple[str, str]:
    """The largest or smallest numbers in order, and their places i64."""
    computed = computed_dtype("TopK", dtype)
    wide = tensor if computed == dtype else t.graph.cast(tensor, computed)
    values, places = t.graph.add_many("TopK", 2, wide, count, axis=axis, largest=largest, sorted=1)
    return values if computed == dtype else t.graph.cast(values, dtype), places
