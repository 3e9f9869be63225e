"""Rules for windows of maxima, minima and sums (pooling): MaxPool and AveragePool over the axes that have a window.

ONNX Runtime's MaxPool gives the lowest number rather than -inf where a window holds nothing but -inf, and leaves NaN out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .graph import Graph
from .slices import padded, spread
from .translation import Equation, NoOnnxFormError, Translation, rule
from .values import Shape, Size, Value, identity_element, is_static

_MOST_AXES = 3
_FIRST_WITH_DILATED_MEANS = 19
_NO_PADDING = (0, 0)


@dataclass(frozen=True)
class _Windows:
    """The options of a reduction of windows, for each axis of the array."""

    sizes: Sequence[int]
    strides: Sequence[int]
    dilation: Sequence[int]
    between: Sequence[int]
    """The distance of two neighbours of the array, 1 unless it is spread."""
    padding: Sequence[tuple[Size, Size]]

    @staticmethod
    def of(options: Mapping[str, Any]) -> _Windows:
        return _Windows(
            sizes=options["window_dimensions"],
            strides=options["window_strides"],
            dilation=options["window_dilation"],
            between=options["base_dilation"],
            padding=options["padding"],
        )

    @property
    def axes(self) -> list[int]:
        """The axes on which anything is reduced."""
        axes: list[int] = []
        for axis, options in enumerate(zip(self.sizes, self.strides, self.between)):
            if options != (1, 1, 1) or self.padding[axis] != _NO_PADDING:
                axes.append(axis)
        return axes

    def padding_inside(self, axis: int) -> tuple[int, int]:
        """The padding that ONNX's operation can add on its own: numbers below the window."""
        before, after = self.padding[axis]
        if not is_static((before, after)):
            return _NO_PADDING
        is_below = min(before, after) >= 0 and max(before, after) < self.sizes[axis]
        return (int(before), int(after)) if is_below else _NO_PADDING

    def padding_before(self, axis: int) -> tuple[Size, Size]:
        """The padding that is added to the array before."""
        return _NO_PADDING if self.padding_inside(axis) == self.padding[axis] else self.padding[axis]


@rule("reduce_window_max", "reduce_window_min", "reduce_window_sum")
def _reduce_window(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    (x,) = inputs
    graph, result = t.graph, equation.outputs[0]
    kind = equation.name.removeprefix("reduce_window_")
    _check_integers(kind, x.dtype)
    windows = _Windows.of(equation.options)
    axes = windows.axes
    if not axes:
        return [x]
    if len(axes) > _MOST_AXES:
        raise NoOnnxFormError(f"windows over {len(axes)} axes; ONNX Runtime has 1 to {_MOST_AXES}")
    tensor, shape = _prepared(graph, x, windows, kind)
    # ONNX pools over an array of batch, features and space: the axes without a window are one batch
    others = [axis for axis in range(len(shape)) if axis not in axes]
    batch = tuple(shape[axis] for axis in others)
    space = tuple(shape[axis] for axis in axes)
    new_space = tuple(result.shape[axis] for axis in axes)
    flat = math.prod(batch)
    tensor = graph.transpose(tensor, [*others, *axes])
    tensor = graph.reshape(tensor, (*batch, *space), (flat, 1, *space))
    pooled = _pooled(graph, kind, tensor, x.dtype, windows)
    pooled = graph.reshape(pooled, (flat, 1, *new_space), (*batch, *new_space))
    back = np.argsort([*others, *axes]).tolist()
    return [graph.value(graph.transpose(pooled, back), result)]


def _check_integers(kind: str, dtype: np.dtype) -> None:
    if dtype.kind not in "iub":
        return
    if kind == "sum":
        raise NoOnnxFormError("sums of integers; ONNX has means of floats")
    if dtype.itemsize == 8 or (kind == "min" and dtype.kind != "i"):
        raise NoOnnxFormError(f"windows of {dtype}; ONNX has those of floats, and float64 does not hold them")


def _prepared(graph: Graph, x: Value, windows: _Windows, kind: str) -> tuple[str, Shape]:
    """The array, spread and padded where ONNX's operation does not, and its shape."""
    neutral = graph.number(identity_element(kind, x.dtype), x.dtype)
    tensor, shape = graph.full(x), x.shape
    for axis, distance in enumerate(windows.between):
        if distance != 1:
            tensor, shape = spread(graph, tensor, shape, axis, distance - 1, neutral, x.dtype)
    sides = [windows.padding_before(axis) for axis in range(len(shape))]
    tensor = padded(graph, tensor, sides, neutral, x.dtype)
    return tensor, tuple(size + before + after for size, (before, after) in zip(shape, sides))


def _pooled(graph: Graph, kind: str, tensor: str, dtype: np.dtype, windows: _Windows) -> str:
    """Pool an array of batch, features and space."""
    axes = windows.axes
    pads = [windows.padding_inside(axis) for axis in axes]
    options: dict[str, Any] = {
        "kernel_shape": [int(windows.sizes[axis]) for axis in axes],
        "strides": [int(windows.strides[axis]) for axis in axes],
        "dilations": [int(windows.dilation[axis]) for axis in axes],
        "pads": [before for before, _ in pads] + [after for _, after in pads],
    }
    if kind == "max":
        return graph.typed("MaxPool", dtype, dtype, tensor, attributes=options)
    if kind == "min":
        negative = graph.typed("Neg", dtype, dtype, tensor)
        largest = graph.typed("MaxPool", dtype, dtype, negative, attributes=options)
        return graph.typed("Neg", dtype, dtype, largest)
    return _summed(graph, tensor, dtype, options)


def _summed(graph: Graph, tensor: str, dtype: np.dtype, options: dict[str, Any]) -> str:
    """Sums of windows, from their means."""
    if set(options["dilations"]) == {1}:
        options = {name: option for name, option in options.items() if name != "dilations"}
    elif graph.opset < _FIRST_WITH_DILATED_MEANS:
        raise NoOnnxFormError(f"dilated windows of sums, which ONNX has from opset {_FIRST_WITH_DILATED_MEANS} on")
    mean = graph.add("AveragePool", tensor, count_include_pad=1, **options)
    return graph.add("Mul", mean, graph.number(math.prod(options["kernel_shape"]), dtype))
