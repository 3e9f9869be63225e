"""Operations with a constant: added to an array, or the array that is written where the source has none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..._errors import PatternError
from .operation import Described, EachArray, Operation
from .options import dtype_of_option, require_held, require_sizes
from .parts import Split
from .sums import require_floats, sum_of_two


@dataclass(frozen=True, repr=False)
class Add(EachArray):
    """A constant added, as of a norm whose scale is stored less 1: `add(1.0)`.

    >>> from ptree.convert import add
    >>> add(1.0).apply([np.zeros(2)]), add(1.0, part=(1, 4)).apply([np.zeros(4)])
    ([array([1., 1.])], [array([0., 1., 0., 0.])])

    `part=(1, 4)` adds it to the second of four equal parts of the last axis alone, as of Haiku's forget gate. The way back is
    exact up to the rounding of the dtype.

    Args:
        constant: the number that is added.
        part: the position of one part, from 0, and the number of equal parts of the last axis; by default all.
    """

    constant: float
    part: tuple[int, int] | None = None

    def change(self, array: np.ndarray) -> np.ndarray:
        constant = np.asarray(self.constant, np.float64)
        if self.part is None:
            return sum_of_two(array, constant, "add")
        which, count = self.part
        parts = Split(count, -1).apply([array])
        parts[which] = sum_of_two(parts[which], constant, "add")
        return np.concatenate(parts, -1)

    def check_options(self) -> None:
        if not np.isfinite(self.constant):
            raise PatternError(f"add: expected a finite number; got {self.constant}")
        if self.part is None:
            return
        which, count = self.part
        if not 0 <= which < count:
            raise PatternError(f"add: part {which} is none of {count} parts, which count from 0")

    def outcome(self, arrays: Sequence[Described]) -> list[Described]:
        for array in arrays:
            require_floats(array.dtype, "add")
        if self.part is not None:
            for array in arrays:
                Split(self.part[1], -1).outcome([array])
        return [*arrays]

    @property
    def inverse(self) -> Operation:
        return Add(-self.constant, self.part)


@dataclass(frozen=True, repr=False)
class Fill(Operation):
    """Drops an array; the way back writes this constant, of shape `shape`, whatever was there: PyTorch's `num_batches_tracked`.

    >>> from ptree.convert import fill
    >>> fill(0, "int64").apply([np.int64(7)]), fill(0, "int64").inverse.apply([])
    ([], [array(0)])

    Args:
        constant: the number that is written.
        dtype: that of the array that is written.
        shape: of the array that is written.
    """

    constant: float = 0
    dtype: str = "float32"
    shape: tuple[int, ...] = ()

    def check_options(self) -> None:
        _check_constant(self.name, self.constant, self.dtype, self.shape)

    def apply(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return []

    @property
    def inverse(self) -> Operation:
        return Constant(self.constant, self.dtype, self.shape)

    @property
    def is_one_way(self) -> bool:
        return True

    @property
    def arity(self) -> tuple[int, int]:
        return 1, 0


@dataclass(frozen=True, repr=False)
class Constant(Operation):
    """An array of one constant, which no array of the source gives."""

    constant: float = 0
    dtype: str = "float32"
    shape: tuple[int, ...] = ()

    def check_options(self) -> None:
        _check_constant(self.name, self.constant, self.dtype, self.shape)

    def apply(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [np.full(self.shape, self.constant, dtype_of_option("constant", self.dtype))]

    def outcome(self, arrays: Sequence[Described]) -> list[Described]:
        return [Described(self.shape, dtype_of_option("constant", self.dtype))]

    @property
    def inverse(self) -> Operation:
        return Fill(self.constant, self.dtype, self.shape)

    @property
    def arity(self) -> tuple[int, int]:
        return 0, 1


def _check_constant(name: str, constant: float, dtype: str, shape: tuple[int, ...]) -> None:
    if shape:
        require_sizes(name, shape)
    require_held(name, constant, dtype_of_option(name, dtype))
