"""NpzFile: an archive of NumPy, `.npz`: its arrays by name, read whole, in part or in chunks, and written. Nothing is unpickled."""

from __future__ import annotations

import os
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import IO, Any

import numpy as np

from .._errors import FileError
from .._stored.drafts import draft
from .._stored.leaf_parts import part_of, read_block
from .._words import listed, quoted
from .draft_writing import check_arrays, target_path
from .file_bytes import FileBytes
from .foreign_file import ForeignArray, ForeignFile, Index
from .placed_arrays import shape_problem
from .stored_member import ZIP_DAMAGE, is_stored, member_start, open_archive

_MOST_EXPANSION = 1100
"""The compression of zip, deflate, makes data 1032 times smaller at most."""
_RUN = 1 << 20
"""Bytes that are read at a time where their values are of no account."""
_WRITTEN = [
    np.dtype(kind)
    for kind in (
        "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
        "float16", "float32", "float64", "complex64", "complex128",
    )
]  # fmt: skip


@dataclass(frozen=True)
class _Header:
    """The header of an array: whether its first axis is the fastest, the dtype as it is stored, and its length in bytes."""

    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype
    length: int


class NpzFile(ForeignFile):
    """An open `.npz`; names are those of its members, without `.npy`.

    Arrays of Python objects are described, and refused when they are read. NumPy does not write the names of dtypes such
    as bfloat16: those are found as raw bytes, `V2`.

    Raises:
        FileError: it is no whole archive, or has two members of one name.
    """

    format = "NumPy npz"

    def __init__(self, path: str):
        self.path = path
        self.aliases, self.metadata = {}, {}
        self._archive = open_archive(path, "npz file")
        _refuse_repeats(path, self._archive)
        members = [member for member in self._archive.infolist() if member.filename.endswith(".npy")]
        self._members = {member.filename.removesuffix(".npy"): member for member in members}
        self._headers: dict[str, _Header] = {}
        self.arrays = {name: self._described(name) for name in self._members}
        self._bytes: FileBytes | None = None

    def _described(self, name: str) -> ForeignArray:
        try:
            with self._archive.open(self._members[name]) as file:
                header = _npy_header(file)
            _check_size(self._members[name], header)
        except ZIP_DAMAGE as error:  # the others can be read
            return ForeignArray(name, (), np.dtype(np.void), f"is damaged: {error}")
        self._headers[name] = header
        problem = "holds Python objects, which are not read" if header.dtype.hasobject else ""
        return ForeignArray(name, header.shape, header.dtype.newbyteorder("="), problem)

    def has_checksum(self, name: str) -> bool:
        return True  # zip has a CRC-32 of each member

    def _read(self, array: ForeignArray) -> np.ndarray:
        try:
            with self._archive.open(self._members[array.name]) as file:
                numbers = np.lib.format.read_array(file, allow_pickle=False)
                _read_to_end(file)
        except ZIP_DAMAGE as error:
            raise self.damage(array, error) from error
        return numbers.astype(array.dtype, copy=False)

    def _part(self, array: ForeignArray, index: Index) -> np.ndarray:
        header, member = self._headers[array.name], self._members[array.name]
        if header.is_fortran or not is_stored(member):
            return self._read(array)[index]
        if self._bytes is None:
            self._bytes = FileBytes(self.path)
        outer = self._bytes
        start = member_start(outer, member) + header.length

        def fill(runs: Sequence[tuple[int, np.ndarray]]) -> None:
            for first, memory in runs:
                outer.fill(memory, start + first, f"the array {quoted(array.name)}")

        part = part_of(index, header.shape)
        block = read_block(part.ranges, header.shape, header.dtype, fill)
        return block.astype(array.dtype, copy=False)[part.index]

    def chunks(self, name: str, most: int) -> Iterator[np.ndarray]:
        """The numbers of an array in C order, as flat arrays of at most `most` bytes.

        Raises:
            PathError: no array has this name.
            FileError: its numbers cannot be read, or are damaged.
        """
        array = self.readable(name)
        header = self._headers[array.name]
        left, at_once = prod(header.shape), max(1, most // max(1, header.dtype.itemsize))
        if header.is_fortran and len(header.shape) > 1:
            flat = self._read(array).reshape(-1)
            yield from (flat[first : first + at_once] for first in range(0, left, at_once))
            return
        with self._opened_member(array) as file:
            self._next_bytes(file, array, header.length)
            while left:
                count = min(left, at_once)
                data = self._next_bytes(file, array, count * header.dtype.itemsize)
                yield np.frombuffer(data, header.dtype).astype(array.dtype, copy=False)
                left -= count
            try:
                _read_to_end(file)
            except ZIP_DAMAGE as error:
                raise self.damage(array, error) from error

    def _opened_member(self, array: ForeignArray) -> IO[bytes]:
        try:
            return self._archive.open(self._members[array.name])
        except ZIP_DAMAGE as error:
            raise self.damage(array, error) from error

    def _next_bytes(self, file: IO[bytes], array: ForeignArray, count: int) -> bytes:
        try:
            data = file.read(count)
        except ZIP_DAMAGE as error:
            raise self.damage(array, error) from error
        if len(data) < count:
            raise self.damage(array, "it is cut short")
        return data

    def close(self) -> None:
        self._archive.close()
        if self._bytes is not None:
            self._bytes.close()


def _refuse_repeats(path: str, archive: zipfile.ZipFile) -> None:
    """Refuse members of one name, `a` and `a.npy` too, of which NumPy reads either."""
    counts = Counter(member.removesuffix(".npy") for member in archive.namelist())
    repeated = [name for name, count in counts.items() if count > 1]
    if repeated:
        archive.close()
        raise FileError(f"cannot read {quoted(path)}: several arrays have the same name: {listed(repeated)}")


def _read_to_end(file: IO[bytes]) -> None:
    """Read what follows an array in its member: only at its end does zipfile compare the checksum."""
    while file.read(_RUN):
        pass


def _npy_header(file: IO[bytes]) -> _Header:
    version = np.lib.format.read_magic(file)
    readers: dict[tuple[int, int], Callable[[IO[bytes]], Any]] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"version {version} of the npy format is not read")
    shape, is_fortran, dtype = readers[version](file)
    return _Header(shape, is_fortran, dtype, file.tell())


def _check_size(member: zipfile.ZipInfo, header: _Header) -> None:
    """Compare the size that a header states with that of the member: memory is taken by the former."""
    problem = shape_problem(header.shape, header.dtype)
    if problem:
        raise ValueError(f"it has {problem}")
    if member.file_size > _MOST_EXPANSION * max(1, member.compress_size):
        raise ValueError(f"{member.file_size:,} bytes are said to be in {member.compress_size:,}")
    if header.dtype.hasobject:  # a pickle of any length
        return
    expected = prod(header.shape) * header.dtype.itemsize
    if header.length + expected > member.file_size:
        raise ValueError(f"it is cut short: {expected:,} bytes in {member.file_size - header.length:,}")


def write_npz(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Write a `.npz`, which `numpy.load` reads.

    Raises:
        FileError: NumPy lacks a dtype, such as bfloat16, which it would write as raw bytes.
        OSError: the file cannot be written.
    """
    place = target_path(path)
    check_arrays(arrays, _WRITTEN, "NumPy's npz")
    with draft(place) as target, open(target, "wb", closefd=False) as out, zipfile.ZipFile(out, "w") as archive:
        for name, array in arrays.items():
            # zip64: the size is not known before, and may be more than 4 GiB
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
