"""Cast leaves of a file to the dtypes of a template: convert numbers, and find lost values that the new dtype does not hold,
by range and extremes."""

from __future__ import annotations

from functools import lru_cache
from math import floor, inf, log2, nan
from types import ModuleType

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from .._stored.kinds import may_have_dtype
from .._tree import Leaf, signature
from ._kinds import is_cut

_GROUPS = (jnp.floating, jnp.integer, jnp.complexfloating)


def is_cast_to(value: Leaf, like: Leaf) -> bool:
    """Whether `cast=True` converts a value to the dtype of `like`: both are floats, whole numbers or complex numbers."""
    got, required = signature(value), signature(like)
    if not isinstance(got, tuple) or not isinstance(required, tuple) or got[1] == required[1]:
        return False
    return any(jnp.issubdtype(got[1], group) and jnp.issubdtype(required[1], group) for group in _GROUPS)


def is_of_other_kind(value: Leaf, like: Leaf) -> bool:
    """Whether two arrays differ in the kind of their dtypes, such as float and int, which `cast=True` does not convert."""
    got, required = signature(value), signature(like)
    if not isinstance(got, tuple) or not isinstance(required, tuple) or got[1] == required[1]:
        return False
    return not is_cast_to(value, like)


def converted(value: Leaf, dtype: np.dtype) -> Leaf:
    """Convert an array to a dtype; NumPy converts to those that JAX lacks, or would cut to 32 bits."""
    if isinstance(value, jax.Array) and (is_cut(dtype) or not may_have_dtype("", dtype)):
        value = np.asarray(value)
    with np.errstate(all="ignore"):  # NumPy would warn of lost values, too
        return value.astype(dtype)


def lost_value(value: Leaf, dtype: np.dtype) -> str:
    """A value of an array that a dtype does not hold, as text; "" if it holds all of them.

    A number is lost if it is out of range, or infinite or NaN where the dtype has no such value. Rounding and underflow lose
    no number. The array is read once, and not at all if the new dtype holds every value of the old one.
    """
    source, target = np.dtype(value.dtype), np.dtype(dtype)
    if source == target or not value.size or _holds_all(target, source):
        return ""
    parts = [value]
    if jnp.issubdtype(source, jnp.complexfloating):
        parts, target = [value.real, value.imag], _real(target)
    for part in parts:
        for number in _extremes_of(part):
            if not _holds(target, number):
                return str(number)
    return ""


def _real(dtype: np.dtype) -> np.dtype:
    return np.dtype(np.finfo(dtype).dtype)


@lru_cache(maxsize=1024)
def _holds_all(target: np.dtype, source: np.dtype) -> bool:
    """Whether a dtype holds every value of another one, some of them rounded."""
    if jnp.issubdtype(source, jnp.complexfloating):
        return _holds_all(_real(target), _real(source))
    if jnp.issubdtype(source, jnp.integer):
        limits = ml_dtypes.iinfo(source)
        return all(_holds(target, int(limit)) for limit in (limits.min, limits.max))
    limits = ml_dtypes.finfo(source)
    # infinity and NaN, if the source has them: otherwise they become another of its values here
    values = np.array([limits.min, limits.max, 0, np.inf, np.nan]).astype(source)
    return all(_holds(target, float(number)) for number in values)


def _holds(target: np.dtype, number: float | int) -> bool:
    """Whether a dtype holds a number, perhaps rounded."""
    if isinstance(number, int):
        limits = ml_dtypes.iinfo(target)
        return int(limits.min) <= number <= int(limits.max)
    with np.errstate(all="ignore"):
        held = float(np.float64(number).astype(target))
    if np.isnan(number):
        return bool(np.isnan(held))
    if not np.isfinite(number):
        return held == number
    return bool(np.isfinite(held)) and abs(number) < _end_of_range(target)


def _end_of_range(dtype: np.dtype) -> float:
    """The number from which on a dtype without infinity and NaN takes its largest one instead; infinity for all others."""
    if not np.isfinite(float(np.float64(inf).astype(dtype))):
        return inf
    limits = ml_dtypes.finfo(dtype)
    largest = float(limits.max)
    spacing = float(limits.eps) * 2 ** floor(log2(largest))
    return largest + spacing / 2


def _extremes_of(array: jax.Array | np.ndarray | np.generic) -> list[float] | list[int]:
    """The lowest and the highest number of an array, and the infinities and NaN that it has."""
    found = _reduced_by_jax(array) if isinstance(array, jax.Array) else _reduced(array, np)
    if jnp.issubdtype(array.dtype, jnp.integer):
        return [int(number) for number in found]
    low, high, has_inf, has_minus_inf, has_nan = map(float, found)
    numbers: list[float] = []
    if low <= high:  # or no number is finite
        numbers += [low, high]
    for is_there, number in ((has_inf, inf), (has_minus_inf, -inf), (has_nan, nan)):
        if is_there:
            numbers.append(number)
    return numbers


def _reduced(array: Leaf, xp: ModuleType) -> list[Leaf]:
    """Reduce an array, by NumPy or by `jax.numpy`: lowest and highest number; for floats, whether it has inf, -inf and NaN."""
    if jnp.issubdtype(array.dtype, jnp.integer):
        if ml_dtypes.iinfo(array.dtype).bits < 8:  # NumPy reduces no such numbers
            array = array.astype(xp.int32)
        return [xp.min(array), xp.max(array)]
    if array.dtype.itemsize < 4:
        array = array.astype(xp.float32)
    is_finite = xp.isfinite(array)
    low, high = xp.min(xp.where(is_finite, array, inf)), xp.max(xp.where(is_finite, array, -inf))
    return [low, high, xp.any(array == inf), xp.any(array == -inf), xp.any(array != array)]


@jax.jit
def _reduced_by_jax(array: jax.Array) -> list[jax.Array]:
    return _reduced(array, jnp)
