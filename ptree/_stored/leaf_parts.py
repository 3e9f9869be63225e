"""Read a part of a leaf, any basic index of NumPy or the block of one device, by ranges of bytes: its own, and short gaps between
them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from types import EllipsisType
from typing import Any, SupportsIndex, TypeAlias

import numpy as np

from .header import ALIGNED

GAP = 1 << 12
"""Bytes: where less lies between two runs of a part, they are read as one.

A disk reads whole pages of 4 KiB anyway. Of a file in memory, 65,536 runs of 64 bytes take 94 ms one by one, and 9, 18 or 67 ms
together with gaps of 1, 4 or 16 KiB.
"""
_AT_ONCE = 1 << 24
"""Bytes of one run with gaps; more would need that much memory beside the block."""
_RUNS_AT_ONCE = 1 << 12
"""How many runs are asked for together: a file far away sends them at the same time."""

Index: TypeAlias = Any
"""What NumPy takes between brackets: integers, slices, `...`, None, arrays, and tuples of these."""
Ranges: TypeAlias = Sequence[range]
"""The places of a block along each axis, in ascending order."""
Fill: TypeAlias = Callable[[Sequence[tuple[int, np.ndarray]]], None]
"""Fills memory with bytes of a leaf: pairs of where they begin, counted from the leaf's first byte, and memory of bytes."""

_ANY_ARRAY = np.zeros((), np.uint8)


def aligned_memory(count: int) -> np.ndarray:
    """New memory of so many bytes: NumPy aligns to 16 bytes, JAX on a CPU uses memory without a copy from 64 on."""
    memory = np.empty(count + ALIGNED, np.uint8)
    first = -memory.ctypes.data % ALIGNED
    return memory[first : first + count]


# ------------------------------------------------------------------------------- which block


@dataclass(frozen=True)
class Part:
    """A part of an array: the places of a block along each axis, and the index of NumPy that makes the part of that block."""

    ranges: tuple[range, ...]
    index: tuple[Index, ...]


def part_of(index: Index, shape: tuple[int, ...]) -> Part:
    """Find the block of an array that an index of NumPy takes: integers and slices narrow it along their axes.

    An axis that is indexed by an array, a list or a mask stays whole, and is left to NumPy.

    Raises:
        IndexError: NumPy's own, for an index that does not fit the shape.
    """
    np.broadcast_to(_ANY_ARRAY, shape)[index]  # before anything is read
    given = index if isinstance(index, tuple) else (index,)
    ranges = [range(size) for size in shape]
    left: list[Index] = []
    axis = 0
    for at in given:
        if isinstance(at, EllipsisType):
            axis += len(shape) - sum(map(_axes_of, given))
        elif isinstance(at, slice):
            ranges[axis], at = _narrowed(range(shape[axis])[at])
        elif _axes_of(at) == 1:
            place = _integer(at)
            if place is not None:
                place %= shape[axis]
                ranges[axis], at = range(place, place + 1), 0
        left.append(at)
        axis += _axes_of(at)
    return Part(tuple(ranges), tuple(left))


def _axes_of(at: Index) -> int:
    """How many axes of the array one entry of an index stands for; none for `...`, whose number the others leave."""
    if at is None or isinstance(at, (EllipsisType, bool, np.bool_)):
        return 0
    if isinstance(at, (slice, int, np.integer)):
        return 1
    array = np.asarray(at)
    return array.ndim if array.dtype == bool else 1


def _integer(at: Index) -> int | None:
    """The integer that an entry of an index is; None for an array of them."""
    if not isinstance(at, SupportsIndex) or np.ndim(at):  # pyright: ignore[reportArgumentType]
        return None
    return operator.index(at)


def _narrowed(places: range) -> tuple[range, slice]:
    """The places of a slice in ascending order, and the slice that brings them into its own."""
    if not places:
        return range(0), slice(None)
    return (places, slice(None)) if places.step > 0 else (places[::-1], slice(None, None, -1))


def ranges_of(index: Sequence[slice], shape: Sequence[int]) -> tuple[range, ...]:
    """The places of a block that is given by a slice along each axis, as JAX gives the block of a device."""
    return tuple(range(size)[along] for along, size in zip(index, shape, strict=True))


def slices_of(ranges: Ranges) -> tuple[slice, ...]:
    return tuple(slice(places.start, places.stop, places.step) for places in ranges)


def block_shape(ranges: Ranges) -> tuple[int, ...]:
    return tuple(map(len, ranges))


def is_whole(ranges: Ranges, shape: Sequence[int]) -> bool:
    return block_shape(ranges) == tuple(shape)


# ------------------------------------------------------------------------------- reading it


@dataclass(frozen=True)
class _Runs:
    """The runs of bytes in which a block is read: one for each place along the first `axis` axes."""

    axis: int
    length: int
    """Of each run, from its first number to its last, in bytes."""
    strides: tuple[int, ...]
    """Bytes from one place of the block to the next, along each axis."""
    first: int
    """Where the first run begins."""


def _runs_of(ranges: Ranges, shape: Sequence[int], itemsize: int, gap: int) -> _Runs:
    """Find the runs of a block that is not empty; runs with less than `gap` bytes between them are one."""
    steps = [itemsize * prod(shape[axis + 1 :]) for axis in range(len(shape))]
    strides = tuple(step * places.step for step, places in zip(steps, ranges))
    first = sum(step * places.start for step, places in zip(steps, ranges))
    length, axis = itemsize, len(shape)
    while axis > 0:
        count = len(ranges[axis - 1])
        if count > 1 and strides[axis - 1] - length >= max(gap, 1):
            break
        axis -= 1
        length += (count - 1) * strides[axis]
    return _Runs(axis, length, strides, first)


def bytes_of_block(ranges: Ranges, shape: Sequence[int], itemsize: int, gap: int = GAP) -> int:
    """How many bytes are read for a block, those of gaps too."""
    if not prod(block_shape(ranges)):
        return 0
    runs = _runs_of(ranges, shape, itemsize, gap)
    return prod(block_shape(ranges[: runs.axis])) * runs.length


def read_block(ranges: Ranges, shape: Sequence[int], dtype: np.dtype, fill: Fill, gap: int = GAP) -> np.ndarray:
    """Read a block into new memory, which JAX can use without a copy."""
    whole = block_shape(ranges)
    block = aligned_memory(prod(whole) * dtype.itemsize).view(dtype).reshape(whole)
    if block.size:
        _fill_block(block, ranges, shape, fill, gap)
    return block


def _fill_block(block: np.ndarray, ranges: Ranges, shape: Sequence[int], fill: Fill, gap: int) -> None:
    """Fill a contiguous block."""
    runs = _runs_of(ranges, shape, block.itemsize, gap)
    inner = block.shape[runs.axis :]
    has_gaps = runs.length > prod(inner) * block.itemsize
    if has_gaps and runs.length > _AT_ONCE:
        _fill_by_rows(block, ranges, shape, fill, gap)
        return
    starts = _run_starts(runs, block.shape)
    count = min(max(1, _AT_ONCE // runs.length), _RUNS_AT_ONCE)
    if not has_gaps:
        memory = block.reshape(len(starts), -1).view(np.uint8)
        for at in range(0, len(starts), count):
            fill([*zip(starts[at : at + count], memory[at : at + count])])
        return
    by_run = block.reshape(len(starts), *inner)
    for at in range(0, len(starts), count):
        some = starts[at : at + count]
        memory = np.empty((len(some), runs.length), np.uint8)
        fill([*zip(some, memory)])
        # the numbers of the block, without those between them; NumPy's as_strided does not know every dtype of ml_dtypes
        strides = (runs.length, *runs.strides[runs.axis :])
        by_run[at : at + count] = np.ndarray((len(some), *inner), block.dtype, memory, strides=strides)


def _run_starts(runs: _Runs, shape: Sequence[int]) -> list[int]:
    """Where each run begins in the leaf, in bytes, in C order."""
    starts = np.full((), runs.first)
    for size, stride in zip(shape[: runs.axis], runs.strides):
        starts = starts[..., None] + np.arange(size) * stride
    return starts.reshape(-1).tolist()


def _fill_by_rows(block: np.ndarray, ranges: Ranges, shape: Sequence[int], fill: Fill, gap: int) -> None:
    """Fill a block some rows at a time, along the first axis that has several places."""
    axis = next(axis for axis, size in enumerate(block.shape) if size > 1)
    stride = block.itemsize * prod(shape[axis + 1 :]) * ranges[axis].step
    count = max(1, _AT_ONCE // stride)
    for at in range(0, block.shape[axis], count):
        rows = [*ranges[:axis], ranges[axis][at : at + count], *ranges[axis + 1 :]]
        _fill_block(block[(slice(None),) * axis + (slice(at, at + count),)], rows, shape, fill, gap)
