"""Rule for dot_general: products of matrices in all forms, as ONNX's MatMul of stacks of matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .graph import Graph
from .translation import Equation, Translation, rule
from .values import Shape, Shaped, Value


@rule("dot_general")
def _product(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    left, right = inputs
    result, graph = equation.outputs[0], t.graph
    (left_summed, right_summed), (left_batch, right_batch) = equation.options["dimension_numbers"]
    left_free = _others(left, left_summed, left_batch)
    right_free = _others(right, right_summed, right_batch)
    dtype = _computed(left, right, result)

    a = _permuted(graph, left, dtype, (*left_batch, *left_free, *left_summed))
    b = _permuted(graph, right, dtype, (*right_batch, *right_summed, *right_free))
    batch = _sizes(left, left_batch)
    rows, columns = _sizes(left, left_free), _sizes(right, right_free)
    summed = math.prod(_sizes(left, left_summed))
    # MatMul sums over one axis, and takes any number of axes for the rows: those before the last count as a batch.
    a = graph.reshape(a, (*batch, *rows, *_sizes(left, left_summed)), (*batch, *(rows or (1,)), summed))
    ones = (1,) * max(len(rows) - 1, 0) if batch else ()
    wide = math.prod(columns)
    b = graph.reshape(b, (*batch, *_sizes(right, right_summed), *columns), (*batch, *ones, summed, wide))
    product = graph.typed("MatMul", dtype, dtype, a, b)
    product = graph.reshape(product, (*batch, *(rows or (1,)), wide), result.shape)
    return [graph.value(product if dtype == result.dtype else graph.cast(product, result.dtype), result)]


def _others(value: Value, *axes: Sequence[int]) -> list[int]:
    taken = {int(axis) for part in axes for axis in part}
    return [axis for axis in range(len(value.shape)) if axis not in taken]


def _sizes(value: Value, axes: Sequence[int]) -> Shape:
    return tuple(value.shape[axis] for axis in axes)


def _computed(left: Value, right: Value, result: Shaped) -> np.dtype:
    """The dtype of the sums, in which ONNX wants the operands too."""
    widest = max((left.dtype, right.dtype, result.dtype), key=lambda dtype: dtype.itemsize)
    return result.dtype if widest.itemsize == result.dtype.itemsize else widest


def _permuted(graph: Graph, value: Value, dtype: np.dtype, axes: Sequence[int]) -> str:
    tensor = graph.full(value)
    if value.dtype != dtype:
        tensor = graph.cast(tensor, dtype)
    return graph.transpose(tensor, axes)
