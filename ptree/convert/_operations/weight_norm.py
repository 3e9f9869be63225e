"""WeightNorm: a weight from its magnitude and its direction, and its norms on the way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from .operation import Described, MisfitError, Operation, axis_of


@dataclass(frozen=True, repr=False)
class WeightNorm(Operation):
    """The weight `g * v / ||v||` of a magnitude `g` and a direction `v`; norms are taken over all axes but `axis`.

    >>> from ptree.convert import weight_norm
    >>> weight_norm().apply([np.array([[10.0]]), np.array([[3.0, 4.0]])])
    [array([[6., 8.]])]

    One way: back come the norms of the weight and the weight itself, which give the same weight; a row of zeros comes back
    as the magnitude 0 and a direction of ones, as zeros have no direction. Numbers are computed in float64 and rounded once
    (Salimans and Kingma 2016, https://arxiv.org/abs/1602.07868, equation 2).

    Args:
        axis: the axis of features out, over which no norm is taken.
    """

    axis: int = 0

    def apply(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        self.outcome([Described(array.shape, array.dtype) for array in arrays])
        magnitude, direction = arrays
        norms = _norms(direction, self.axis)
        if not norms.all():
            raise MisfitError("weight_norm: a direction of zeros has the norm 0")
        weight = magnitude.astype(np.float64) * (direction.astype(np.float64) / norms)
        return [weight.astype(direction.dtype)]

    def outcome(self, arrays: Sequence[Described]) -> list[Described]:
        if len(arrays) != 2:
            raise MisfitError(f"weight_norm takes the magnitude and the direction, not {len(arrays)} arrays")
        magnitude, direction = arrays
        _require_real(magnitude.dtype, "weight_norm")
        _require_real(direction.dtype, "weight_norm")
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
    """The norms of a weight, and the weight itself, as a magnitude and a direction; zeros get a direction of ones."""

    axis: int = 0

    def apply(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        (weight,) = arrays
        self.outcome([Described(weight.shape, weight.dtype)])
        norms = _norms(weight, self.axis)
        with np.errstate(over="ignore"):  # found below, with a message
            magnitude = norms.astype(weight.dtype)
        if (np.isinf(magnitude) & np.isfinite(norms)).any():
            raise MisfitError(f"weight_norm: a norm is out of the range of {weight.dtype}")
        return [magnitude, np.where(norms == 0, np.ones((), weight.dtype), weight)]

    def outcome(self, arrays: Sequence[Described]) -> list[Described]:
        (weight,) = arrays
        _require_real(weight.dtype, "weight_norm_back")
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
    """The norms in float64, of which 16 bits are rounded once at the end."""
    others = tuple(at for at in range(array.ndim) if at != axis % array.ndim)
    wide = array.astype(np.float64)
    # divided by a power of two, which is exact, so that no square leaves the range of float64
    _, exponent = np.frexp(np.abs(wide).max(others, keepdims=True, initial=0))
    return np.ldexp(np.sqrt(np.square(np.ldexp(wide, -exponent)).sum(others, keepdims=True)), exponent)


def _require_real(dtype: np.dtype, name: str) -> None:
    if not jnp.issubdtype(dtype, jnp.floating):
        raise MisfitError(f"{name} needs real floats, and the array is {dtype}")
