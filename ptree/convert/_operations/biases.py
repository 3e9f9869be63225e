"""Operations on the biases of recurrent layers: one bias for two that are added, and a part of zeros for a gate without one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..._errors import PatternError
from .operation import Described, EachArray, MisfitError, Operation, axis_of
from .options import require_count
from .parts import Split
from .sums import require_floats, sum_of_two


@dataclass(frozen=True, repr=False)
class SharedBias(Operation):
    """One bias of a recurrent layer -> two, that of the product with the input and that of the product with the state.

    >>> from ptree.convert import shared_bias
    >>> shared_bias(3, 1).apply([np.arange(1, 5)])
    [array([1, 2, 3]), array([0, 0, 4])]

    `shared_bias(3, 1)` of a GRU: the array has the biases of the gates r, z and n, and after them that of n in the product with
    the state, which the reset gate multiplies and so cannot be added to the first. For r and z only the sum of both biases
    counts: the second is zero. On the way back comes the sum, which goes one way.

    Args:
        gates: how many gates the layer has.
        apart: how many of the last gates have a bias of their own in the product with the state.
    """

    gates: int
    apart: int

    def check_options(self) -> None:
        _check_gates(self.name, self.gates, self.apart)

    def apply(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        (array,) = arrays
        parts = Split(self.gates + self.apart, -1).apply([array])
        of_input = np.concatenate(parts[: self.gates], -1)
        added = [np.zeros_like(part) for part in parts[: self.gates - self.apart]]
        return [of_input, np.concatenate([*added, *parts[self.gates :]], -1)]

    def outcome(self, arrays: Sequence[Described]) -> list[Described]:
        (array,) = arrays
        parts = Split(self.gates + self.apart, -1).outcome([array])
        size = sum(part.shape[-1] for part in parts[: self.gates])
        return [Described((*array.shape[:-1], size), array.dtype)] * 2

    @property
    def inverse(self) -> Operation:
        return SharedBiasBack(self.gates, self.apart)

    @property
    def arity(self) -> tuple[int, int]:
        return 1, 2


@dataclass(frozen=True, repr=False)
class SharedBiasBack(Operation):
    """The inverse of `shared_bias`: the sum of both biases, and after it the last gates' bias of the state."""

    gates: int
    apart: int

    def check_options(self) -> None:
        _check_gates(self.name, self.gates, self.apart)

    def apply(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        self.outcome([Described(array.shape, array.dtype) for array in arrays])
        of_input, of_state = (Split(self.gates, -1).apply([array]) for array in arrays)
        summed = self.gates - self.apart
        pairs = zip(of_input[:summed], of_state, strict=False)
        parts = [sum_of_two(one, other, "shared_bias_back") for one, other in pairs]
        return [np.concatenate([*parts, *of_input[summed:], *of_state[summed:]], -1)]

    def outcome(self, arrays: Sequence[Described]) -> list[Described]:
        of_input, of_state = arrays
        if of_input != of_state:
            raise MisfitError(
                f"shared_bias_back needs two biases of one shape and dtype, and they are {[*of_input.shape]} and {[*of_state.shape]}"
            )
        require_floats(of_input.dtype, "shared_bias_back")
        (part, *_) = Split(self.gates, -1).outcome([of_input])
        size = part.shape[-1] * (self.gates + self.apart)
        return [Described((*of_input.shape[:-1], size), of_input.dtype)]

    @property
    def inverse(self) -> Operation:
        return SharedBias(self.gates, self.apart)

    @property
    def is_one_way(self) -> bool:
        return True

    @property
    def arity(self) -> tuple[int, int]:
        return 2, 1


def _check_gates(name: str, gates: int, apart: int) -> None:
    require_count(name, "gates", gates)
    require_count(name, "apart", apart, least=0)
    if apart > gates:
        raise PatternError(f"{name}: {apart} of {gates} gates cannot have a bias of their own")


@dataclass(frozen=True, repr=False)
class ZeroPart(EachArray):
    """The equal parts of the last axis, and after them one more of zeros: a bias that the other side does not have.

    >>> from ptree.convert import zero_part
    >>> zero_part(3).apply([np.arange(1, 4)])
    [array([1, 2, 3, 0])]

    On the way back that part must be zero.

    Args:
        parts: how many parts the array has.
    """

    parts: int

    def check_options(self) -> None:
        require_count(self.name, "parts", self.parts)

    def change(self, array: np.ndarray) -> np.ndarray:
        (part, *_) = Split(self.parts, -1).apply([array])
        return np.concatenate([array, np.zeros_like(part)], -1)

    def outcome(self, arrays: Sequence[Described]) -> list[Described]:
        return [_with_parts(array, self.parts, self.parts + 1) for array in arrays]

    @property
    def inverse(self) -> Operation:
        return ZeroPartBack(self.parts)


@dataclass(frozen=True, repr=False)
class ZeroPartBack(EachArray):
    """The inverse of `zero_part`; refuses a last part that is not zero."""

    parts: int

    def check_options(self) -> None:
        require_count(self.name, "parts", self.parts)

    def change(self, array: np.ndarray) -> np.ndarray:
        *parts, last = Split(self.parts + 1, -1).apply([array])
        if last.any():
            raise MisfitError(f"the last of {self.parts + 1} parts is not zero, and the other side has no place for it")
        return np.concatenate(parts, -1)

    def outcome(self, arrays: Sequence[Described]) -> list[Described]:
        return [_with_parts(array, self.parts + 1, self.parts) for array in arrays]

    @property
    def inverse(self) -> Operation:
        return ZeroPart(self.parts)


def _with_parts(array: Described, before: int, after: int) -> Described:
    """The same array with another number of equal parts along its last axis."""
    axis_of(array, -1, "zero_part")
    (part, *_) = Split(before, -1).outcome([array])
    return Described((*array.shape[:-1], part.shape[-1] * after), array.dtype)
