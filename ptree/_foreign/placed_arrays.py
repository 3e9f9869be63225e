"""PlacedFile: a file in which each array is one run of bytes in C order, read whole or in part without the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from .._stored.leaf_parts import run_of
from .._words import quoted
from .file_bytes import FileBytes
from .foreign_file import ForeignArray, ForeignFile, Index

MOST_AXES = 64
"""Of an array of NumPy."""
MOST_NUMBERS = 1 << 62
"""More than any file has: NumPy counts the numbers and bytes of an array with 63 bits."""


@dataclass(frozen=True)
class Place:
    """The run of bytes of an array: the file it is in, and its first byte."""

    file: FileBytes
    start: int
    is_big_endian: bool = False


class PlacedFile(ForeignFile):
    """A file that is described by where each array lies; arrays with a problem have no place."""

    def __init__(
        self,
        path: str,
        format: str,
        arrays: Mapping[str, ForeignArray],
        places: Mapping[str, Place],
        metadata: Mapping[str, str],
    ):
        self.path, self.format = path, format
        self.arrays, self.aliases, self.metadata = dict(arrays), {}, dict(metadata)
        self._places = places

    def _read(self, array: ForeignArray) -> np.ndarray:
        return self._run(array, 0, prod(array.shape)).reshape(array.shape)

    def _part(self, array: ForeignArray, index: Index) -> np.ndarray:
        run = run_of(index, array.shape)
        return run.read(lambda first, count: self._run(array, first, count))

    def _run(self, array: ForeignArray, first: int, count: int) -> np.ndarray:
        """A run of numbers of an array, counted in C order."""
        place = self._places[array.name]
        itemsize = array.dtype.itemsize
        start = place.start + first * itemsize
        memory = place.file.memory(start, count * itemsize, f"the array {quoted(array.name)}")
        numbers = memory.view(array.dtype)
        return numbers.byteswap(inplace=True) if place.is_big_endian else numbers

    def close(self) -> None:
        for place in self._places.values():
            place.file.close()


def shape_problem(shape: tuple[int, ...], dtype: np.dtype) -> str:
    """Say why no array can have this shape, which a damaged file may state; "" if one can."""
    if len(shape) > MOST_AXES:
        return f"{len(shape):,} axes"
    if any(size < 0 for size in shape):
        return f"the shape {shape}"
    # axes of size 0 do not make the others harmless: NumPy refuses those as well
    nonzero = prod(size for size in shape if size)
    if nonzero * max(1, dtype.itemsize) > MOST_NUMBERS:
        return f"the shape {shape}"
    return ""
