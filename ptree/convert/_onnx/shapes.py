"""Rules for the shape of arrays: reshape, broadcast, transpose, concatenate, split, tile, iota, sizes as values."""

from __future__ import annotations

import numpy as np

from .translation import Equation, Translation, constant_value, rule
from .values import Shape, Size, Value, is_static, same_size


@rule("reshape", "squeeze", "expand_dims")
def _reshape(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    (x,) = inputs
    result = equation.outputs[0]
    return [t.graph.value(t.graph.reshape(t.graph.full(x), x.shape, result.shape), result)]


@rule("broadcast_in_dim")
def _broadcast(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    """The tensor with axes of size 1; operations that need the whole shape expand it."""
    x = inputs[0]
    result = equation.outputs[0]
    axes = equation.options["broadcast_dimensions"]
    missing = len(x.shape) - len(x.tensor_shape)
    sizes: list[Size] = [1] * len(result.shape)
    for axis, size in zip(axes[missing:], x.tensor_shape):
        sizes[axis] = size
    first = int(axes[missing]) if x.tensor_shape else len(sizes)
    shape = tuple(sizes[first:])  # axes in front are added by broadcasting
    if x.constant is not None and is_static(shape):
        return [Value(result.shape, result.dtype, "", shape, np.reshape(x.constant, shape))]
    return [t.graph.value(t.graph.reshape(t.graph.tensor(x), x.tensor_shape, shape), result, shape)]


@rule("transpose")
def _transpose(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    (x,) = inputs
    result, permutation = equation.outputs[0], equation.options["permutation"]
    if len(x.tensor_shape) < len(x.shape):
        return [t.graph.value(t.graph.transpose(t.graph.full(x), permutation), result)]
    shape = tuple(x.tensor_shape[axis] for axis in permutation)
    return [t.graph.value(t.graph.transpose(t.graph.tensor(x), permutation), result, shape)]


@rule("concatenate")
def _concatenate(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    result, axis = equation.outputs[0], int(equation.options["dimension"])
    parts = [x for x in inputs if not same_size(x.shape[axis], 0)]
    if len(parts) == 1:
        return parts
    return [t.graph.value(t.graph.add("Concat", *map(t.graph.full, parts), axis=axis), result)]


@rule("stack")
def _stack(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    result, axis = equation.outputs[0], int(equation.options["axis"])
    rows = [t.graph.unsqueeze(t.graph.full(x), [axis]) for x in inputs]
    return [t.graph.value(t.graph.add("Concat", *rows, axis=axis), result)]


@rule("unstack")
def _unstack(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    results, axis = equation.outputs, int(equation.options["axis"])
    rows = t.graph.add_many(
        "Split", len(results), t.graph.full(inputs[0]), t.graph.numbers([1] * len(results)), axis=axis
    )
    return [
        t.graph.value(t.graph.add("Squeeze", row, t.graph.numbers([axis])), result)
        for row, result in zip(rows, results)
    ]


@rule("split")
def _split(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    results = equation.outputs
    sizes = t.graph.sizes(equation.options["sizes"])
    parts = t.graph.add_many("Split", len(results), t.graph.full(inputs[0]), sizes, axis=int(equation.options["axis"]))
    return [t.graph.value(part, result) for part, result in zip(parts, results)]


@rule("tile")
def _tile(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    tiled = t.graph.add("Tile", t.graph.full(inputs[0]), t.graph.sizes(equation.options["reps"]))
    return [t.graph.value(tiled, equation.outputs[0])]


@rule("iota")
def _iota(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    result = equation.outputs[0]
    axis = equation.options["dimension"]
    size = result.shape[axis]
    numbers = t.graph.cast(counting(t, size), result.dtype)
    shape: Shape = (size,) + (1,) * (len(result.shape) - axis - 1)
    return [t.graph.value(t.graph.reshape(numbers, (size,), shape), result, shape)]


def counting(t: Translation, size: Size) -> str:
    """The numbers from 0 on, i64[size]."""
    graph = t.graph
    if is_static((size,)):
        return graph.numbers(range(size)) if size <= 4096 else _range(t, graph.number(size, np.int64))
    return _range(t, graph.scalar(size))


def _range(t: Translation, end: str) -> str:
    return t.graph.add("Range", t.graph.number(0, np.int64), end, t.graph.number(1, np.int64))


@rule("dim_as_value")
def _size_as_value(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    result, size = equation.outputs[0], equation.options["dim"]
    if is_static((size,)):
        return [constant_value(np.asarray(size, result.dtype))]
    return [t.graph.value(t.graph.cast(t.graph.scalar(size), result.dtype), result)]
