"""ForeignSource: a file of another framework, such as PyTorch, each array in it a leaf; the names that are tied in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from ..._errors import FileError
from ..._foreign import ForeignFile
from ..._paths.dotted_names import paths_of_nested_names
from ..._stored.dtypes import UNKNOWN
from ..._words import in_bytes, printable, short_dtype, shortened
from .source import CHUNK, UNKNOWN_DTYPE, Alias, LeafInfo, Source, errors_with_path, in_chunks, path_and_name

_LONGEST_METADATA = 60  # characters of a value that is shown
_MOST_METADATA = 10


class ForeignSource(Source):
    """A file of another framework. Names that share their numbers in it are tied."""

    is_file = True

    def __init__(self, file: ForeignFile):
        self._file = file
        self.title = os.path.basename(os.path.abspath(file.path))
        self.about = _about(file, file.path)
        self.files = (file.path,)
        self._names = paths_of_nested_names([*self._file.arrays, *self._file.aliases])
        paths = {name: path for path, name in self._names.items()}
        self.leaves = {paths[name]: self._info(paths[name]) for name in self._file.arrays}
        self.aliases = {
            paths[alias]: self._alias(paths[alias], paths[source]) for alias, source in self._file.aliases.items()
        }
        self.order = [*self.leaves, *self.aliases]

    def _info(self, path: str) -> LeafInfo:
        array = self._file.arrays[self._names[path]]
        count = prod(array.shape)
        dtype = UNKNOWN_DTYPE if array.dtype == UNKNOWN else short_dtype(array.dtype)
        return LeafInfo(path, array.shape, dtype, count, count * array.dtype.itemsize, problem=array.problem)

    def _alias(self, path: str, source: str) -> Alias:
        return Alias(path, source, source, self.leaves[source].shape)

    def chunks(self, path: str, most: int = CHUNK) -> Iterator[np.ndarray]:
        yield from in_chunks(self.values(path).reshape(-1), most)

    def part(self, path: str, index: Any = ...) -> np.ndarray:
        self._refuse_unreadable(path)
        name = self._names[path]
        with errors_with_path(path, name):
            return self._file.part(name, index)

    def values(self, path: str) -> np.ndarray:
        self._refuse_unreadable(path)
        name = self._names[path]
        with errors_with_path(path, name):
            return self._file.read(name)

    def whole(self, path: str) -> np.ndarray:
        return self.values(path)

    def has_checksum(self, path: str) -> bool:
        return self._file.has_checksum(self._names[path])

    def _refuse_unreadable(self, path: str) -> None:
        if self.leaves[path].problem:
            raise FileError(f"{self.shown(path)} {self.leaves[path].problem}")

    def shown(self, path: str) -> str:
        return path_and_name(path, self._names[path])

    def close(self) -> None:
        self._file.close()


class OpenForeignSource(ForeignSource):
    """A file of another framework that the caller opened, and closes."""

    def close(self) -> None:
        """Leave the file open."""


def _about(file: ForeignFile, path: str) -> str:
    words = [file.format]
    if os.path.isfile(path):
        words.append(in_bytes(os.path.getsize(path)))
    shown = list(file.metadata.items())[:_MOST_METADATA]
    words += [shortened(printable(f"{name}={value}"), _LONGEST_METADATA) for name, value in shown]
    if len(file.metadata) > len(shown):
        words.append(f"{len(file.metadata) - len(shown):,} more values")
    return ", ".join(words)
