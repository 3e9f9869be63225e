"""Operations on an array and arrays of zeros beside it; and on the sum of several arrays, which goes one way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .operation import Described, MisfitError, Operation, of_one_shape
from .options import require_count
from .sums import require_floats, sum_of_two


@dataclass(frozen=True, repr=False)
class ZeroFill(Operation):
    """An array, and after it `count` arrays of zeros of its shape: one bias for a layer that has two.

    >>> from ptree.convert import zero_fill
    >>> zero_fill().apply([np.ones(2)])
    [array([1., 1.]), array([0., 0.])]

    On the way back the others must be zero: `summed` takes any, and goes one way.

    Args:
        count: how many arrays of zeros.
    """

    count: int = 1

    def check_options(self) -> None:
        require_count(self.name, "count", self.count)

    def apply(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return _with_zeros(arrays[0], self.count)

    def outcome(self, arrays: Sequence[Described]) -> list[Described]:
        return [arrays[0]] * (1 + self.count)

    @property
    def inverse(self) -> Operation:
        return TakeFirst(self.count)

    @property
    def arity(self) -> tuple[int, int]:
        return 1, 1 + self.count


@dataclass(frozen=True, repr=False)
class TakeFirst(Operation):
    """The first array, where all others are zero: the inverse of `zero_fill`."""

    count: int = 1

    def check_options(self) -> None:
        require_count(self.name, "count", self.count)

    def apply(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        self.outcome([Described(array.shape, array.dtype) for array in arrays])
        for position, array in enumerate(arrays[1:], 1):
            if array.any():
                raise MisfitError(
                    f"array {position} of {len(arrays)} is not zero, and the other side has no place for it"
                )
        return [arrays[0]]

    def outcome(self, arrays: Sequence[Described]) -> list[Described]:
        return [of_one_shape(arrays, "take_first")]

    @property
    def inverse(self) -> Operation:
        return ZeroFill(self.count)

    @property
    def arity(self) -> tuple[int, int]:
        return 1 + self.count, 1


@dataclass(frozen=True, repr=False)
class Summed(Operation):
    """The sum of `count` arrays, as of the two biases of PyTorch's LSTM. One way: back come the sum and zeros.

    >>> from ptree.convert import summed
    >>> summed().apply([np.ones(2), np.ones(2)])
    [array([2., 2.])]

    Args:
        count: how many arrays.
    """

    count: int = 2

    def check_options(self) -> None:
        require_count(self.name, "count", self.count)

    def apply(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        self.outcome([Described(array.shape, array.dtype) for array in arrays])
        total = arrays[0]
        for array in arrays[1:]:
            total = sum_of_two(total, array, "summed")
        return [total]

    def outcome(self, arrays: Sequence[Described]) -> list[Described]:
        one = of_one_shape(arrays, "summed")
        require_floats(one.dtype, "summed")
        return [one]

    @property
    def inverse(self) -> Operation:
        return Unsummed(self.count)

    @property
    def is_one_way(self) -> bool:
        return True

    @property
    def arity(self) -> tuple[int, int]:
        return self.count, 1


@dataclass(frozen=True, repr=False)
class Unsummed(Operation):
    """An array, and after it zeros, `count` arrays in all whose sum it is: one bias for a layer that adds two.

    >>> from ptree.convert import unsummed
    >>> unsummed().apply([np.ones(2)])
    [array([1., 1.]), array([0., 0.])]

    On the way back comes their sum, whatever they are. (`zero_fill` is for arrays that mean other things: it refuses all but zeros.)

    Args:
        count: how many arrays, with that of the numbers.
    """

    count: int = 2

    def check_options(self) -> None:
        require_count(self.name, "count", self.count)

    def apply(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return _with_zeros(arrays[0], self.count - 1)

    def outcome(self, arrays: Sequence[Described]) -> list[Described]:
        return [arrays[0]] * self.count

    @property
    def inverse(self) -> Operation:
        return Summed(self.count)

    @property
    def arity(self) -> tuple[int, int]:
        return 1, self.count


def _with_zeros(array: np.ndarray, count: int) -> list[np.ndarray]:
    """An array, and after it arrays of zeros of its shape."""
    return [array, *(np.zeros_like(array) for _ in range(count))]
