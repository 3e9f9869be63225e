"""NpzSource: an archive of NumPy, each array in it a leaf, read in chunks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from ..._foreign.npz_file import NpzFile
from ..._paths.dotted_names import paths_of_names
from ..._words import in_bytes, short_dtype
from .source import CHUNK, UNKNOWN_DTYPE, LeafInfo, Source, errors_with_path, path_and_name


class NpzSource(Source):
    """An archive of NumPy: each `.npy` in it is a leaf. Nothing in it is unpickled."""

    is_file = True

    def __init__(self, path: str):
        self.path, self.files = path, (path,)
        self.title = os.path.basename(path)
        self._file = NpzFile(path)
        self._names = paths_of_names(self._file.arrays)
        self.about = f"npz, {in_bytes(os.path.getsize(path))}"
        self.order = [*self._names]
        self.leaves = {name: self._info(name) for name in self.order}
        self.aliases = {}

    def _info(self, path: str) -> LeafInfo:
        array = self._file.arrays[self._names[path]]
        if array.problem and not array.dtype.hasobject:  # damaged
            return LeafInfo(path, None, UNKNOWN_DTYPE, 0, 0, problem=array.problem, is_damaged=True)
        count = prod(array.shape)
        return LeafInfo(
            path, array.shape, short_dtype(array.dtype), count, count * array.dtype.itemsize, problem=array.problem
        )

    def chunks(self, path: str, most: int = CHUNK) -> Iterator[np.ndarray]:
        name = self._names[path]
        with errors_with_path(path, name):
            yield from self._file.chunks(name, most)

    def part(self, path: str, index: Any = ...) -> np.ndarray:
        name = self._names[path]
        with errors_with_path(path, name):
            return self._file.read(name) if index is ... else self._file.part(name, index)

    def has_checksum(self, path: str) -> bool:
        return self._file.has_checksum(self._names[path])

    def shown(self, path: str) -> str:
        return path_and_name(path, self._names[path])

    def close(self) -> None:
        self._file.close()
