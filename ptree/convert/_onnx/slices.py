"""Rules for slices: static and dynamic ones, dynamic updates, reversed axes, padding with negative and interior widths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .graph import END, Graph
from .translation import Equation, Translation, rule
from .values import Shape, Size, Value, is_static, same_size


@rule("slice")
def _slice(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    (x,) = inputs
    starts, ends = equation.options["start_indices"], equation.options["limit_indices"]
    steps = equation.options["strides"] or (1,) * len(starts)
    parts: list[tuple[Size, Size, int, int]] = []
    for axis, size in enumerate(x.shape):
        start, step = starts[axis], steps[axis]
        end = END if same_size(ends[axis], size) else ends[axis]
        if not (same_size(start, 0) and end == END and step == 1):
            parts.append((start, end, axis, step))
    sliced = t.graph.slice(t.graph.full(x), *zip(*parts)) if parts else t.graph.full(x)
    return [t.graph.value(sliced, equation.outputs[0])]


@rule("rev")
def _reverse(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    axes = [int(axis) for axis in equation.options["dimensions"]]
    return [t.graph.value(reversed_along(t.graph, t.graph.full(inputs[0]), axes), equation.outputs[0])]


def reversed_along(graph: Graph, tensor: str, axes: Sequence[int]) -> str:
    """A tensor in the opposite order along these axes."""
    count = len(axes)
    return graph.slice(tensor, [-1] * count, [-END] * count, axes, [-1] * count)


# ------------------------------------------------------------------------------ padding


@rule("pad")
def _pad(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    x, filling = inputs
    widths = equation.options["padding_config"]
    graph, shape = t.graph, x.shape
    tensor, value = graph.full(x), graph.tensor(filling)
    for axis, (_, _, between) in enumerate(widths):
        if not same_size(between, 0):
            tensor, shape = spread(graph, tensor, shape, axis, between, value, x.dtype)
    sides = [(before, after) for before, after, _ in widths]
    return [graph.value(padded(graph, tensor, sides, value, x.dtype), equation.outputs[0])]


def padded(graph: Graph, tensor: str, sides: Sequence[tuple[Size, Size]], value: str, dtype: np.dtype) -> str:
    """A tensor with places before and after each axis; fewer places where a width is below 0."""
    widths = [before for before, _ in sides] + [after for _, after in sides]
    if is_static(widths) and not any(widths):
        return tensor
    places = graph.sizes(widths)
    return graph.typed("Pad", dtype, dtype, tensor, places, value, uncast=(places,))


def spread(
    graph: Graph, tensor: str, shape: Shape, axis: int, between: Size, value: str, dtype: np.dtype
) -> tuple[str, Shape]:
    """A tensor with so many places between two neighbours of an axis, and its shape."""
    # each number becomes a row of itself and the new places; those after the last number are cut off
    rows = graph.unsqueeze(tensor, [axis + 1])
    sides: list[tuple[Size, Size]] = [(0, 0)] * (len(shape) + 1)
    sides[axis + 1] = (0, between)
    rows = padded(graph, rows, sides, value, dtype)
    row_shape = (*shape[: axis + 1], between + 1, *shape[axis + 1 :])
    flat_shape = (*shape[:axis], shape[axis] * (between + 1), *shape[axis + 1 :])
    flat = graph.reshape(rows, row_shape, flat_shape)
    cut = graph.slice(flat, [0], [-between], [axis], [1])
    return cut, (*shape[:axis], shape[axis] * (between + 1) - between, *shape[axis + 1 :])


# ---------------------------------------------------------------------- starts that are values


@rule("dynamic_slice")
def _dynamic_slice(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    x, *starts = inputs
    sizes = equation.options["slice_sizes"]
    graph = t.graph
    axes = [axis for axis, size in enumerate(sizes) if not same_size(size, x.shape[axis])]
    tensor = graph.full(x)
    if axes:
        first = [clamped_start(graph, starts[axis], x.shape[axis], sizes[axis]) for axis in axes]
        start = graph.add("Concat", *first, axis=0) if len(first) > 1 else first[0]
        end = graph.add("Add", start, graph.sizes([sizes[axis] for axis in axes]))
        tensor = graph.add("Slice", tensor, start, end, graph.numbers(axes))
    return [graph.value(tensor, equation.outputs[0])]


@rule("dynamic_update_slice")
def _dynamic_update_slice(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    x, new, *starts = inputs
    graph = t.graph
    axes = [axis for axis, size in enumerate(new.shape) if not same_size(size, x.shape[axis])]
    first = {axis: clamped_start(graph, starts[axis], x.shape[axis], new.shape[axis]) for axis in axes}
    updated = _with_block(graph, graph.full(x), graph.full(new), new.shape, first)
    return [graph.value(updated, equation.outputs[0])]


def _with_block(graph: Graph, old: str, new: str, shape: Shape, starts: dict[int, str]) -> str:
    """A tensor in which a block of this shape is replaced, by what is before, inside and after it on each axis."""
    if not starts:
        return new
    axis, *others = starts
    start = starts[axis]
    end = graph.add("Add", start, graph.size(shape[axis]))
    on_axis = graph.numbers([axis])
    before = graph.add("Slice", old, graph.numbers([0]), start, on_axis)
    inside = graph.add("Slice", old, start, end, on_axis)
    after = graph.add("Slice", old, end, graph.numbers([END]), on_axis)
    inside = _with_block(graph, inside, new, shape, {other: starts[other] for other in others})
    return graph.add("Concat", before, inside, after, axis=axis)


def clamped_start(graph: Graph, start: Value, whole: Size, size: Size) -> str:
    """Where a slice begins, i64[1]: moved so that it lies inside of the axis, as JAX moves it."""
    number = graph.reshape(graph.cast(graph.tensor(start), np.int64), (), (1,))
    last = graph.size(whole - size)
    return graph.add("Max", graph.add("Min", number, last), graph.numbers([0]))
