"""WeightNorm: a weight from its magnitude and its direction, and its norms on the way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .operation import Described, MisfitError, Operation, axis_of
from .sums import require_floats


@dataclass(frozen=True, repr=False)
class WeightNorm(Operation):
    """The weight `g * v / ||v||` of a magnitude `g` and a direction `v`; norms are taken over all axes but `axis`.

    One way: back come the norms of the weight and the weight itself, which give the same weight
    (Salimans and Kingma 2016, https://arxiv.org/abs/1602.07868, equation 2).
    """

    axis: int = 0

    def apply(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        self.outcome([Described(array.shape, array.dtype) for array in arrays])
        magnitude, direction = arrays
        norms = _norms(direction, self.axis)
        if not norms.all():
            raise MisfitError("weight_norm: a direction of zeros has the norm 0")
        return [(magnitude * (direction / norms)).astype(direction.dtype)]

    def outcome(self, arrays: Sequence[Described]) -> list[Described]:
        if len(arrays) != 2:
            raise MisfitError(f"weight_norm takes the magnitude and the direction, not {len(arrays)} arrays")
        magnitude, direction = arrays
        require_floats(direction.dtype, "weight_norm")
        axis = axis_of(direction, self.axis, "weight_norm")
        shape = tuple(size if at == axis else 1 for at, size in enumerate(direction.shape))
        if magnitude.shape != shape:
            raise MisfitError(f"weight_norm needs a magnitude of the shape {[*shape]}, not {[*magnitude.shape]}")
        return [direction]

    @property
    def inverse(self) -> Operation:
        return WeightNormBack(self.axis)

    @property
    def is_one_way(self) -> bool:
        return True

    @property
    def arity(self) -> tuple[int, int]:
        return 2, 1


@dataclass(frozen=True, repr=False)
class WeightNormBack(Operation):
    """The norms of a weight, and the weight itself, as a magnitude and a direction."""

    axis: int = 0

    def apply(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        (weight,) = arrays
        return [_norms(weight, self.axis), weight]

    def outcome(self, arrays: Sequence[Described]) -> list[Described]:
        (weight,) = arrays
        require_floats(weight.dtype, "weight_norm_back")
        axis = axis_of(weight, self.axis, "weight_norm_back")
        shape = tuple(size if at == axis else 1 for at, size in enumerate(weight.shape))
        return [Described(shape, weight.dtype), weight]

    @property
    def inverse(self) -> Operation:
        return WeightNorm(self.axis)

    @property
    def arity(self) -> tuple[int, int]:
        return 1, 2


def _norms(array: np.ndarray, axis: int) -> np.ndarray:
    others = tuple(at for at in range(array.ndim) if at != axis % array.ndim)
    squares = np.square(array.astype(np.float64)).sum(others, keepdims=True)
    with np.errstate(over="ignore"):  # found below, with a message
        norms = np.sqrt(squares).astype(array.dtype)
    if np.isinf(norms).any() and np.isfinite(squares).all():
        raise MisfitError(f"weight_norm: a norm is out of the range of {array.dtype}")
    return norms
