"""write_torch: write arrays as a file that torch.load reads with weights_only=True, without PyTorch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from struct import pack
from typing import Literal

import numpy as np

from .._errors import FileError
from .._stored.drafts import draft, sweep
from .._stored.locations import checked_path, refuse_other_kinds
from .._words import quoted, short_dtype
from .torch_dtypes import STORAGE_NAMES, TORCH_NAMES
from .zip_writer import ZipWriter

_ALIGNMENT = 64
"""Bytes: PyTorch's, from which on NumPy and JAX on a CPU use mapped numbers without a copy."""
_FOLDER = "archive"
_DEEPEST = 100  # of nested dicts

_Nested = dict[str, "_Nested | _Stored"]


@dataclass(frozen=True)
class _Stored:
    """A tensor whose numbers have been written."""

    key: str
    dtype: np.dtype
    shape: tuple[int, ...]


def write_torch(
    path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], *, aliases: Mapping[str, str] | None = None
) -> None:
    """Write arrays as a file of PyTorch, which replaces an old one at once; torch.load reads a dict of tensors from it.

    >>> import tempfile, numpy as np
    >>> from ptree._foreign import open_foreign
    >>> path = tempfile.mkdtemp() + "/m.pt"
    >>> write_torch(path, {"wte.weight": np.ones((3, 2))}, aliases={"lm_head.weight": "wte.weight"})
    >>> with open_foreign(path) as file:
    ...     print(list(file.arrays), file.aliases)
    ['wte.weight'] {'lm_head.weight': 'wte.weight'}

    A name with slashes is put into nested dicts, "model/fc.weight" into `{"model": {"fc.weight": ...}}`, as the reader of
    these files joins them. Arrays are taken from the mapping one at a time, and each is written before the next.

    Args:
        path: the file.
        arrays: name -> array, of NumPy or of anything that `np.asarray` takes, such as JAX's.
        aliases: further names -> the name of the array that they show; in PyTorch they share its storage.

    Raises:
        FileError: an array of a dtype that PyTorch lacks, an alias of no array, or one name inside another.
        OSError: the file cannot be written.
    """
    file = Path(checked_path(path, "write(path, arrays)"))
    refuse_other_kinds(file)
    ties = dict(aliases or {})
    _refuse_wrong_aliases(file, arrays, ties)
    _nested(file, dict.fromkeys([*arrays, *ties], _NOT_WRITTEN))  # names are checked before anything is written
    sweep(file)
    with draft(file) as opened:
        writer = ZipWriter(opened, _ALIGNMENT)
        stored: dict[str, _Stored] = {}
        for number, name in enumerate(arrays):
            stored[name] = _write_array(writer, file, name, str(number), np.asarray(arrays[name]))
        tensors = stored | {alias: stored[source] for alias, source in ties.items()}
        # the pickle comes last, as it has the shapes of all arrays
        writer.add(f"{_FOLDER}/data.pkl", _Pickle().of(_nested(file, tensors)))
        writer.add(f"{_FOLDER}/byteorder", b"little")
        writer.add(f"{_FOLDER}/version", b"3\n")
        writer.finish()


def _refuse_wrong_aliases(file: Path, arrays: Mapping[str, np.ndarray], aliases: Mapping[str, str]) -> None:
    for alias, source in aliases.items():
        if alias in arrays:
            raise FileError(f"cannot write {quoted(str(file))}: {quoted(alias)} is both an alias and an array")
        if source not in arrays:
            raise FileError(f"cannot write {quoted(str(file))}: {quoted(alias)} is tied to {quoted(source)}, no array")


def _write_array(writer: ZipWriter, file: Path, name: str, key: str, array: np.ndarray) -> _Stored:
    dtype = _in_order(array.dtype, "=")
    if dtype not in TORCH_NAMES:
        kind = short_dtype(array.dtype)
        raise FileError(f"cannot write {quoted(str(file))}: {quoted(name)} is {kind}, a dtype that PyTorch lacks")
    flat = np.ascontiguousarray(array, _in_order(dtype, "<")).reshape(-1)
    writer.add(f"{_FOLDER}/data/{key}", flat.view(np.uint8))
    return _Stored(key, dtype, array.shape)


def _in_order(dtype: np.dtype, order: Literal["<", "="]) -> np.dtype:
    """A dtype of another order of bytes; the dtypes of ml_dtypes have none."""
    return dtype.newbyteorder(order) if dtype.isbuiltin == 1 or not dtype.isnative else dtype


def _nested(file: Path, tensors: Mapping[str, _Stored]) -> _Nested:
    """Nested dicts of names that are joined with slashes."""
    root: _Nested = {}
    for name, tensor in tensors.items():
        *outer, last = name.split("/")
        node = root
        for segment in outer[:_DEEPEST]:
            inner = node.setdefault(segment, {})
            if isinstance(inner, _Stored):
                raise FileError(
                    f"cannot write {quoted(str(file))}: {quoted(name)} lies inside the name of another array"
                )
            node = inner
        if last in node or len(outer) > _DEEPEST:
            problem = "is also the beginning of another name" if last in node else "is nested too deeply"
            raise FileError(f"cannot write {quoted(str(file))}: {quoted(name)} {problem}")
        node[last] = tensor
    return root


_NOT_WRITTEN = _Stored("", np.dtype("float32"), ())
"""Stands for arrays that are not written yet."""


class _Pickle:
    """Write nested dicts of tensors as a pickle of protocol 2, as torch.save does."""

    def __init__(self):
        self._globals: dict[str, int] = {}
        """Module and name -> place in the memo."""

    def of(self, root: _Nested) -> bytes:
        return b"".join([b"\x80\x02", self._dict(root), b"."])

    def _dict(self, node: _Nested) -> bytes:
        parts = [b"}("]
        for key, value in node.items():
            parts.append(_text(key))
            parts.append(self._tensor(value) if isinstance(value, _Stored) else self._dict(value))
        parts.append(b"u")
        return b"".join(parts)

    def _tensor(self, tensor: _Stored) -> bytes:
        count = prod(tensor.shape)
        strides = tuple(prod(tensor.shape[axis + 1 :]) for axis in range(len(tensor.shape)))
        storage_name = STORAGE_NAMES.get(tensor.dtype)
        is_new = storage_name is None  # dtypes of which PyTorch stores bytes
        function = self._global("torch._utils", "_rebuild_tensor_v3" if is_new else "_rebuild_tensor_v2")
        kind = self._global("torch.storage", "UntypedStorage") if is_new else self._global("torch", storage_name)
        size = count * tensor.dtype.itemsize if is_new else count
        storage = b"(" + _text("storage") + kind + _text(tensor.key) + _text("cpu") + _number(size) + b"tQ"
        hooks = self._global("collections", "OrderedDict") + b")R"
        args = [storage, _number(0), _numbers(tensor.shape), _numbers(strides), b"\x89", hooks]
        if is_new:
            args.append(self._global("torch", TORCH_NAMES[tensor.dtype]))
        return function + b"(" + b"".join(args) + b"tR"

    def _global(self, module: str, name: str) -> bytes:
        line = f"{module}\n{name}\n"
        place = self._globals.get(line)
        if place is not None:
            return pack("<cB", b"h", place)
        self._globals[line] = len(self._globals)
        return b"c" + line.encode() + pack("<cB", b"q", self._globals[line])


def _text(text: str) -> bytes:
    encoded = text.encode("utf-8", "surrogatepass")
    return b"X" + pack("<I", len(encoded)) + encoded


def _numbers(numbers: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(_number, numbers)) + b"t"


def _number(number: int) -> bytes:
    if number < 1 << 31:
        return b"J" + pack("<i", number)
    return b"\x8a\x09" + number.to_bytes(9, "little")  # ends with a byte of zeros, as it would be negative else
