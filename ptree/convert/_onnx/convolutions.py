"""Rule for conv_general_dilated: Conv, or ConvTranspose where the input is spread by zeros."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .graph import Graph
from .slices import padded, reversed_along, spread
from .translation import Equation, NoOnnxFormError, Translation, rule
from .values import Shape, Size, Value, is_static

_MOST_AXES = 3


@dataclass(frozen=True)
class _Convolution:
    """The operands with features before space, as ONNX has them, and the options for each axis of space."""

    x: str
    shape: Shape
    kernel: str
    kernel_shape: Shape
    """(out, in of a group, space...)."""
    strides: Sequence[int]
    padding: Sequence[tuple[Size, Size]]
    between: Sequence[int]
    """The distance of two neighbours of the input, 1 but in transposed convolutions."""
    dilation: Sequence[int]
    groups: int
    dtype: np.dtype

    @property
    def rank(self) -> int:
        return len(self.strides)


@rule("conv_general_dilated")
def _convolve(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    x, kernel = inputs
    result, options, graph = equation.outputs[0], equation.options, t.graph
    numbers = options["dimension_numbers"]
    if result.dtype.kind in "iub":
        raise NoOnnxFormError("integers; ONNX has convolutions of floats")
    if options["batch_group_count"] != 1:
        raise NoOnnxFormError("groups of a batch, as in the gradient of a convolution")
    if len(x.shape) - 2 > _MOST_AXES:
        raise NoOnnxFormError(f"{len(x.shape) - 2} axes of space; ONNX Runtime has 1 to {_MOST_AXES}")
    convolution = _Convolution(
        x=_in(graph, x, result.dtype, numbers.lhs_spec),
        shape=tuple(x.shape[axis] for axis in numbers.lhs_spec),
        kernel=_in(graph, kernel, result.dtype, numbers.rhs_spec),
        kernel_shape=tuple(kernel.shape[axis] for axis in numbers.rhs_spec),
        strides=options["window_strides"],
        padding=options["padding"],
        between=options["lhs_dilation"],
        dilation=options["rhs_dilation"],
        groups=options["feature_group_count"],
        dtype=result.dtype,
    )
    is_spread = any(distance != 1 for distance in convolution.between)
    has_numbers = is_static([width for sides in convolution.padding for width in sides])
    if len(x.shape) == 2:
        y = _without_space(graph, convolution)
    elif is_spread and has_numbers and set(convolution.strides) == {1}:
        y = _transposed(graph, convolution)
    else:
        y = _ordinary(graph, convolution)
    return [graph.value(graph.transpose(y, np.argsort(numbers.out_spec).tolist()), result)]


def _in(graph: Graph, value: Value, dtype: np.dtype, axes: Sequence[int]) -> str:
    tensor = graph.full(value)
    if value.dtype != dtype:
        tensor = graph.cast(tensor, dtype)
    return graph.transpose(tensor, axes)


def _ordinary(graph: Graph, c: _Convolution) -> str:
    x, shape = c.x, c.shape
    zero = graph.number(0, c.dtype)
    for axis, distance in enumerate(c.between, 2):
        if distance != 1:
            x, shape = spread(graph, x, shape, axis, distance - 1, zero, c.dtype)
    sides = [width for pair in c.padding for width in pair]
    if is_static(sides) and min(sides) >= 0:
        pads = [before for before, _ in c.padding] + [after for _, after in c.padding]
    else:
        x = padded(graph, x, [(0, 0), (0, 0), *c.padding], zero, c.dtype)
        pads = [0] * (2 * c.rank)
    options: dict[str, Any] = {"strides": c.strides, "dilations": c.dilation, "group": c.groups, "pads": pads}
    return _convolved(graph, "Conv", x, c.kernel, c.dtype, options)


def _convolved(graph: Graph, op: str, x: str, kernel: str, dtype: np.dtype, options: dict[str, Any]) -> str:
    plain = {
        name: value if isinstance(value, int) else [int(number) for number in value] for name, value in options.items()
    }
    return graph.typed(op, dtype, dtype, x, kernel, attributes=plain)


def _transposed(graph: Graph, c: _Convolution) -> str:
    """A convolution of an input that is spread by zeros, as ConvTranspose, which does not multiply by the zeros.

    ConvTranspose slides the kernel backwards, takes it as (in, out of a group, space...), and crops the whole result, which
    begins where the window holds the first place of the input only.
    """
    out, in_group, *window = c.kernel_shape
    spatial = list(range(2, 2 + c.rank))
    kernel = reversed_along(graph, c.kernel, spatial)
    out_group = out // c.groups
    grouped = graph.reshape(kernel, c.kernel_shape, (c.groups, out_group, in_group, *window))
    swapped = graph.transpose(grouped, [0, 2, 1, *range(3, 3 + c.rank)])
    kernel = graph.reshape(swapped, (c.groups, in_group, out_group, *window), (c.groups * in_group, out_group, *window))
    crops: list[tuple[int, int]] = []
    for (before, after), size, dilation in zip(c.padding, window, c.dilation):
        reach = dilation * (size - 1)
        crops.append((reach - before, reach - after))
    pads = [max(before, 0) for before, _ in crops] + [max(after, 0) for _, after in crops]
    options = {"strides": c.between, "dilations": c.dilation, "group": c.groups, "pads": pads}
    y = _convolved(graph, "ConvTranspose", c.x, kernel, c.dtype, options)
    beyond = [(max(-before, 0), max(-after, 0)) for before, after in crops]
    return padded(graph, y, [(0, 0), (0, 0), *beyond], graph.number(0, c.dtype), c.dtype)


def _without_space(graph: Graph, c: _Convolution) -> str:
    """A convolution without axes of space, as one over an axis of size 1."""
    x, kernel = graph.unsqueeze(c.x, [2]), graph.unsqueeze(c.kernel, [2])
    y = _convolved(graph, "Conv", x, kernel, c.dtype, {"group": c.groups})
    return graph.add("Squeeze", y, graph.numbers([2]))
