"""The places that a gather or scatter reads or writes, as a tensor of indices for GatherND and ScatterND."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from .graph import Graph
from .shapes import counting
from .translation import Translation
from .values import Shape, Size, Value, same_size


@dataclass(frozen=True)
class Places:
    """Blocks of an array, one for each row of a batch of indices.

    Each axis of the array is one of three kinds: at a single index (`points`), a window from an index on (`windows`), or whole.
    """

    shape: Shape
    batch: Shape
    """The axes of the indices before the last."""
    points: tuple[int, ...]
    windows: tuple[int, ...]
    sizes: Mapping[int, Size]
    """Axis -> the size of its part of a block."""
    starts: Mapping[int, str]
    """Axis -> where the block begins, a tensor i64 of the shape `batch`, moved into the array; no entry for 0."""
    valid: str
    """The tensor of truth values, of the shape `batch`, whether a block lies inside; empty where that does not matter."""

    @property
    def indexed(self) -> tuple[int, ...]:
        return (*self.points, *self.windows)

    @property
    def whole(self) -> tuple[int, ...]:
        return tuple(axis for axis in range(len(self.shape)) if axis not in self.indexed)

    @property
    def window_shape(self) -> Shape:
        return tuple(self.sizes[axis] for axis in self.windows)


def places_of(
    t: Translation,
    shape: Shape,
    indices: Value,
    index_axes: Sequence[int],
    batch_axes: Mapping[int, int],
    collapsed: Sequence[int],
    sizes: Mapping[int, Size],
    *,
    checks: bool,
) -> Places:
    """The places of a gather or scatter.

    Args:
        shape: of the array that is indexed.
        indices: integers [batch..., n].
        index_axes: the axis of the array that each of the n numbers counts along.
        batch_axes: axis of the array -> axis of the batch, along which both go together.
        collapsed: axes that a block has one place of, and the result no axis.
        sizes: axis -> size of the block, for all axes that are not in the batch.
        checks: whether blocks that lie outside are to be found, in `valid`.
    """
    graph = t.graph
    batch = indices.shape[:-1]
    starts: dict[int, str] = {}
    inside: list[str] = []
    for number, axis in enumerate(index_axes):
        axis = int(axis)
        start = _column(graph, indices, number)
        last = graph.reshape(graph.size(shape[axis] - sizes[axis]), (1,), ())
        zero = graph.number(0, np.int64)
        if checks:
            inside.append(graph.add("GreaterOrEqual", start, zero))
            inside.append(graph.add("LessOrEqual", start, last))
        starts[axis] = graph.add("Max", graph.add("Min", start, last), zero)
    for axis, along in batch_axes.items():
        numbers = counting(t, batch[along])
        starts[axis] = graph.unsqueeze(numbers, list(range(1, len(batch) - along)))
    points = [axis for axis in (*batch_axes, *map(int, index_axes)) if axis in batch_axes or axis in collapsed]
    windows: list[int] = []
    for axis, size in sizes.items():
        is_whole = same_size(size, shape[axis])
        if axis not in points and not is_whole:
            windows.append(axis)
    valid = reduce(lambda a, b: graph.add("And", a, b), inside) if inside else ""
    return Places(shape, batch, tuple(points), tuple(windows), sizes, starts, valid)


def _column(graph: Graph, indices: Value, number: int) -> str:
    """One of the numbers of each row, i64[batch...]."""
    if indices.constant is not None and indices.is_broadcast:
        return graph.constant(np.asarray(indices.constant[..., number], np.int64))
    tensor = graph.full(indices)
    axis = len(indices.shape) - 1
    return graph.cast(graph.add("Gather", tensor, graph.number(number, np.int64), axis=axis), np.int64)


def index_tensor(t: Translation, places: Places, starts: Mapping[int, str]) -> str:
    """The index of each place in the indexed axes, i64[batch..., windows..., indexed]."""
    graph = t.graph
    count = len(places.windows)
    shape = (*places.batch, *places.window_shape)
    columns: list[str] = []
    for axis in places.indexed:
        column = axis_index(t, places, axis, starts)
        columns.append(graph.unsqueeze(graph.add("Expand", column, graph.sizes(shape)), [len(places.batch) + count]))
    return graph.add("Concat", *columns, axis=len(shape))


def axis_index(t: Translation, places: Places, axis: int, starts: Mapping[int, str]) -> str:
    """The index of each place along one axis; broadcasts to [batch..., windows...]."""
    graph = t.graph
    count = len(places.windows)
    start = starts.get(axis)
    if start is not None:
        start = _with_axes_behind(graph, start, count)
    if axis not in places.windows:
        assert start is not None  # an axis with a single place has an index
        return start
    behind = count - 1 - places.windows.index(axis)
    offsets = _with_axes_behind(graph, counting(t, places.sizes[axis]), behind)
    return offsets if start is None else graph.add("Add", start, offsets)


def _with_axes_behind(graph: Graph, tensor: str, count: int) -> str:
    return graph.unsqueeze(tensor, list(range(-count, 0)))
