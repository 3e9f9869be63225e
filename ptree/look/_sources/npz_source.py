"""NpzSource: an archive of NumPy, each array in it a leaf, read in chunks."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from math import prod
from typing import IO, Any

import numpy as np

from ..._errors import FileError
from ..._stored.locations import regular_file
from ..._words import in_bytes, quoted, short_dtype
from .dotted_names import paths_of_names
from .source import CHUNK, UNKNOWN_DTYPE, LeafInfo, Source, in_chunks

_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError)
"""Errors of a damaged archive, and of a compression that Python does not know."""


class NpzSource(Source):
    """An archive of NumPy: each `.npy` in it is a leaf. Nothing in it is unpickled."""

    is_file = True

    def __init__(self, path: str):
        self.path = path
        self.title = os.path.basename(path)
        try:
            self._archive = zipfile.ZipFile(regular_file(path))
            members = [member for member in self._archive.namelist() if member.endswith(".npy")]
            names = {member.removesuffix(".npy"): member for member in members}
            self._members = {path: names[name] for path, name in paths_of_names(names).items()}
        except (zipfile.BadZipFile, ValueError, EOFError) as error:
            raise FileError(
                f"cannot read {quoted(path)}: it is not a whole npz file: {error}", is_damage=True
            ) from error
        self.about = f"npz, {in_bytes(os.path.getsize(path))}"
        self.order = [*self._members]
        self.leaves = {name: self._info(name) for name in self.order}
        self.aliases = {}

    def _header(self, name: str) -> tuple[tuple[int, ...], bool, np.dtype]:
        try:
            with self._archive.open(self._members[name]) as file:
                return _npy_header(file)
        except _DAMAGE as error:
            raise self._damage(name, error) from error

    def _info(self, name: str) -> LeafInfo:
        try:
            shape, _, dtype = self._header(name)
        except FileError as error:  # the others can be read
            return LeafInfo(name, None, UNKNOWN_DTYPE, 0, 0, problem=f"is damaged: {error.__cause__}", is_damaged=True)
        problem = "holds Python objects, which are not read" if dtype.hasobject else ""
        count = prod(shape)
        return LeafInfo(name, shape, short_dtype(dtype), count, count * dtype.itemsize, problem=problem)

    def chunks(self, path: str, most: int = CHUNK) -> Iterator[np.ndarray]:
        self._refuse_unreadable(path)
        shape, is_fortran, dtype = self._header(path)
        if is_fortran and len(shape) > 1:
            flat = self.part(path).reshape(-1)
            yield from in_chunks(flat, most)
            return
        left, at_once = prod(shape), max(1, most // max(1, dtype.itemsize))
        with self._archive.open(self._members[path]) as file:
            _npy_header(file)
            while left:
                count = min(left, at_once)
                yield np.frombuffer(self._bytes(file, path, count * dtype.itemsize), dtype)
                left -= count

    def _bytes(self, file: IO[bytes], path: str, count: int) -> bytes:
        try:
            data = file.read(count)
        except _DAMAGE as error:
            raise self._damage(path, error) from error
        if len(data) < count:
            raise self._damage(path, "it is cut short")
        return data

    def _damage(self, path: str, why: object) -> FileError:
        return FileError(f"cannot read {quoted(self.path)}: {quoted(path)}: {why}", is_damage=True)

    def part(self, path: str, index: Any = ...) -> np.ndarray:
        self._refuse_unreadable(path)
        try:
            with self._archive.open(self._members[path]) as file:
                return np.lib.format.read_array(file, allow_pickle=False)[index]
        except _DAMAGE as error:
            raise self._damage(path, error) from error

    def _refuse_unreadable(self, path: str) -> None:
        if self.leaves[path].problem:
            raise FileError(f"{quoted(path)} {self.leaves[path].problem}")

    def close(self) -> None:
        self._archive.close()


def _npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read the header of an array: its shape, whether its first axis is the fastest, and its dtype."""
    version = np.lib.format.read_magic(file)
    readers: dict[tuple[int, int], Callable[[IO[bytes]], Any]] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"version {version} of the npy format is not read")
    return readers[version](file)
