"""Sums of arrays of floats, refused where they leave the range of the dtype."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from .operation import MisfitError


def require_floats(dtype: np.dtype, name: str) -> None:
    """Refuse whole numbers, whose sums would wrap and which hold no fractions."""
    if not jnp.issubdtype(dtype, jnp.inexact):
        raise MisfitError(f"{name} needs floats, and the array is {dtype}")


def sum_of_two(one: np.ndarray, other: np.ndarray, name: str) -> np.ndarray:
    """The sum in the dtype of the first; refuses one that is not finite where both numbers are."""
    require_floats(one.dtype, name)
    with np.errstate(all="ignore"):  # found below, with a message
        total = one + other.astype(one.dtype)
    if np.isfinite(total).all():
        return total
    lost = ~np.isfinite(total) & np.isfinite(one) & np.isfinite(other)
    if lost.any():
        raise MisfitError(f"{name}: the sum {_first_sum(one, other, lost)} is out of the range of {one.dtype}")
    return total


def _first_sum(one: np.ndarray, other: np.ndarray, lost: np.ndarray) -> str:
    at = tuple(int(index) for index in np.argwhere(lost)[0])
    first, second = one[at], np.broadcast_to(other, one.shape)[at]
    return f"{first} + {second}"
