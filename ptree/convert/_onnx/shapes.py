"""Rules for the shape of arrays: reshape, broadcast, transpose, concatenate, split, tile, iota, sizes as values."""

from __future__ import annotations

import numpy as np
from jax.extend.core import JaxprEqn

from .translation import Translation, constant_value, rule
from .values import Shape, Size, Value, is_static, same_size


@rule("reshape", "squeeze", "expand_dims")
def _reshape(t: Translation, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
    (x,) = inputs
    aval = equation.outvars[0].aval
    return [t.graph.value(t.graph.reshape(t.graph.full(x), x.shape, aval.shape), aval)]


@rule("broadcast_in_dim")
def _broadcast(t: Translation, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
    """The tensor with axes of size 1; operations that need the whole shape expand it."""
    x = inputs[0]
    aval = equation.outvars[0].aval
    axes = equation.params["broadcast_dimensions"]
    missing = len(x.shape) - len(x.tensor_shape)
    sizes: list[Size] = [1] * len(aval.shape)
    for axis, size in zip(axes[missing:], x.tensor_shape):
        sizes[axis] = size
    first = int(axes[missing]) if x.tensor_shape else len(sizes)
    shape = tuple(sizes[first:])  # axes in front are added by broadcasting
    if x.constant is not None and is_static(shape):
        return [Value(aval.shape, aval.dtype, "", shape, np.reshape(x.constant, shape))]
    return [Value(aval.shape, aval.dtype, t.graph.reshape(t.graph.tensor(x), x.tensor_shape, shape), shape)]


@rule("transpose")
def _transpose(t: Translation, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
    (x,) = inputs
    aval, permutation = equation.outvars[0].aval, equation.params["permutation"]
    if len(x.tensor_shape) < len(x.shape):
        return [t.graph.value(t.graph.transpose(t.graph.full(x), permutation), aval)]
    shape = tuple(x.tensor_shape[axis] for axis in permutation)
    return [Value(aval.shape, aval.dtype, t.graph.transpose(t.graph.tensor(x), permutation), shape)]


@rule("concatenate")
def _concatenate(t: Translation, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
    aval, axis = equation.outvars[0].aval, int(equation.params["dimension"])
    parts = [x for x in inputs if not same_size(x.shape[axis], 0)]
    if len(parts) == 1:
        return parts
    return [t.graph.value(t.graph.add("Concat", *map(t.graph.full, parts), axis=axis), aval)]


@rule("stack")
def _stack(t: Translation, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
    aval, axis = equation.outvars[0].aval, int(equation.params["axis"])
    rows = [t.graph.unsqueeze(t.graph.full(x), [axis]) for x in inputs]
    return [t.graph.value(t.graph.add("Concat", *rows, axis=axis), aval)]


@rule("unstack")
def _unstack(t: Translation, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
    avals, axis = [variable.aval for variable in equation.outvars], int(equation.params["axis"])
    rows = t.graph.add_many("Split", len(avals), t.graph.full(inputs[0]), t.graph.numbers([1] * len(avals)), axis=axis)
    return [t.graph.value(t.graph.add("Squeeze", row, t.graph.numbers([axis])), aval) for row, aval in zip(rows, avals)]


@rule("split")
def _split(t: Translation, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
    avals = [variable.aval for variable in equation.outvars]
    sizes = t.graph.sizes(equation.params["sizes"])
    parts = t.graph.add_many("Split", len(avals), t.graph.full(inputs[0]), sizes, axis=int(equation.params["axis"]))
    return [t.graph.value(part, aval) for part, aval in zip(parts, avals)]


@rule("tile")
def _tile(t: Translation, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
    tiled = t.graph.add("Tile", t.graph.full(inputs[0]), t.graph.sizes(equation.params["reps"]))
    return [t.graph.value(tiled, equation.outvars[0].aval)]


@rule("iota")
def _iota(t: Translation, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
    aval = equation.outvars[0].aval
    axis = equation.params["dimension"]
    size = aval.shape[axis]
    numbers = t.graph.cast(counting(t, size), aval.dtype)
    shape: Shape = (size,) + (1,) * (len(aval.shape) - axis - 1)
    return [Value(aval.shape, aval.dtype, t.graph.reshape(numbers, (size,), shape), shape)]


def counting(t: Translation, size: Size) -> str:
    """The numbers from 0 on, i64[size]."""
    graph = t.graph
    if is_static((size,)):
        return graph.numbers(range(size)) if size <= 4096 else _range(t, graph.number(size, np.int64))
    return _range(t, graph.scalar(size))


def _range(t: Translation, end: str) -> str:
    return t.graph.add("Range", t.graph.number(0, np.int64), end, t.graph.number(1, np.int64))


@rule("dim_as_value")
def _size_as_value(t: Translation, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
    aval, size = equation.outvars[0].aval, equation.params["dim"]
    if is_static((size,)):
        return [constant_value(np.asarray(size, aval.dtype))]
    return [t.graph.value(t.graph.cast(t.graph.scalar(size), aval.dtype), aval)]


