"""TorchFile: the tensors of a file that torch.save wrote, as views of the mapped file; how they lie in storages, and what is refused."""

from __future__ import annotations

import mmap
import os
from abc import ABC, abstractmethod
from dataclasses import replace
from math import prod

import numpy as np

from .._errors import FileError
from .._stored.dtypes import UNKNOWN
from .._stored.locations import open_file
from .._words import in_bytes, listed, quoted
from .foreign_file import ForeignArray, ForeignFile, Index
from .pickled_values import PickledObject
from .restricted_pickle import PickleError
from .torch_contents import PickledArray, TorchContents, contents_of
from .torch_tensors import StorageInfo, TensorInfo, TensorMakers, short_name

_MOST_REPEATED = 1 << 28
"""Bytes of a tensor that repeats numbers of a smaller storage, as `expand` does; more would be a bomb."""
_MOST_TIMES = 64
"""How often the tensors of a file may show its bytes, all together."""


class TorchError(ValueError):
    """A file by torch.save that is damaged or that is not read; the text says why."""


class Storages(ABC):
    """Where the storages of a file lie."""

    is_swapped: bool = False
    """Whether the most significant byte of a number comes first."""
    has_checksum_of_pickle: bool = False
    """Whether the pickle, which holds arrays of NumPy, was compared with a checksum."""

    @abstractmethod
    def size(self, key: str) -> int | None:
        """How many bytes the storage of this key has; None if it is not in the file."""

    @abstractmethod
    def start(self, key: str) -> int:
        """Its first byte in the file."""

    @abstractmethod
    def has_checksum(self, key: str) -> bool:
        """Whether there is a checksum of its bytes."""

    @abstractmethod
    def refuse_changed(self, key: str) -> None:
        """Raise if its bytes are not those of its checksum, where it has one."""


class TorchFile(ForeignFile):
    """An open file by torch.save. Its tensors are views of the mapped file, which no other program may cut shorter meanwhile."""

    def __init__(self, path: str, form: str, data: mmap.mmap, contents: TorchContents, storages: Storages):
        self.path, self.format = path, form
        self.metadata = contents.metadata
        self._data: mmap.mmap | None = data
        self._storages = storages
        self._tensors = contents.tensors
        self.aliases = _aliases(contents.tensors)
        self.arrays = {
            name: self._described(name, tensor) for name, tensor in contents.tensors.items() if name not in self.aliases
        }
        self._refuse_bomb(len(data))

    def _described(self, name: str, tensor: TensorInfo | PickledArray) -> ForeignArray:
        if isinstance(tensor, PickledArray):
            return ForeignArray(name, tensor.shape, tensor.dtype.newbyteorder("="))
        return ForeignArray(name, tensor.shape, tensor.dtype.numpy, tensor.problem or self._problem(tensor))

    def _problem(self, tensor: TensorInfo) -> str:
        """Why the numbers of a tensor are not in the file."""
        storage = tensor.storage
        if storage is None or tensor.dtype.numpy == UNKNOWN:
            return "has no numbers"
        size = self._storages.size(storage.key)
        if size is None:
            return f"lies in the storage {quoted(storage.key)}, which is not in the file"
        itemsize = tensor.dtype.numpy.itemsize
        stop = storage.start + (tensor.offset + _span(tensor)) * itemsize
        if stop > size or (storage.start and stop > storage.start + storage.nbytes):
            return f"ends behind the end of its storage {quoted(storage.key)} of {size:,} bytes"
        nbytes = prod(tensor.shape) * itemsize
        if nbytes > max(size, _MOST_REPEATED):
            return f"repeats a storage of {in_bytes(size)} to {in_bytes(nbytes)}"
        return ""

    def _refuse_bomb(self, size: int) -> None:
        total = sum(prod(array.shape) * array.dtype.itemsize for array in self.arrays.values() if not array.problem)
        if total > max(_MOST_TIMES * size, _MOST_REPEATED):
            raise TorchError(f"its tensors show its {in_bytes(size)} so often that they would take {in_bytes(total)}")

    def has_checksum(self, name: str) -> bool:
        tensor = self._tensors[name]
        if isinstance(tensor, PickledArray):
            return self._storages.has_checksum_of_pickle
        return tensor.storage is not None and self._storages.has_checksum(tensor.storage.key)

    def _read(self, array: ForeignArray) -> np.ndarray:
        tensor = self._tensors[array.name]
        if self.verify and isinstance(tensor, TensorInfo) and tensor.storage is not None:
            self._compare(array, tensor.storage)
        return self._part(array, ...)

    def _compare(self, array: ForeignArray, storage: StorageInfo) -> None:
        self._open_data()
        try:
            self._storages.refuse_changed(storage.key)
        except ValueError as error:
            raise self.damage(array, error) from error

    def _part(self, array: ForeignArray, index: Index) -> np.ndarray:
        tensor = self._tensors[array.name]
        if isinstance(tensor, PickledArray):
            return np.asarray(tensor.array()[index])
        data = self._open_data()
        try:
            view = self._view(tensor, data)
        except ValueError as error:
            raise self.damage(array, error) from error
        return self._with_bits(np.asarray(view[index]), tensor)

    def _open_data(self) -> mmap.mmap:
        if self._data is None:
            raise FileError(f"{quoted(self.path)} is closed")
        return self._data

    def _view(self, tensor: TensorInfo, data: mmap.mmap) -> np.ndarray:
        """The numbers of a tensor as they are in the file: nothing is copied."""
        storage, dtype = tensor.storage, tensor.dtype.numpy
        if storage is None or 0 in tensor.shape:
            return np.empty(tensor.shape, dtype)
        start = self._storages.start(storage.key) + storage.start + tensor.offset * dtype.itemsize
        # the stride along an axis of one is of no account, and may be any number
        steps = tuple(step * dtype.itemsize if size > 1 else 0 for size, step in zip(tensor.shape, tensor.strides))
        return np.ndarray(tensor.shape, dtype, data, start, steps)

    def _with_bits(self, view: np.ndarray, tensor: TensorInfo) -> np.ndarray:
        """The numbers in this machine's order of bytes, conjugated and negated as the tensor says: then it is a copy."""
        if self._storages.is_swapped and view.itemsize > 1:
            parts = view.itemsize // 2 if view.dtype.kind == "c" else view.itemsize
            # ml_dtypes' numbers have no order of bytes: they are swapped as whole numbers
            words = np.ascontiguousarray(view).reshape(*view.shape, 1).view(f"u{parts}")
            view = words.byteswap().view(view.dtype).reshape(view.shape)
        if tensor.is_conjugate:
            view = np.conj(view)
        return np.negative(view) if tensor.is_negative else view

    def close(self) -> None:
        self._data = None


def _span(tensor: TensorInfo) -> int:
    """How many numbers of the storage lie between the first and the last of a tensor, both included."""
    if 0 in tensor.shape:
        return 0
    return 1 + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.strides))


def _aliases(tensors: dict[str, TensorInfo | PickledArray]) -> dict[str, str]:
    """The other names of tensors that are the same view of the same storage, and the first name of each."""
    first_names: dict[TensorInfo, str] = {}
    aliases: dict[str, str] = {}
    for name, tensor in tensors.items():
        if not isinstance(tensor, TensorInfo) or tensor.storage is None or 0 in tensor.shape:
            continue
        # another description of the same storage, as it grew, is no other storage
        place = replace(tensor, storage=replace(tensor.storage, count=0))
        first = first_names.setdefault(place, name)
        if first != name:
            aliases[name] = first
    return aliases


# ---------------------------------------------------------------------------- opening


def mapped(path: str) -> mmap.mmap:
    """Map a file for reading.

    Raises:
        FileError: it is empty, or no file.
        OSError: it is not there or cannot be read.
    """
    file = open_file(path)
    try:
        if not os.fstat(file).st_size:  # the system refuses to map it
            raise FileError(f"cannot read {quoted(path)}: it is empty", is_damage=True)
        return mmap.mmap(file, 0, access=mmap.ACCESS_READ)
    finally:
        os.close(file)


def damage(path: str, why: object) -> FileError:
    return FileError(f"cannot read {quoted(path)}: {why}", is_damage=True)


def checked_contents(path: str, root: object, makers: TensorMakers, pickle_size: int) -> TorchContents:
    """The tensors in the value of a pickle, unless it is a module, calls functions, or is damaged.

    Raises:
        FileError: it is one of these.
    """
    if isinstance(root, PickledObject) and makers.refused:
        raise FileError(
            f"cannot read {quoted(path)}: it is a whole object of the class {short_name(root.made_by)}, such as"
            f" torch.save(model) writes, and needs its code, which is not run: where that code is,"
            f" torch.save(torch.load(path, weights_only=False).state_dict(), new_path)"
        )
    if makers.refused:
        raise FileError(
            f"cannot read {quoted(path)}: its pickle calls {listed(makers.refused)}, and nothing that a pickle names is called:"
            f" if you trust the file, torch.save the tensors of torch.load(path, weights_only=False) alone"
        )
    try:
        return contents_of(root, pickle_size)
    except PickleError as error:
        raise damage(path, error) from error
