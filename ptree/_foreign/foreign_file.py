"""ForeignFile and ForeignArray, the interface of the readers: the arrays that are in a file of another framework, by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from .._errors import FileError, PathError
from .._paths.dotted_names import hint_of_name
from .._words import quoted

Index: TypeAlias = Any
"""What NumPy takes between brackets: integers, slices, `...`, None, arrays, and tuples of these."""


@dataclass(frozen=True)
class ForeignArray:
    """One array in a file, described; its numbers are not read yet."""

    name: str
    """As the framework writes it: "encoder.layer.0.weight"."""
    shape: tuple[int, ...]
    dtype: np.dtype
    """NumPy's, or one of ml_dtypes."""
    problem: str = ""
    """Why its numbers cannot be read, "is a quantised tensor (torch.qint8)"; empty where they can be."""


class ForeignFile(ABC):
    """An open file of another framework; closed by `with`, or by `close`.

    A reader fills the five attributes when it opens the file, and implements `_read`, and `_part` where the format can read
    less than a whole array. Both are called only with arrays of `arrays` that have no problem.
    """

    path: str
    format: str
    """The name of the format for people: "PyTorch (zip)"."""
    arrays: dict[str, ForeignArray]
    """Name -> array, in the file's order."""
    aliases: dict[str, str]
    """Another name of the very same numbers, which are once in the file -> the name in `arrays`."""
    metadata: dict[str, str]
    """Numbers and strings beside the arrays, such as an epoch, by name."""
    verify: bool = True
    """Whether arrays that are read whole are compared with checksums, where the format has them."""

    def read(self, name: str) -> np.ndarray:
        """Read an array whole; it is mapped memory of the file, not to be written to, or new memory.

        Raises:
            PathError: no array has this name.
            FileError: its numbers cannot be read, or are damaged.
        """
        return self._read(self.readable(name))

    def part(self, name: str, index: Index) -> np.ndarray:
        """Read a part of an array, and little more than that where the format allows it. A part is not compared with checksums.

        Raises:
            PathError: no array has this name.
            FileError: its numbers cannot be read.
        """
        return self._part(self.readable(name), index)

    def readable(self, name: str) -> ForeignArray:
        """Find an array by its name or an alias.

        Raises:
            PathError: no array has this name.
            FileError: its numbers cannot be read.
        """
        array = self.arrays.get(self.aliases.get(name, name))
        if array is None:
            near = hint_of_name(name, [*self.arrays, *self.aliases])
            raise PathError(f"no array {quoted(name)} in {quoted(self.path)}.{near}")
        if array.problem:
            raise FileError(f"cannot read {quoted(name)} in {quoted(self.path)}: it {array.problem}")
        return array

    def has_checksum(self, name: str) -> bool:
        """Whether the file has a checksum of an array, which `read` compares; most formats have none."""
        return False

    def damage(self, array: ForeignArray, why: object) -> FileError:
        """The error of an array whose bytes in the file are damaged."""
        error = FileError(f"cannot read {quoted(array.name)} in {quoted(self.path)}: {why}", is_damage=True)
        error.damaged, error.damage = [array.name], str(why)
        return error

    @abstractmethod
    def _read(self, array: ForeignArray) -> np.ndarray:
        """Read an array whole, with at most one copy."""

    def _part(self, array: ForeignArray, index: Index) -> np.ndarray:
        return self._read(array)[index]

    @abstractmethod
    def close(self) -> None:
        """Close the file; arrays that use its mapped memory stay."""

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
