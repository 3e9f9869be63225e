"""PlacedFile: a file in which the numbers of each array lie in C order, in one run of bytes or a few, and are read in part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from .._stored.leaf_parts import part_of, read_block
from .._words import quoted
from .file_bytes import FileBytes
from .foreign_file import ForeignArray, ForeignFile, Index

MOST_AXES = 64
"""Of an array of NumPy."""
_MOST_BYTES = 1 << 62
"""More than any file has: NumPy counts the bytes of an array with 63 bits."""


@dataclass(frozen=True)
class Place:
    """A run of bytes of an array."""

    file: FileBytes
    start: int
    count: int
    is_big_endian: bool = False


class PlacedFile(ForeignFile):
    """A file that is described by where each array lies: the runs of its bytes, in order.

    Small arrays may be given as values instead. Arrays with a problem need neither.
    """

    def __init__(
        self,
        path: str,
        format: str,
        arrays: Mapping[str, ForeignArray],
        places: Mapping[str, Sequence[Place]],
        *,
        files: Sequence[FileBytes],
        values: Mapping[str, np.ndarray] | None = None,
        metadata: Mapping[str, str] | None = None,
    ):
        self.path, self.format = path, format
        self.arrays, self.aliases, self.metadata = dict(arrays), {}, dict(metadata or {})
        self._files, self._places, self._values = files, places, values or {}

    def _read(self, array: ForeignArray) -> np.ndarray:
        if array.name in self._values:
            return self._values[array.name]
        return self._part(array, ...)

    def _part(self, array: ForeignArray, index: Index) -> np.ndarray:
        if array.name in self._values:
            return self._values[array.name][index]
        places = self._places[array.name]

        def fill(runs: Sequence[tuple[int, np.ndarray]]) -> None:
            for start, memory in runs:
                _fill(memory, places, start, f"the array {quoted(array.name)}")

        part = part_of(index, array.shape)
        block = read_block(part.ranges, array.shape, array.dtype, fill)
        if any(place.is_big_endian for place in places):
            block.byteswap(inplace=True)
        return block[part.index]

    def close(self) -> None:
        for file in self._files:
            file.close()


def _fill(memory: np.ndarray, places: Sequence[Place], first: int, what: str) -> None:
    """Read bytes of several runs, counted from the first of the first one."""
    filled, passed = 0, 0
    for place in places:
        skipped = max(0, first - passed)
        passed += place.count
        count = min(place.count - skipped, memory.size - filled)
        if count > 0:
            place.file.fill(memory[filled : filled + count], place.start + skipped, what)
            filled += count


def shape_problem(shape: tuple[int, ...], dtype: np.dtype) -> str:
    """Say what shape no array can have, which a damaged file may state; "" if one can."""
    if len(shape) > MOST_AXES:
        return f"{len(shape):,} axes"
    # axes of size 0 do not make the others harmless: NumPy refuses those as well
    is_too_large = prod(size for size in shape if size) * max(1, dtype.itemsize) > _MOST_BYTES
    if is_too_large or any(size < 0 for size in shape):
        return f"the shape {shape}"
    return ""
