"""Convert numbers exactly to a dtype, complex or real; the float dtype to draw in; round draws into bounds, open or closed;
refuse overflow."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from .._errors import InitError
from .._words import describe, short_dtype

Scalar: TypeAlias = jax.Array | np.ndarray
"""A number, or an array that is broadcast against the shape, of the dtype that a draw computes in."""


def exact(value: ArrayLike, dtype: DTypeLike) -> np.ndarray:
    """Convert a number or an array exactly to this dtype: it may be rounded, but not become another whole number, infinite or NaN.

    Raises:
        InitError: the dtype cannot hold it.
    """
    given = np.asarray(value)
    _refuse_complex(given, dtype)
    with np.errstate(all="ignore"):  # an overflow shows in the result
        cast = given.astype(dtype)
    if is_inexact(dtype):
        # a float may be rounded, but must not overflow; through complex, as an int of over 64 bits is an object to NumPy
        kept = np.isfinite(cast.astype(complex)) == np.isfinite(given.astype(complex))
    else:
        kept = cast == given
    if not kept.all():
        shown = value if given.ndim == 0 else describe(given)
        raise InitError(f"{short_dtype(dtype)} cannot hold {shown}")
    return cast


def is_inexact(dtype: DTypeLike) -> bool:
    """Whether it is a float or complex dtype, 8-bit floats and bfloat16 included, to which a number may be rounded."""
    return bool(jnp.issubdtype(dtype, jnp.inexact))


def is_complex(dtype: DTypeLike) -> bool:
    """Whether it is a complex dtype."""
    return bool(jnp.issubdtype(dtype, jnp.complexfloating))


def drawn_in(dtype: DTypeLike) -> np.dtype:
    """Choose the dtype to draw in: float32 for floats of 16 bits and fewer, whose draws are then rounded.

    JAX draws as many random bits as the mantissa has: in bfloat16 `jax.random.normal` has 128 distinct values, and its
    mean is off by 0.011 of its standard deviation.

    Raises:
        InitError: a dtype that is no float and not complex.
    """
    if not is_inexact(dtype):
        raise InitError(
            f"it draws floats, and the leaf is {short_dtype(dtype)}; use constant, or a function of your own"
        )
    return jnp.dtype(jnp.float32) if jnp.dtype(dtype).itemsize < 4 else jnp.dtype(dtype)


def real_drawn_in(dtype: DTypeLike) -> np.dtype:
    """Choose the dtype to draw in, for a distribution of real numbers.

    Raises:
        InitError: a dtype that is no float.
    """
    if is_complex(dtype):
        raise InitError(
            f"it draws real numbers, and the leaf is {short_dtype(dtype)}; use normal, variance_scaling or orthogonal"
        )
    return drawn_in(dtype)


def scalar(value: ArrayLike, dtype: np.dtype) -> Scalar:
    """Convert an option of an initialiser to the dtype that is drawn in; arrays of JAX stay on their devices."""
    if isinstance(value, jax.Array):
        return value.astype(dtype)
    given = np.asarray(value)
    _refuse_complex(given, dtype)
    return given.astype(dtype)


def _refuse_complex(given: np.ndarray, dtype: DTypeLike) -> None:
    """Raise an InitError for complex numbers in a dtype that is not complex: NumPy would drop their imaginary part."""
    if np.iscomplexobj(given) and not is_complex(dtype):
        shown = given.item() if given.ndim == 0 else describe(given)
        raise InitError(f"{short_dtype(dtype)} cannot hold {shown}")


def sqrt(value: Scalar) -> Scalar:
    """The square root in the dtype of the value, on the host unless the value is an array of JAX."""
    return jnp.sqrt(value) if isinstance(value, jax.Array) else np.asarray(np.sqrt(value))


# ------------------------------------------------------------------------------ bounds


class Bounds(NamedTuple):
    """The least and the greatest number that a draw may give, both included, in the dtype that it computes in."""

    least: Scalar
    greatest: Scalar

    def round(self, drawn: jax.Array, dtype: DTypeLike) -> jax.Array:
        """Round what was drawn to the dtype of a leaf; the bounds are numbers of that dtype, so that none is passed."""
        return jnp.maximum(jnp.minimum(drawn, self.greatest), self.least).astype(dtype)


def half_open(low: ArrayLike, high: ArrayLike, dtype: DTypeLike) -> Bounds:
    """Find the least and the greatest number of a dtype in [low, high); both are `low` where the two are equal.

    >>> least, greatest = half_open(1000, 1001, np.dtype("float32"))
    >>> float(least), float(greatest)
    (1000.0, 1000.9999389648438)

    Raises:
        InitError: the dtype has no number there, or ends before `low` or `high`.
    """
    refuse_overflow(low, high, dtype)
    low, high = _comparable(low, dtype), _comparable(high, dtype)
    if _is_on_host(low, high) and (low == high).all():
        nearest = _nearest(low, dtype)
        return _bounds(nearest, nearest, dtype)
    least, greatest = _least_from(low, dtype), _greatest_below(high, dtype)
    if _is_on_host(low, high) and (least > greatest).any():
        raise InitError(f"{short_dtype(dtype)} has no number of at least {low} and below {high}")
    return _bounds(least, greatest, dtype)


def closed(low: ArrayLike, high: ArrayLike, dtype: DTypeLike) -> Bounds:
    """Find the least and the greatest number of a dtype in [low, high].

    Raises:
        InitError: the dtype has no number there.
    """
    low, high = _comparable(low, dtype), _comparable(high, dtype)
    # the numbers up to `high` are those from `-high` on with the other sign
    least, greatest = _least_from(low, dtype), -_least_from(-high, dtype)
    if _is_on_host(low, high) and (least > greatest).any():
        raise InitError(f"{short_dtype(dtype)} has no number from {low} to {high}")
    return _bounds(least, greatest, dtype)


def refuse_overflow(low: ArrayLike, high: ArrayLike, dtype: DTypeLike) -> None:
    """Raise an InitError if numbers from `low` to `high` overflow a dtype; arrays of JAX are not looked at."""
    if not _is_on_host(low, high):
        return
    limits = jnp.finfo(dtype)
    if np.min(low) < float(limits.min) or np.max(high) > float(limits.max):
        raise InitError(
            f"it draws numbers from {np.min(low):g} to {np.max(high):g}, and {short_dtype(dtype)} holds those from"
            f" {float(limits.min):g} to {float(limits.max):g}"
        )


def _is_on_host(*values: ArrayLike) -> bool:
    """Whether none is an array of JAX, which may be a tracer, whose value is not known."""
    return not any(isinstance(value, jax.Array) for value in values)


def _comparable(bound: ArrayLike, dtype: DTypeLike) -> Scalar:
    """A bound in a dtype in which it can be compared with the numbers of `dtype`."""
    if not isinstance(bound, jax.Array):
        return np.asarray(bound, np.float64)
    # the next number of a dtype has no derivative
    return jax.lax.stop_gradient(bound.astype(drawn_in(dtype)))


def _nearest(bound: Scalar, dtype: DTypeLike) -> Scalar:
    """The number of a dtype that is nearest to a bound; infinite bounds have the dtype's last finite number."""
    limits = jnp.finfo(dtype)
    return bound.clip(float(limits.min), float(limits.max)).astype(dtype)


def _least_from(bound: Scalar, dtype: DTypeLike) -> Scalar:
    """The least number of a dtype that is at least the bound."""
    numpy = jnp if isinstance(bound, jax.Array) else np
    nearest = _nearest(bound, dtype)
    after = numpy.nextafter(nearest, numpy.asarray(jnp.finfo(dtype).max, dtype))
    return numpy.where(nearest.astype(bound.dtype) < bound, after, nearest)


def _greatest_below(bound: Scalar, dtype: DTypeLike) -> Scalar:
    """The greatest number of a dtype that is below the bound."""
    numpy = jnp if isinstance(bound, jax.Array) else np
    nearest = _nearest(bound, dtype)
    before = numpy.nextafter(nearest, numpy.asarray(jnp.finfo(dtype).min, dtype))
    return numpy.where(nearest.astype(bound.dtype) < bound, nearest, before)


def _bounds(least: Scalar, greatest: Scalar, dtype: DTypeLike) -> Bounds:
    wide = drawn_in(dtype)
    return Bounds(least.astype(wide), greatest.astype(wide))
