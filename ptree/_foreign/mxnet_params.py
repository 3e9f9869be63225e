"""Read and write MXNet's `.params`: the arrays that Gluon's `save_parameters`, `export` and `mx.nd.save` write.

The format, little-endian: u64 0x112, u64 0, u64 number of arrays, the arrays, u64 number of names (0 if it is a list), and for
each name a u64 length and its bytes. Each array begins with a u32 that tells the version of its layout:

    V3, V2  0xF993FACA, 0xF993FAC9; i32 storage; i32 rank, i64 sizes; i32 device, i32 its number; i32 dtype; the numbers
    V1      0xF993FAC8; i32 rank, i64 sizes; device, dtype, numbers as above
    V0      u32 rank, u32 sizes; device, dtype, numbers as above

V3 is of arrays with NumPy's semantics, in which rank 0 is a scalar and rank -1 no array; before, rank 0 is no array. Sparse
arrays have further shapes and dtypes, which are passed over.
"""

from __future__ import annotations

import os
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import ml_dtypes
import numpy as np

from .._words import listed
from .draft_writing import check_arrays, target_path, writing
from .file_bytes import Cursor, FileBytes, open_described
from .foreign_file import ForeignArray
from .placed_arrays import Place, PlacedFile, shape_problem

LIST_MARK = 0x112
_V1, _V2, _V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
_CPU = (1, 0)  # the device, and its number

_DTYPES = {
    code: np.dtype(kind)
    for code, kind in enumerate((
        "float32", "float64", "float16", "uint8", "int32", "int8", "int64", "bool",
        "int16", "uint16", "uint32", "uint64", ml_dtypes.bfloat16,
    ))
}  # fmt: skip
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
_NO_NUMBERS = np.dtype(np.void)
"""Stands for the dtype of an entry without an array."""


@dataclass(frozen=True)
class _Entry:
    """One array as its header describes it, without its name."""

    shape: tuple[int, ...]
    dtype: np.dtype
    start: int
    problem: str = ""

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class _Sparse:
    """A way in which MXNet stores arrays that are mostly zeros: its name, and the number of index arrays."""

    name: str
    index_count: int


_SPARSE = {1: _Sparse("row_sparse", 1), 2: _Sparse("csr", 2)}


# ------------------------------------------------------------------------------- reading


def open_mxnet(path: str) -> PlacedFile:
    """Open a `.params` file of MXNet; names are as they are in it, with `arg:` and `aux:` if `export` wrote it.

    Arrays that were saved as a list are named by their places, "0" and on.

    Raises:
        FileError: the file is damaged, or two arrays have one name.
    """
    return open_described(path, _opened)


def _opened(file: FileBytes) -> PlacedFile:
    cursor = Cursor(file)
    mark, _, count = cursor.numbers("Q", 3, "the header")
    if mark != LIST_MARK:
        raise file.damage("it is no `.params` file of MXNet")
    # each array takes 4 bytes at least: a damaged count must not make a loop without end
    file.check_range(cursor.at, 4 * count, f"the list of {count:,} arrays")
    entries = [_entry(cursor, at) for at in range(count)]
    names = _names(cursor, count)
    described = dict(zip(names, entries))
    arrays = {name: ForeignArray(name, entry.shape, entry.dtype, entry.problem) for name, entry in described.items()}
    places = {name: [Place(file, entry.start, entry.nbytes)] for name, entry in described.items()}
    return PlacedFile(file.path, "MXNet params", arrays, places, files=[file])


def _names(cursor: Cursor, count: int) -> list[str]:
    given = cursor.number("Q", "the number of names")
    if given == 0:  # a list was saved
        return [str(at) for at in range(count)]
    if given != count:
        raise cursor.file.damage(f"it has {count:,} arrays and {given:,} names")
    names = [cursor.text(cursor.number("Q", "a name"), "a name") for _ in range(count)]
    twice = [name for name, uses in Counter(names).items() if uses > 1]
    if twice:
        raise cursor.file.damage(f"several arrays have the same name: {listed(twice)}")
    return names


def _entry(cursor: Cursor, at: int) -> _Entry:
    """Read the header of an array, and pass over its numbers."""
    what = f"array {at}"
    version = cursor.number("I", what)
    if version in (_V2, _V3):
        return _entry_with_storage(cursor, what, has_scalars=version == _V3)
    if version == _V1:
        shape = _shape(cursor, what)
    else:  # the oldest layout begins with the rank
        _check_rank(cursor, version, what)
        shape = cursor.numbers("I", version, what)
    if not shape:
        return _without_array(cursor)
    return _dense_entry(cursor, shape, what)


def _entry_with_storage(cursor: Cursor, what: str, *, has_scalars: bool) -> _Entry:
    storage = cursor.number("i", what)
    if storage in _SPARSE:
        return _sparse_entry(cursor, _SPARSE[storage], what)
    if storage != 0:
        raise cursor.file.damage(f"{what} has the unknown storage {storage}")
    rank = cursor.number("i", what)
    is_missing = rank == -1 if has_scalars else rank == 0
    if is_missing:
        return _without_array(cursor)
    return _dense_entry(cursor, _sizes(cursor, rank, what), what)


def _without_array(cursor: Cursor) -> _Entry:
    return _Entry((), _NO_NUMBERS, cursor.at, "has no numbers: it was saved before it was initialised")


def _dense_entry(cursor: Cursor, shape: tuple[int, ...], what: str) -> _Entry:
    dtype = _device_and_dtype(cursor, what)
    return _Entry(shape, dtype, _skip_numbers(cursor, shape, dtype, what))


def _sparse_entry(cursor: Cursor, sparse: _Sparse, what: str) -> _Entry:
    """Pass over a sparse array: its stored numbers, and the arrays that say where they belong."""
    stored_shape = _shape(cursor, what)
    shape = _shape(cursor, what)
    problem = f"is a sparse array ({sparse.name}): save it as a dense one, `array.tostype('default')`"
    if not shape:
        return _without_array(cursor)
    dtype = _device_and_dtype(cursor, what)
    indices = [(_dtype(cursor, what), _shape(cursor, what)) for _ in range(sparse.index_count)]
    start = _skip_numbers(cursor, stored_shape, dtype, what)
    for index_dtype, index_shape in indices:
        _skip_numbers(cursor, index_shape, index_dtype, what)
    return _Entry(shape, dtype, start, problem)


def _shape(cursor: Cursor, what: str) -> tuple[int, ...]:
    return _sizes(cursor, cursor.number("i", what), what)


def _sizes(cursor: Cursor, rank: int, what: str) -> tuple[int, ...]:
    _check_rank(cursor, rank, what)
    return cursor.numbers("q", rank, what)


def _check_rank(cursor: Cursor, rank: int, what: str) -> None:
    if not 0 <= rank <= 64:
        raise cursor.file.damage(f"{what} has {rank:,} axes")


def _device_and_dtype(cursor: Cursor, what: str) -> np.dtype:
    cursor.numbers("i", 2, what)
    return _dtype(cursor, what)


def _dtype(cursor: Cursor, what: str) -> np.dtype:
    code = cursor.number("i", what)
    if code not in _DTYPES:
        raise cursor.file.damage(f"{what} has the unknown dtype {code}")
    return _DTYPES[code]


def _skip_numbers(cursor: Cursor, shape: tuple[int, ...], dtype: np.dtype, what: str) -> int:
    problem = shape_problem(shape, dtype)
    if problem:
        raise cursor.file.damage(f"{what} has {problem}")
    return cursor.skip(prod(shape) * dtype.itemsize, what)


# ------------------------------------------------------------------------------- writing


def write_mxnet(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Write a `.params` file, which `load_parameters` of Gluon and `mx.nd.load` read.

    MXNet reads a file with an array without axes, or with an axis of size 0, only after `mx.npx.set_np()`.

    Args:
        path: the file; an old one is replaced at once.
        arrays: by MXNet's names: `0.weight` for a file of `save_parameters`, `arg:dense0_weight` for one of `export`.

    Raises:
        FileError: MXNet lacks a dtype, or the path is none of a file.
        OSError: the file cannot be written.
    """
    place = target_path(path)
    check_arrays(arrays, _CODES, "MXNet")
    needs_numpy_semantics = any(array.size == 0 or array.ndim == 0 for array in arrays.values())
    version = _V3 if needs_numpy_semantics else _V2  # MXNet refuses both in one file
    with writing(place) as file:
        file.bytes(struct.pack("<3Q", LIST_MARK, 0, len(arrays)))
        for array in arrays.values():
            file.bytes(_header(array, version))
            file.numbers(array)
        file.bytes(struct.pack("<Q", len(arrays)))
        for name in arrays:
            encoded = name.encode()
            file.bytes(struct.pack("<Q", len(encoded)) + encoded)


def _header(array: np.ndarray, version: int) -> bytes:
    rank = array.ndim
    code = _CODES[array.dtype.newbyteorder("=")]
    return struct.pack(f"<Iii{rank}qiii", version, 0, rank, *array.shape, *_CPU, code)
