"""Read GGUF, the format of llama.cpp: its header with NumPy alone, quantised tensors as float32 by the package gguf; write floats.

The format, little-endian: `GGUF`, u32 version, u64 number of tensors, u64 number of values of metadata; those, each a name, a u32 kind
and the value; for each tensor its name, a u32 rank, u64 sizes with the fastest axis first, a u32 kind of number, and a u64 offset from
the first multiple of the alignment behind all that. A text is a u64 length and its bytes.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from types import ModuleType

import ml_dtypes
import numpy as np

from .._errors import FileError
from .._stored.leaf_parts import part_of, read_block
from .._words import listed, quoted
from .draft_writing import check_arrays, target_path, writing
from .file_bytes import Cursor, FileBytes, open_described
from .foreign_file import ForeignArray, Index
from .placed_arrays import Place, PlacedFile, shape_problem

MARK = b"GGUF"
_VERSIONS = (2, 3)
_ALIGNMENT_KEY = "general.alignment"
_ALIGNMENT = 32
_MOST_AXES = 4
_LONGEST_NAME = 63
"""Bytes of a name in llama.cpp."""
_MOST_AT_ONCE = 1 << 14
"""Blocks that are made floats at a time: the package gguf takes several times the memory of its result."""

_ALL_GAPS = 1 << 62

_DTYPES = {
    code: np.dtype(kind)
    for code, kind in {
        0: "float32", 1: "float16", 24: "int8", 25: "int16", 26: "int32", 27: "int64", 28: "float64", 30: ml_dtypes.bfloat16,
    }.items()
}  # fmt: skip
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
_MOST_CODE = 1000

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""The kinds of numbers in metadata, as the codes of `struct`."""
_TEXT, _LIST = 8, 9
_MOST_LEVELS = 8


@dataclass(frozen=True)
class _Tensor:
    """A tensor as the header describes it, its shape in NumPy's order."""

    name: str
    shape: tuple[int, ...]
    code: int
    offset: int


# ------------------------------------------------------------------------------- reading


class GgufFile(PlacedFile):
    """An open GGUF file; quantised tensors are float32, computed when they are read."""

    def __init__(
        self,
        file: FileBytes,
        arrays: Mapping[str, ForeignArray],
        places: Mapping[str, Sequence[Place]],
        *,
        quantised: Mapping[str, int],
        metadata: Mapping[str, str],
    ):
        super().__init__(file.path, "GGUF", arrays, places, files=[file], metadata=metadata)
        self._quantised = quantised

    def _part(self, array: ForeignArray, index: Index) -> np.ndarray:
        if array.name not in self._quantised:
            return super()._part(array, index)
        gguf = gguf_module()
        kind, block, block_bytes = self._blocks(gguf, array)
        place = self._places[array.name][0]
        what = f"the array {quoted(array.name)}"
        # before memory is taken: a damaged file may state any shape
        place.file.check_range(place.start, prod(array.shape) // block * block_bytes, what)

        def dequantised(first: int, count: int) -> np.ndarray:
            low, high = first // block, -(-(first + count) // block)
            numbers = np.empty((high - low) * block, np.float32)
            for start in range(low, high, _MOST_AT_ONCE):
                some = min(_MOST_AT_ONCE, high - start)
                packed = place.file.memory(place.start + start * block_bytes, some * block_bytes, what)
                at = (start - low) * block
                floats = gguf.quants.dequantize(packed.reshape(some, block_bytes), kind)
                numbers[at : at + some * block] = floats.reshape(-1)
            skipped = first - low * block
            return numbers[skipped : skipped + count]

        def fill(runs: Sequence[tuple[int, np.ndarray]]) -> None:
            itemsize = array.dtype.itemsize
            for start, memory in runs:
                memory[:] = dequantised(start // itemsize, memory.size // itemsize).view(np.uint8)

        part = part_of(index, array.shape)
        # numbers between two runs are computed with them, as they are in the same blocks
        return read_block(part.ranges, array.shape, array.dtype, fill, gap=_ALL_GAPS)[part.index]

    def _blocks(self, gguf: ModuleType, array: ForeignArray) -> tuple[object, int, int]:
        """How a tensor is quantised: the kind, and the numbers and the bytes of a block."""
        code = self._quantised[array.name]
        try:
            kind = gguf.GGMLQuantizationType(code)
            block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
            gguf.quants.dequantize(np.zeros((1, block_bytes), np.uint8), kind)  # raises where it cannot
        except (ValueError, KeyError, NotImplementedError) as error:
            raise FileError(
                f"cannot read {quoted(array.name)} in {quoted(self.path)}: the package gguf does not dequantise it: {error}"
            ) from error
        if not array.shape or array.shape[-1] % block:
            raise FileError(
                f"cannot read {quoted(array.name)} in {quoted(self.path)}: its rows of {array.shape[-1:]} are no blocks of {block}",
                is_damage=True,
            )
        return kind, block, block_bytes


def gguf_module() -> ModuleType:
    """Import the package gguf.

    Raises:
        FileError: it is not installed.
    """
    try:
        import gguf
        import gguf.quants
    except ImportError:
        raise FileError("quantised tensors of GGUF need the package gguf: pip install 'ptree-jax[gguf]'") from None
    return gguf


def open_gguf(path: str) -> GgufFile:
    """Open a GGUF file; shapes are in NumPy's order, the reverse of that in the file.

    Raises:
        FileError: the file is damaged, or of a version that is not read.
    """
    return open_described(path, _opened)


def _opened(file: FileBytes) -> GgufFile:
    cursor = Cursor(file)
    if cursor.bytes(4, "the header") != MARK:
        raise file.damage("it is no GGUF file")
    version = cursor.number("I", "the header")
    if version not in _VERSIONS:
        is_swapped = version.to_bytes(4, "little") in [known.to_bytes(4, "big") for known in _VERSIONS]
        reason = "it is big-endian" if is_swapped else f"version {version} of GGUF"
        raise FileError(f"cannot read {quoted(file.path)}: {reason}, which is not read")
    tensor_count, value_count = cursor.numbers("Q", 2, "the header")
    # a tensor takes 24 bytes at least, a value 13: a damaged count must not make a loop without end
    file.check_range(cursor.at, 24 * tensor_count + 13 * value_count, "the header")
    metadata = dict(_named_value(cursor) for _ in range(value_count))
    tensors = [_tensor(cursor) for _ in range(tensor_count)]
    alignment = metadata.get(_ALIGNMENT_KEY, str(_ALIGNMENT))
    if not alignment.isdigit() or int(alignment) == 0:
        raise file.damage(f"the alignment {alignment}")
    start = cursor.at + -cursor.at % int(alignment)
    return _file_of(file, start, tensors, metadata)


def _file_of(file: FileBytes, start: int, tensors: list[_Tensor], metadata: Mapping[str, str]) -> GgufFile:
    arrays: dict[str, ForeignArray] = {}
    places: dict[str, list[Place]] = {}
    for tensor in tensors:
        dtype = _DTYPES.get(tensor.code, np.dtype(np.float32))
        problem = shape_problem(tensor.shape, dtype)
        if tensor.name in arrays:
            raise file.damage(f"several tensors have the name {quoted(tensor.name)}")
        if problem or tensor.code > _MOST_CODE:
            raise file.damage(f"{quoted(tensor.name)} has {problem or f'numbers of the kind {tensor.code}'}")
        nbytes = prod(tensor.shape) * dtype.itemsize if tensor.code in _DTYPES else 0
        file.check_range(start + tensor.offset, nbytes, f"the array {quoted(tensor.name)}")
        arrays[tensor.name] = ForeignArray(tensor.name, tensor.shape, dtype)
        places[tensor.name] = [Place(file, start + tensor.offset, nbytes)]
    quantised = {tensor.name: tensor.code for tensor in tensors if tensor.code not in _DTYPES}
    return GgufFile(file, arrays, places, quantised=quantised, metadata=metadata)


def _named_value(cursor: Cursor) -> tuple[str, str]:
    name = _text(cursor)
    return name, _value(cursor, cursor.number("I", "a value"), _MOST_LEVELS)


def _value(cursor: Cursor, kind: int, levels: int) -> str:
    """Read a value of the metadata as text; of a list the number of its values."""
    if kind == _TEXT:
        return _text(cursor)
    if kind in _SCALARS:
        code = f"<{_SCALARS[kind]}"
        return str(struct.unpack(code, cursor.bytes(struct.calcsize(code), "a value"))[0])
    if kind != _LIST or levels == 0:
        raise cursor.file.damage(f"a value of the metadata has the unknown kind {kind}")
    inner, count = cursor.number("I", "a list"), cursor.number("Q", "a list")
    if inner in _SCALARS:
        cursor.skip(count * struct.calcsize(f"<{_SCALARS[inner]}"), "a list")
        return f"{count:,} values"
    cursor.file.check_range(cursor.at, 8 * count, "a list")
    for _ in range(count):
        _value(cursor, inner, levels - 1)
    return f"{count:,} values"


def _text(cursor: Cursor) -> str:
    return cursor.text(cursor.number("Q", "a text"), "a text")


def _tensor(cursor: Cursor) -> _Tensor:
    name = _text(cursor)
    rank = cursor.number("I", "a tensor")
    if rank > _MOST_AXES:
        raise cursor.file.damage(f"{quoted(name)} has {rank:,} axes")
    sizes = cursor.numbers("Q", rank, "a tensor")
    code = cursor.number("I", "a tensor")
    return _Tensor(name, tuple(reversed(sizes)), code, cursor.number("Q", "a tensor"))


# ------------------------------------------------------------------------------- writing


def write_gguf(
    path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], *, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a GGUF file with numbers as they are: f32, f16, bf16, f64 or integers with a sign; nothing is quantised.

    Args:
        path: the file; an old one is replaced at once.
        arrays: by llama.cpp's names, `blk.0.attn_q.weight`, of at most 63 bytes and four axes; shapes are in NumPy's order.
        metadata: texts by their keys; llama.cpp needs those of its architecture besides.

    Raises:
        FileError: GGUF lacks a dtype, or a name or a shape is too long for it.
        OSError: the file cannot be written.
    """
    place = target_path(path)
    check_arrays(arrays, _CODES, "GGUF")
    unfit = [name for name, array in arrays.items() if len(name.encode()) > _LONGEST_NAME or array.ndim > _MOST_AXES]
    if unfit:
        raise FileError(
            f"GGUF has names of at most {_LONGEST_NAME} bytes, and at most {_MOST_AXES} axes; got {listed(unfit)}"
        )
    texts = {"general.architecture": "unknown", **(metadata or {})}
    header = MARK + struct.pack("<IQQ", 3, len(arrays), len(texts))
    header += b"".join(_text_bytes(key) + struct.pack("<I", _TEXT) + _text_bytes(text) for key, text in texts.items())
    offset = 0
    for name, array in arrays.items():
        code = _CODES[array.dtype.newbyteorder("=")]
        sizes = struct.pack(f"<I{array.ndim}Q", array.ndim, *reversed(array.shape))
        header += _text_bytes(name) + sizes + struct.pack("<IQ", code, offset)
        offset += array.nbytes + -array.nbytes % _ALIGNMENT
    with writing(place) as file:
        file.bytes(header)
        for array in arrays.values():
            file.bytes(bytes(-file.at % _ALIGNMENT))
            file.numbers(array)
        file.bytes(bytes(-file.at % _ALIGNMENT))


def _text_bytes(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded
