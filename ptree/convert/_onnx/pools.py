"""Rules for windows of maxima, minima and sums (pooling): MaxPool and AveragePool over the axes that have a window."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jax.extend.core import JaxprEqn

from .graph import Graph
from .slices import padded, spread
from .translation import NoOnnxForm, Translation, rule
from .values import Shape, Size, Value, is_static

_MOST_AXES = 3
_FIRST_WITH_DILATED_MEANS = 19


@rule("reduce_window_max", "reduce_window_min", "reduce_window_sum")
def _reduce_window(t: Translation, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
    (x,) = inputs
    graph, options, aval = t.graph, equation.params, equation.outvars[0].aval
    kind = equation.primitive.name.removeprefix("reduce_window_")
    window, strides = options["window_dimensions"], options["window_strides"]
    dilation, between, padding = options["window_dilation"], options["base_dilation"], options["padding"]
    plain = (1, 1, 1, (0, 0))
    axes = [at for at, option in enumerate(zip(window, strides, between, padding)) if option != plain]
    if not axes:
        return [x]
    if len(axes) > _MOST_AXES:
        raise NoOnnxForm(f"windows over {len(axes)} axes; ONNX Runtime has 1 to {_MOST_AXES}")
    others = [at for at in range(len(x.shape)) if at not in axes]
    neutral = graph.number(_neutral(kind, x.dtype), x.dtype)

    tensor, shape = graph.full(x), x.shape
    for axis in axes:
        if between[axis] != 1:
            tensor, shape = spread(graph, tensor, shape, axis, between[axis] - 1, neutral, x.dtype)
    tensor = padded(graph, tensor, _left_to_pad(padding, window), neutral, x.dtype)
    inside = [(0, 0) if pair != kept else kept for pair, kept in zip(padding, _by_the_pool(padding, window))]
    padded_shape = _with_padding(shape, padding, inside)
    tensor = graph.transpose(tensor, [*others, *axes])
    # ONNX pools over an array of batch, features and space: the other axes count as the batch
    batch = tuple(padded_shape[axis] for axis in others)
    space = tuple(padded_shape[axis] for axis in axes)
    tensor = graph.reshape(tensor, (*batch, *space), (math.prod(batch), 1, *space))
    pads = [inside[axis][0] for axis in axes] + [inside[axis][1] for axis in axes]
    sizes = [int(window[axis]) for axis in axes]
    spatial = {"strides": [int(strides[axis]) for axis in axes], "dilations": [int(dilation[axis]) for axis in axes]}
    pooled = _pooled(graph, kind, tensor, x.dtype, sizes, {**spatial, "pads": [int(width) for width in pads]})
    new = (*batch, *(aval.shape[axis] for axis in axes))
    pooled = graph.reshape(pooled, (math.prod(batch), 1, *new[len(batch) :]), new)
    back = np.argsort([*others, *axes]).tolist()
    return [graph.value(graph.transpose(pooled, back), aval)]


def _pooled(
    graph: Graph, kind: str, tensor: str, dtype: np.dtype, window: Sequence[int], options: dict[str, list[int]]
) -> str:
    if kind == "max":
        return graph.typed("MaxPool", dtype, dtype, tensor, kernel_shape=window, **options)
    if kind == "min":
        negative = graph.typed("Neg", dtype, dtype, tensor)
        return graph.typed("Neg", dtype, dtype, graph.typed("MaxPool", dtype, dtype, negative, kernel_shape=window, **options))
    if dtype.kind in "iub":
        raise NoOnnxForm("sums of integers; ONNX has means of floats")
    if set(options["dilations"]) == {1}:
        options = {name: option for name, option in options.items() if name != "dilations"}
    elif graph.opset < _FIRST_WITH_DILATED_MEANS:
        raise NoOnnxForm(f"dilated windows of sums, which ONNX has from opset {_FIRST_WITH_DILATED_MEANS} on")
    mean = graph.add("AveragePool", tensor, kernel_shape=window, count_include_pad=1, **options)
    return graph.add("Mul", mean, graph.number(math.prod(window), dtype))


def _neutral(kind: str, dtype: np.dtype) -> float:
    if kind == "sum":
        return 0
    if dtype.kind in "iu":
        about = np.iinfo(dtype)
        return about.min if kind == "max" else about.max
    return -np.inf if kind == "max" else np.inf


def _by_the_pool(padding: Sequence[tuple[Size, Size]], window: Sequence[int]) -> list[tuple[Size, Size]]:
    """The padding that ONNX's operation adds: numbers below the window."""
    return [pair if is_static(pair) and 0 <= min(pair) and max(pair) < size else (0, 0) for pair, size in zip(padding, window)]


def _left_to_pad(padding: Sequence[tuple[Size, Size]], window: Sequence[int]) -> list[tuple[Size, Size]]:
    """The padding that has to be added before."""
    pooled = _by_the_pool(padding, window)
    return [(0, 0) if pair == kept else pair for pair, kept in zip(padding, pooled)]


def _with_padding(shape: Shape, padding: Sequence[tuple[Size, Size]], inside: Sequence[tuple[Size, Size]]) -> Shape:
    sizes: list[Size] = []
    for size, pair, kept in zip(shape, padding, inside):
        sizes.append(size if pair == kept else size + sum(pair))
    return tuple(sizes)
