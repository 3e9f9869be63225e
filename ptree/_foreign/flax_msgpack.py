"""Read and write the MessagePack files of Flax, of `flax.serialization.to_bytes`, with NumPy alone.

An array is an extension with the code 1 around a list: its shape, the name of its dtype, and its bytes; a NumPy number
is one with the code 3. A complex number of Python has the code 2, around the list of its two parts. An array of more than
2**30 bytes is a map: `__msgpack_chunked_array__`, its `shape`, and `chunks` of the flat array.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

import ml_dtypes
import numpy as np

from .._errors import FileError
from .._words import listed, quoted
from .draft_writing import DraftWriter, check_arrays, target_path, writing
from .file_bytes import Cursor, FileBytes, open_described
from .foreign_file import ForeignArray
from .msgpack_items import MOST_LEVELS, Binary, Extension, Value, list_length, scalar, walk
from .placed_arrays import MOST_AXES, Place, PlacedFile, shape_problem

_ARRAY, _COMPLEX, _NUMBER = 1, 2, 3
_CHUNKED = "__msgpack_chunked_array__"
_MOST_CHUNK = 1 << 30
"""Bytes of an array in one piece: Flax splits larger ones, as MessagePack ends at 2**32."""

_NUMPY_NAMES = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64", "complex64", "complex128",
)  # fmt: skip
_ML_NAMES = (
    "bfloat16", "int2", "int4", "uint2", "uint4", "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn",
    "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn",
)  # fmt: skip
_DTYPES = {name: np.dtype(name) for name in _NUMPY_NAMES}
_DTYPES |= {name: np.dtype(getattr(ml_dtypes, name)) for name in _ML_NAMES if hasattr(ml_dtypes, name)}

Keys: TypeAlias = tuple[str, ...]


@dataclass(frozen=True)
class _Stored:
    """An array in the file: its description without a name, and where its bytes are, or its value."""

    shape: tuple[int, ...]
    dtype: np.dtype
    places: Sequence[Place] = ()
    value: np.ndarray | None = None
    problem: str = ""


# ------------------------------------------------------------------------------- reading


def open_msgpack(path: str) -> PlacedFile:
    """Open a MessagePack file of Flax; names are its keys, joined by `/`, and numbers of Python are arrays without axes.

    Texts are metadata. Empty maps and `None` have no name.

    Raises:
        FileError: the file is damaged, or holds no map, or two arrays have one name.
    """
    return open_described(path, _opened)


def _opened(file: FileBytes) -> PlacedFile:
    cursor = Cursor(file)
    items = list(walk(cursor))
    if cursor.at < file.size:
        raise file.damage(f"{file.size - cursor.at:,} bytes follow its end")
    if items and not items[0][0]:
        raise file.damage("it holds a single value, and no map of arrays")
    whole, split = _grouped(items)
    texts = {_name(keys): value for keys, value in whole.items() if isinstance(value, str)}
    stored = {
        _name(keys): _stored(file, value)
        for keys, value in whole.items()
        if value is not None and not isinstance(value, str)
    }
    stored |= {_name(keys): _joined_chunks(file, parts) for keys, parts in split.items()}
    part_count = sum(map(len, split.values()))
    named_count = sum(value is not None for value in whole.values()) + len(split)
    if len(whole) + part_count < len(items) or len(texts) + len(stored) < named_count:
        raise file.damage("several arrays have the same name, once their keys are joined by '/'")
    order = list(dict.fromkeys(_name(_array_of(keys, split)) for keys, _ in items))
    return _file_of(file, {name: stored[name] for name in order if name in stored}, texts)


Parts: TypeAlias = dict[Keys, Value]


def _grouped(items: Sequence[tuple[Keys, Value]]) -> tuple[dict[Keys, Value], dict[Keys, Parts]]:
    """Part values that are whole from the parts of arrays that were split."""
    split: dict[Keys, Parts] = {keys[:-1]: {} for keys, _ in items if keys[-1] == _CHUNKED}
    whole: dict[Keys, Value] = {}
    for keys, value in items:
        around = _array_of(keys, split)
        if around in split:
            split[around][keys[len(around) :]] = value
        else:
            whole[keys] = value
    return whole, split


def _array_of(keys: Keys, split: Mapping[Keys, Parts]) -> Keys:
    """The keys of the array that a value is a part of: its own, unless it lies in the map of an array that was split."""
    for around in (keys[:-1], keys[:-2]):  # the mark, and a size or a chunk
        if around in split:
            return around
    return keys


def _name(keys: Keys) -> str:
    return "/".join(keys)


def _file_of(file: FileBytes, stored: Mapping[str, _Stored], texts: Mapping[str, str]) -> PlacedFile:
    arrays = {name: ForeignArray(name, item.shape, item.dtype, item.problem) for name, item in stored.items()}
    places = {name: item.places for name, item in stored.items()}
    values = {name: item.value for name, item in stored.items() if item.value is not None}
    return PlacedFile(file.path, "Flax msgpack", arrays, places, files=[file], values=values, metadata=texts)


def _stored(file: FileBytes, value: Value) -> _Stored:
    if isinstance(value, Extension):
        return _of_extension(file, value)
    if isinstance(value, Binary):
        return _Stored((), np.dtype(np.void), problem="holds bytes and no numbers")
    number = np.asarray(value)
    if number.dtype.hasobject:
        raise file.damage("a number has more than 64 bits")
    return _Stored((), number.dtype, value=number)


def _of_extension(file: FileBytes, extension: Extension) -> _Stored:
    cursor = Cursor(file, extension.start)
    if extension.code == _COMPLEX:
        if list_length(cursor) != 2:
            raise file.damage("a complex number has two parts")
        number = np.asarray(complex(_real(cursor), _real(cursor)))
        return _Stored((), number.dtype, value=number)
    if extension.code not in (_ARRAY, _NUMBER):
        return _Stored((), np.dtype(np.void), problem=f"is an extension of MessagePack with the code {extension.code}")
    stored = _array(cursor)
    if cursor.at != extension.start + extension.length:
        raise file.damage("an array has another length than its bytes")
    return stored


def _real(cursor: Cursor) -> float:
    value = scalar(cursor)
    if not isinstance(value, (int, float)):
        raise cursor.file.damage("a part of a complex number is no number")
    return float(value)


def _array(cursor: Cursor) -> _Stored:
    if list_length(cursor) != 3:
        raise cursor.file.damage("an array is a list of its shape, its dtype and its bytes")
    rank = list_length(cursor)
    if rank > MOST_AXES:
        raise cursor.file.damage(f"an array has {rank:,} axes")
    sizes = [scalar(cursor) for _ in range(rank)]
    name = scalar(cursor)
    content = scalar(cursor)
    if isinstance(name, Binary):
        name = cursor.file.bytes(name.start, min(name.length, 100), "a dtype").decode("ascii", "backslashreplace")
    shape = _shape(cursor.file, sizes)
    dtype = _DTYPES.get(str(name))
    if dtype is None:
        return _Stored(shape, np.dtype(np.void), problem=f"has the dtype {quoted(name)}, which is not known")
    problem = shape_problem(shape, dtype)
    if problem:
        raise cursor.file.damage(f"an array has {problem}")
    nbytes = prod(shape) * dtype.itemsize
    if not isinstance(content, Binary) or content.length != nbytes:
        raise cursor.file.damage(f"an array of the shape {shape} and {dtype.name} has no {nbytes:,} bytes")
    return _Stored(shape, dtype, [Place(cursor.file, content.start, nbytes)])


def _shape(file: FileBytes, sizes: Sequence[Value]) -> tuple[int, ...]:
    if not all(isinstance(size, int) and not isinstance(size, bool) and size >= 0 for size in sizes):
        raise file.damage("the shape of an array is not of numbers")
    return tuple(int(size) for size in sizes if isinstance(size, int))


def _joined_chunks(file: FileBytes, parts: Parts) -> _Stored:
    """An array that was split into chunks of the flat array."""
    shape = _shape(file, _numbered(parts, "shape"))
    chunks = [_stored(file, value) for value in _numbered(parts, "chunks")]
    dtypes = {chunk.dtype for chunk in chunks}
    is_whole = len(dtypes) == 1 and all(chunk.places for chunk in chunks)
    if not is_whole or sum(prod(chunk.shape) for chunk in chunks) != prod(shape):
        raise file.damage("the chunks of an array do not make it up")
    places = [place for chunk in chunks for place in chunk.places]
    return _Stored(shape, dtypes.pop(), places)


def _numbered(parts: Parts, key: str) -> list[Value]:
    """The values under the keys 0, 1, ... of a map."""
    values = {keys[1]: value for keys, value in parts.items() if keys[0] == key and len(keys) == 2}
    return [values[str(at)] for at in range(len(values)) if str(at) in values]


# ------------------------------------------------------------------------------- writing


def write_msgpack(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Write a MessagePack file of Flax, which `flax.serialization.from_bytes` and `msgpack_restore` read.

    Args:
        path: the file; an old one is replaced at once.
        arrays: each `/` in a name makes a level of dicts, as in Flax's parameters.

    Raises:
        FileError: an array lies at the name of a dict, or Flax lacks a dtype.
        OSError: the file cannot be written.
    """
    place = target_path(path)
    check_arrays(arrays, _DTYPES.values(), "Flax")
    deep = [name for name in arrays if name.count("/") >= MOST_LEVELS]
    if deep:
        raise FileError(f"a name has at most {MOST_LEVELS} segments: {listed(deep)}")
    folders = {name[:at] for name in arrays for at, letter in enumerate(name) if letter == "/"}
    both = folders & arrays.keys()
    if both:
        raise FileError(f"at these names there are both an array and others below it: {listed(sorted(both))}")
    levels = _nested(arrays)
    with writing(place) as file:
        _write_level(file, levels)


Level: TypeAlias = "dict[str, Level | np.ndarray]"


def _nested(arrays: Mapping[str, np.ndarray]) -> Level:
    root: Level = {}
    for name, array in arrays.items():
        *folders, last = name.split("/")
        level = root
        for folder in folders:
            inner = level.setdefault(folder, {})
            assert isinstance(inner, dict)  # no array lies at the name of a dict
            level = inner
        level[last] = array
    return root


def _write_level(file: DraftWriter, level: Level) -> None:
    file.bytes(_map_header(len(level)))
    for key, value in level.items():
        file.bytes(_text(key))
        if isinstance(value, dict):
            _write_level(file, value)
        elif value.nbytes > _MOST_CHUNK:
            _write_chunked(file, value)
        else:
            _write_array(file, value)


def _write_chunked(file: DraftWriter, array: np.ndarray) -> None:
    at_once = _MOST_CHUNK // array.dtype.itemsize
    flat = np.ascontiguousarray(array).reshape(-1)
    chunks = [flat[first : first + at_once] for first in range(0, flat.size, at_once)]
    file.bytes(_map_header(3) + _text(_CHUNKED) + b"\xc3" + _text("shape") + _map_header(array.ndim))
    for axis, size in enumerate(array.shape):
        file.bytes(_text(str(axis)) + _integer(size))
    file.bytes(_text("chunks") + _map_header(len(chunks)))
    for at, chunk in enumerate(chunks):
        file.bytes(_text(str(at)))
        _write_array(file, chunk)


def _write_array(file: DraftWriter, array: np.ndarray) -> None:
    shape = struct.pack(">BH", 0xDC, array.ndim) + b"".join(map(_integer, array.shape))
    content = struct.pack(">BI", 0xC6, array.nbytes)
    inner = b"\x93" + shape + _text(array.dtype.name) + content
    file.bytes(struct.pack(">BIb", 0xC9, len(inner) + array.nbytes, _ARRAY) + inner)
    file.numbers(array)


def _map_header(count: int) -> bytes:
    return struct.pack(">BI", 0xDF, count)


def _integer(value: int) -> bytes:
    return struct.pack(">BQ", 0xCF, value)


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack(">BI", 0xDB, len(encoded)) + encoded
