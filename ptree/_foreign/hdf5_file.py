"""Hdf5File: datasets of an HDF5 file as named arrays, by the package h5py; links to other files and bombs are refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import RawIOBase
from math import prod
from types import ModuleType
from typing import IO, Any, TypeAlias

import ml_dtypes
import numpy as np

from .._errors import FileError, PtreeError
from .._stored.leaf_parts import block_shape, part_of, slices_of
from .._words import printable, quoted
from .foreign_file import ForeignArray, ForeignFile, Index

Dataset: TypeAlias = Any
"""A `h5py.Dataset`: h5py is imported only when a file is opened."""
Group: TypeAlias = Any
"""A `h5py.Group`, or a `h5py.File`, which is one."""

_BOMB_FLOOR = 1 << 28
_MOST_EXPANSION = 1000
"""A dataset of more than 256 MiB may not be more than 1000 times what is stored of it."""
_DAMAGE = (
    OSError,
    RuntimeError,
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    IndexError,
    OverflowError,
    MemoryError,
)
"""Errors of h5py, and of NumPy below it, that a damaged file can cause."""


def h5py_module() -> ModuleType:
    """Import h5py.

    Raises:
        FileError: it is not installed.
    """
    try:
        import h5py
    except ImportError:
        raise FileError("HDF5 files, such as Keras writes, need h5py: pip install 'ptree-jax[h5]'") from None
    return h5py


@contextmanager
def damage_as_file_error(path: str) -> Iterator[None]:
    """Let errors of h5py be a FileError that names the file."""
    try:
        yield
    except PtreeError:
        raise
    except _DAMAGE as error:
        reason = printable(str(error), 200)
        raise FileError(f"cannot read {quoted(path)}: it is no whole HDF5 file: {reason}", is_damage=True) from error


class Hdf5File(ForeignFile):
    """An open HDF5 file whose datasets have the names that its format gives them."""

    def __init__(
        self, path: str, format: str, file: Group, datasets: Mapping[str, Dataset], metadata: Mapping[str, str]
    ):
        self.path, self.format = path, format
        self.aliases, self.metadata = {}, dict(metadata)
        self._file, self._datasets = file, dict(datasets)
        self.arrays = {name: described(name, dataset) for name, dataset in self._datasets.items()}
        self._with_checksum = {name for name, dataset in self._datasets.items() if _has_checksum(dataset)}

    def dataset_paths(self) -> dict[str, str]:
        """The place in the HDF5 file of each array."""
        return {name: dataset.name for name, dataset in self._datasets.items()}

    def has_checksum(self, name: str) -> bool:
        return name in self._with_checksum

    def _read(self, array: ForeignArray) -> np.ndarray:
        return self._numbers(array, ())

    def _part(self, array: ForeignArray, index: Index) -> np.ndarray:
        if prod(array.shape) == 0:
            return self._read(array)[index]
        part = part_of(index, array.shape)
        shape = block_shape(part.ranges)
        if prod(shape) == 0:
            return np.empty(shape, array.dtype)[part.index]
        return self._numbers(array, slices_of(part.ranges))[part.index]

    def _numbers(self, array: ForeignArray, selection: Any) -> np.ndarray:
        dataset = self._datasets[array.name]
        try:
            numbers = np.asarray(dataset[selection])
        except PtreeError:
            raise
        except _DAMAGE as error:
            raise self.damage(array, f"its dataset cannot be read: {printable(str(error), 200)}") from error
        return numbers.view(array.dtype) if numbers.dtype.kind == "V" else numbers.astype(array.dtype, copy=False)

    def close(self) -> None:
        self._file.close()


def described(name: str, dataset: Dataset) -> ForeignArray:
    """Describe a dataset."""
    shape, dtype = dataset.shape, dataset.dtype
    if shape is None:
        return ForeignArray(name, (), np.dtype(np.void), "is an empty dataset without a shape")
    if dtype.kind == "V" and dtype.itemsize == 2 and dataset.attrs.get("dtype") == "bfloat16":  # as Keras marks them
        dtype = np.dtype(ml_dtypes.bfloat16)
    return ForeignArray(name, tuple(shape), dtype.newbyteorder("="), _problem(dataset, dtype))


def _has_checksum(dataset: Dataset) -> bool:
    """Whether HDF5 compares the numbers of a dataset with checksums as it reads them; those of gzip are in its streams."""
    return dataset.fletcher32 or dataset.compression == "gzip"


def _problem(dataset: Dataset, dtype: np.dtype) -> str:
    if dataset.external or dataset.is_virtual:
        return "lies in another file, which is not opened"
    if dtype.kind not in "biufc" and dtype != ml_dtypes.bfloat16:
        return "holds no numbers"
    size = prod(dataset.shape) * dtype.itemsize
    if size > _BOMB_FLOOR and size > _MOST_EXPANSION * dataset.id.get_storage_size():
        return f"would take {size:,} bytes, of which nearly nothing is in the file"
    return ""


def all_datasets(group: Group) -> dict[str, Dataset]:
    """The datasets below a group by their paths from there, in the order in which they were written."""
    h5py = h5py_module()
    found: dict[str, Dataset] = {}

    def collect(path: str, thing: Any) -> None:
        if isinstance(thing, h5py.Dataset):
            found[path] = thing

    group.visititems(collect)  # it passes over links to other files, and visits an object once
    order = _writing_order(found)
    return {path: found[path] for path in order}


def _writing_order(found: Mapping[str, Dataset]) -> list[str]:
    """Order paths by where the first dataset of their group lies in the file; within a group by number, then by name."""
    h5o = h5py_module().h5o
    address = {path: h5o.get_info(dataset.id).addr for path, dataset in found.items()}
    first: dict[str, int] = {}
    for path in sorted(found, key=_by_number):
        first.setdefault(parent(path), address[path])
    return sorted(found, key=lambda path: (first[parent(path)], parent(path), _by_number(path)))


def parent(path: str) -> str:
    return path.rpartition("/")[0]


def _by_number(path: str) -> tuple[int, str]:
    last = path.rpartition("/")[2]
    return (int(last), "") if last.isascii() and last.isdigit() and len(last) < 10 else (-1, last)


def open_h5(path: str, content: str | IO[bytes] | RawIOBase) -> Group:
    """Open an HDF5 file for reading, from its path or from an open file.

    Raises:
        FileError: h5py is not installed, or the file is damaged.
    """
    h5py = h5py_module()
    with damage_as_file_error(path):
        return h5py.File(content, "r")
