"""Operations on several arrays that hold the same numbers: the first of them, and copies of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .operation import Described, Operation, of_one_shape
from .options import require_count


@dataclass(frozen=True, repr=False)
class First(Operation):
    """The first of `count` arrays that hold the same statistic, as of Haiku's averages. One way: back come copies of it.

    >>> from ptree.convert import first
    >>> first().apply([np.ones(2), np.ones(2)])
    [array([1., 1.])]

    Args:
        count: how many arrays.
    """

    count: int = 2

    def check_options(self) -> None:
        require_count(self.name, "count", self.count)

    def apply(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [arrays[0]]

    def outcome(self, arrays: Sequence[Described]) -> list[Described]:
        return [of_one_shape(arrays, "first")]

    @property
    def inverse(self) -> Operation:
        return Copies(self.count)

    @property
    def is_one_way(self) -> bool:
        return True

    @property
    def arity(self) -> tuple[int, int]:
        return self.count, 1


@dataclass(frozen=True, repr=False)
class Copies(Operation):
    """An array `count` times: the inverse of `first`."""

    count: int = 2

    def check_options(self) -> None:
        require_count(self.name, "count", self.count)

    def apply(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [arrays[0]] * self.count

    @property
    def inverse(self) -> Operation:
        return First(self.count)

    @property
    def arity(self) -> tuple[int, int]:
        return 1, self.count
