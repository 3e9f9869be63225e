"""Read a part of a leaf: find the contiguous run that a slice lies in, or read the block of one device in runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any, TypeAlias

import numpy as np

_SHORT_RUN = 1 << 10
"""Bytes: shorter runs are read together with the bytes between them, as a call to the system costs more than these."""
_ROWS_AT_ONCE = 1 << 24
"""Bytes that are read at once with such runs; more would need that much memory beside the block."""

ReadRun: TypeAlias = Callable[[int, int], np.ndarray]
"""`(first, count)` -> that many numbers of a leaf, counted in C order."""
Index: TypeAlias = Any
"""What NumPy takes between brackets: integers, slices, `...`, None, arrays, and tuples of these."""


@dataclass(frozen=True)
class Run:
    """A contiguous run of a leaf that holds all of a slice: where it begins, its shape, and the index that is left."""

    first: int
    shape: tuple[int, ...]
    index: tuple[Index, ...]

    @property
    def count(self) -> int:
        return prod(self.shape)

    def read(self, read_run: ReadRun) -> np.ndarray:
        return read_run(self.first, self.count).reshape(self.shape)[self.index]


def run_of(index: Index, shape: tuple[int, ...]) -> Run:
    """Find the smallest contiguous run of a leaf that an index of NumPy lies in.

    Integers narrow it axis by axis, and one slice after them; what comes behind is left to NumPy.
    """
    given = index if isinstance(index, tuple) else (index,)
    first, run_shape, left = 0, list(shape), list(given)
    for axis, at in enumerate(given[: len(shape)]):
        stride = prod(shape[axis + 1 :])
        if _is_integer_within(at, shape[axis]):
            first += int(at) % shape[axis] * stride
            run_shape[axis], left[axis] = 1, 0
            continue  # one place along this axis: the next axis is contiguous
        if isinstance(at, slice):
            low, high = _bounds(range(shape[axis])[at])
            first += low * stride
            run_shape[axis] = high - low
            # the run has only the rows from the first to the last: what is left to NumPy is the step
            left[axis] = slice(None, None, at.step or 1)
        break
    return Run(first, tuple(run_shape), tuple(left))


def _is_integer_within(index: Index, size: int) -> bool:
    # NumPy takes True for a mask, not for 1; for an integer out of bounds it raises its own error
    if not isinstance(index, (int, np.integer)) or isinstance(index, bool):
        return False
    return -size <= int(index) < size


def _bounds(places: range) -> tuple[int, int]:
    """The first index of a slice, and the one behind the last, whatever the sign of its step."""
    if not places:
        return 0, 0
    return min(places), max(places) + 1


def read_block(index: tuple[slice, ...], shape: tuple[int, ...], dtype: np.dtype, read_run: ReadRun) -> np.ndarray:
    """Read the block of one device. Runs shorter than 1 KiB are read together with the bytes between them."""
    ranges = [range(size)[along] for along, size in zip(index, shape, strict=True)]
    block_shape = tuple(map(len, ranges))
    cut_axes = [axis for axis, size in enumerate(shape) if block_shape[axis] < size]
    last_cut = cut_axes[-1] if cut_axes else 0  # from this axis on, the block is contiguous in the file
    run_count = prod(block_shape[last_cut:])
    # the usual case, an array cut along its first axis: one reading, and no copy into a block
    if prod(block_shape[:last_cut]) == 1:
        first = next(_run_starts(ranges, shape, last_cut))
        return read_run(first, run_count).reshape(block_shape)
    block = np.empty(block_shape, dtype)
    if not block.size:
        return block
    row_bytes = prod(shape[1:]) * dtype.itemsize
    if run_count * dtype.itemsize < _SHORT_RUN and row_bytes <= _ROWS_AT_ONCE:
        _fill_by_rows(block, index, ranges[0], shape, read_run)
        return block
    runs = block.reshape(-1, run_count)
    for at, first in enumerate(_run_starts(ranges, shape, last_cut)):
        runs[at] = read_run(first, run_count)
    return block


def _run_starts(ranges: Sequence[range], shape: tuple[int, ...], last_cut: int) -> Iterator[int]:
    """Where each contiguous run of a block begins in the leaf, counted in numbers."""
    strides = [prod(shape[axis + 1 :]) for axis in range(len(shape))]
    inner = [along.start for along in ranges[last_cut:]]
    for outer in product(*ranges[:last_cut]):
        yield sum(place * stride for place, stride in zip([*outer, *inner], strides))


def _fill_by_rows(
    block: np.ndarray, index: tuple[slice, ...], rows: range, shape: tuple[int, ...], read_run: ReadRun
) -> None:
    """Fill a new block from runs of whole rows of the leaf, some rows at a time."""
    row_bytes = prod(shape[1:]) * block.dtype.itemsize
    count = max(1, _ROWS_AT_ONCE // row_bytes)
    for at in range(0, len(rows), count):
        some = rows[at : at + count]
        part = run_of((slice(some.start, some.stop), *index[1:]), shape)
        block[at : at + count] = part.read(read_run)
