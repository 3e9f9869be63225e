"""Read and write TensorFlow's checkpoints, an index and shards of data, with NumPy alone; a SavedModel's variables are one.

The index is a sorted table: key -> a message BundleEntryProto, in which are the dtype (1), the shape (2), the shard (3), the offset (4),
the size (5) and the checksum (6) of a tensor, and slices (7) if it is stored in parts. The empty key has the number of shards (1)
and the byte order (2).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import ml_dtypes
import numpy as np

from .._errors import FileError
from .._words import listed, quoted
from .crc32c import masked_crc32c
from .draft_writing import check_arrays, target_path, writing
from .file_bytes import FileBytes
from .foreign_file import ForeignArray
from .placed_arrays import Place, PlacedFile, shape_problem
from .protobuf_fields import bytes_field, fields, fixed32_field, number_field
from .sorted_table import table_bytes, table_entries
from .tensorflow_objects import object_graph, text_tensor

INDEX_SUFFIX = ".index"
_VALUE_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_SLICE_MARK = b"\0"
"""The keys of the parts of tensors that are stored in slices begin with it."""
_MOST_SHARDS = 100_000
_TEXT = 7

_DTYPES = {
    code: np.dtype(kind)
    for code, kind in {
        1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 8: "complex64", 9: "int64", 10: "bool",
        14: ml_dtypes.bfloat16, 17: "uint16", 18: "complex128", 19: "float16", 22: "uint32", 23: "uint64",
        24: ml_dtypes.float8_e5m2, 25: ml_dtypes.float8_e4m3fn,
    }.items()
}  # fmt: skip
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
_QUANTISED = {11: "qint8", 12: "quint8", 13: "qint32", 15: "qint16", 16: "quint16"}
_NO_NUMBERS = np.dtype(np.void)


@dataclass(frozen=True)
class _Entry:
    """What the index says of a tensor."""

    dtype: int = 0
    shape: tuple[int, ...] = ()
    shard: int = 0
    offset: int = 0
    size: int = 0
    checksum: int = 0
    is_in_slices: bool = False


# ------------------------------------------------------------------------------- reading


class TensorflowFile(PlacedFile):
    """An open checkpoint, whose arrays are compared with their checksums when they are read whole."""

    def __init__(
        self,
        path: str,
        arrays: Mapping[str, ForeignArray],
        places: Mapping[str, Sequence[Place]],
        *,
        files: Sequence[FileBytes],
        checksums: Mapping[str, int],
    ):
        super().__init__(path, "TensorFlow checkpoint", arrays, places, files=files)
        self._checksums = checksums

    def has_checksum(self, name: str) -> bool:
        return True  # the index has one of each array

    def _read(self, array: ForeignArray) -> np.ndarray:
        numbers = super()._read(array)
        if not self.verify:
            return numbers
        is_big_endian = any(place.is_big_endian for place in self._places[array.name])
        stored = numbers.byteswap() if is_big_endian else numbers
        if masked_crc32c(stored) != self._checksums[array.name]:
            raise self.damage(array, "its bytes are not what its checksum says")
        return numbers


def open_tensorflow(path: str) -> TensorflowFile:
    """Open a checkpoint of TensorFlow by its index, by the path that it was saved to, or by the folder of a SavedModel.

    Names are TensorFlow's keys without `/.ATTRIBUTES/VARIABLE_VALUE`: `model/layer_with_weights-0/kernel`.

    Raises:
        FileError: the index is damaged or compressed, or a shard is missing or too short.
    """
    index = checkpoint_index(path)
    if index is None:
        raise FileError(f"cannot read {quoted(path)}: no checkpoint of TensorFlow, with an .index, is there")
    file = FileBytes(index)
    try:
        entries = dict(table_entries(file.bytes(0, file.size, "the index")))
        header = _header(entries.pop(b"", b""))
        described = {_text(key): _entry(value) for key, value in entries.items() if not key.startswith(_SLICE_MARK)}
    except ValueError as error:
        raise file.damage(
            f"it is not a whole index of a checkpoint of TensorFlow ({file.size:,} bytes): {error}"
        ) from error
    finally:
        file.close()
    described.pop(_OBJECT_GRAPH, None)
    return _opened(index, header, {_short_name(name, described): entry for name, entry in described.items()})


def checkpoint_index(path: str) -> str | None:
    """Find the index of the checkpoint at a path; None if there is none."""
    if os.path.isdir(path):
        return _index_in_folder(Path(path))
    beginning = path.removesuffix(INDEX_SUFFIX)
    head, is_shard, _ = beginning.rpartition(".data-")
    index = (head if is_shard else beginning) + INDEX_SUFFIX
    return index if os.path.isfile(index) else None


def _index_in_folder(folder: Path) -> str | None:
    """The index of a SavedModel, of the latest checkpoint by the file `checkpoint`, or the only one in a folder."""
    saved_model = folder / "variables" / "variables.index"
    if saved_model.is_file():
        return str(saved_model)
    latest = _latest(folder / "checkpoint")
    if latest is not None and (folder / f"{latest}{INDEX_SUFFIX}").is_file():
        return str(folder / f"{latest}{INDEX_SUFFIX}")
    found = sorted(folder.glob(f"*{INDEX_SUFFIX}"))
    return str(found[0]) if len(found) == 1 else None


def _latest(file: Path) -> str | None:
    """The latest checkpoint of a folder, as TensorFlow notes it: `model_checkpoint_path: "ckpt-3"`."""
    if not file.is_file():
        return None
    with open(file, encoding="utf-8", errors="replace") as lines:
        first = lines.readline(10_000)
    key, _, value = first.partition(":")
    name = value.strip().strip('"')
    return name if key.strip() == "model_checkpoint_path" and name else None


@dataclass(frozen=True)
class _Bundle:
    """The header of an index: the number of shards, and whether their numbers are big-endian."""

    shard_count: int
    is_big_endian: bool


def _header(message: bytes) -> _Bundle:
    found = dict(fields(message))
    count = found.get(1, 0)
    if not isinstance(count, int) or not 0 < count <= _MOST_SHARDS:
        raise ValueError("it does not say how many shards there are")
    return _Bundle(count, found.get(2, 0) == 1)


def _text(key: bytes) -> str:
    try:
        return key.decode()
    except UnicodeDecodeError:
        raise ValueError("a name is no UTF-8") from None


def _entry(message: bytes) -> _Entry:
    numbers: dict[int, int] = {}
    shape: tuple[int, ...] = ()
    is_in_slices = False
    for number, value in fields(message):
        if isinstance(value, int):
            numbers[number] = value
        elif number == 2:
            shape = _shape(value)
        elif number == 7:
            is_in_slices = True
    dtype, shard, offset, size, checksum = (numbers.get(number, 0) for number in (1, 3, 4, 5, 6))
    return _Entry(dtype, shape, shard, offset, size, checksum, is_in_slices)


def _shape(message: bytes) -> tuple[int, ...]:
    sizes: list[int] = []
    for number, value in fields(message):
        if number == 2 and isinstance(value, bytes):  # an axis, in which its size is the first field
            size = dict(fields(value)).get(1, 0)
            sizes.append(size if isinstance(size, int) else -1)
    return tuple(sizes)


def _short_name(name: str, names: Mapping[str, object]) -> str:
    """A name without TensorFlow's suffix of variables, unless another has that name already."""
    short = name.removesuffix(_VALUE_SUFFIX)
    return name if not short or short in names else short


def _opened(index: str, header: _Bundle, entries: Mapping[str, _Entry]) -> TensorflowFile:
    beginning = index.removesuffix(INDEX_SUFFIX)
    shards = {entry.shard for entry in entries.values()}
    if any(shard >= header.shard_count for shard in shards):
        raise FileError(f"cannot read {quoted(index)}: a tensor lies in a shard that there is not", is_damage=True)
    paths = {shard: _shard_path(beginning, shard, header.shard_count) for shard in sorted(shards)}
    missing = [path for path in paths.values() if not os.path.exists(path)]
    if missing:
        raise FileError(f"cannot read {quoted(index)}: of its shards {listed(missing)} are not there")
    files: dict[int, FileBytes] = {}
    try:
        for shard, path in paths.items():
            files[shard] = FileBytes(path)
        arrays = {name: _described(index, name, entry, files[entry.shard]) for name, entry in entries.items()}
    except BaseException:
        for file in files.values():
            file.close()
        raise
    places = {
        name: [Place(files[entry.shard], entry.offset, entry.size, header.is_big_endian)]
        for name, entry in entries.items()
    }
    checksums = {name: entry.checksum for name, entry in entries.items()}
    return TensorflowFile(index, arrays, places, files=list(files.values()), checksums=checksums)


def _shard_path(beginning: str, shard: int, count: int) -> str:
    return f"{beginning}.data-{shard:05d}-of-{count:05d}"


def _described(index: str, name: str, entry: _Entry, file: FileBytes) -> ForeignArray:
    dtype = _DTYPES.get(entry.dtype, _NO_NUMBERS)
    if entry.is_in_slices:
        return ForeignArray(
            name, entry.shape, dtype, "is stored in slices (a partitioned variable), which are not joined"
        )
    if entry.dtype not in _DTYPES:
        return ForeignArray(name, entry.shape, dtype, _unknown_dtype(entry.dtype))
    problem = shape_problem(entry.shape, dtype)
    if problem or prod(entry.shape) * dtype.itemsize != entry.size:
        raise FileError(
            f"cannot read {quoted(index)}: {quoted(name)} has {problem or f'the shape {entry.shape}'}, and {entry.size:,} bytes",
            is_damage=True,
        )
    file.check_range(entry.offset, entry.size, f"the array {quoted(name)}")
    return ForeignArray(name, entry.shape, dtype)


def _unknown_dtype(code: int) -> str:
    if code == _TEXT:
        return "holds text"
    if code in _QUANTISED:
        return f"is a quantised tensor ({_QUANTISED[code]})"
    return f"has TensorFlow's dtype {code}, which holds no numbers that NumPy has"


# ------------------------------------------------------------------------------- writing


def write_tensorflow(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Write a checkpoint of TensorFlow, which `tf.train.Checkpoint.read` and `tf.train.load_checkpoint` read.

    Two files are written, `PATH.index` and `PATH.data-00000-of-00001`; the index, which is the checkpoint, last.

    Args:
        path: the path as TensorFlow takes it, with or without `.index`.
        arrays: each `/` in a name leads to an attribute of an object: `Checkpoint(model=model).read` looks for
            `model/layer_with_weights-0/kernel`.

    Raises:
        FileError: TensorFlow lacks a dtype, or the path is none of a file.
        OSError: a file cannot be written.
    """
    beginning = os.fspath(path).removesuffix(INDEX_SUFFIX)
    data, index = target_path(_shard_path(beginning, 0, 1)), target_path(beginning + INDEX_SUFFIX)
    check_arrays(arrays, _CODES, "TensorFlow")
    keys = {name: f"{name}{_VALUE_SUFFIX}" for name in arrays}
    entries: dict[bytes, bytes] = {b"": number_field(1, 1) + bytes_field(3, number_field(1, 1))}
    with writing(data) as file:
        for name, array in arrays.items():
            native = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("="), copy=False)
            code, checksum = _CODES[native.dtype], masked_crc32c(native)
            entries[keys[name].encode()] = _entry_bytes(code, array.shape, file.at, native.nbytes, checksum)
            file.numbers(native)
        graph, checksum = text_tensor(object_graph(keys.items()))
        entries[_OBJECT_GRAPH.encode()] = _entry_bytes(_TEXT, (), file.at, len(graph), checksum)
        file.bytes(graph)
    with writing(index) as file:
        file.bytes(table_bytes(entries))


def _entry_bytes(code: int, shape: tuple[int, ...], offset: int, size: int, checksum: int) -> bytes:
    axes = b"".join(bytes_field(2, number_field(1, length)) for length in shape)
    place = number_field(4, offset) + number_field(5, size)
    return number_field(1, code) + bytes_field(2, axes) + place + fixed32_field(6, checksum)
