"""Carry: an array that the other side has no place for, kept to be written back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .operation import Described, Operation


@dataclass(frozen=True, repr=False)
class Carry(Operation):
    """Keeps an array that the other side has no place for, so that it can be written back: `table.carried(source)`.

    >>> from ptree.convert import carry
    >>> carry.apply([np.ones(2)])
    []
    """

    def apply(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return []

    def outcome(self, arrays: Sequence[Described]) -> list[Described]:
        return []

    @property
    def is_carried(self) -> bool:
        return True

    @property
    def inverse(self) -> Operation:
        return WriteBack()

    @property
    def arity(self) -> tuple[int, int]:
        return 1, 0


@dataclass(frozen=True, repr=False)
class WriteBack(Operation):
    """The inverse of `carry`: the array that was kept."""

    def apply(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return []

    @property
    def is_written_back(self) -> bool:
        return True

    @property
    def inverse(self) -> Operation:
        return Carry()

    @property
    def arity(self) -> tuple[int, int]:
        return 0, 1
