"""Convert numbers exactly to a dtype, and choose the float dtype to draw in: 8-bit floats are drawn in float32."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from .._errors import InitError
from .._words import describe, short_dtype


def exact(value: ArrayLike, dtype: DTypeLike) -> np.ndarray:
    """Convert a number or an array exactly to this dtype: it may be rounded, but not become another whole number, infinite or NaN.

    Raises:
        InitError: the dtype cannot hold it.
    """
    given = np.asarray(value)
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


def drawn_in(dtype: DTypeLike) -> np.dtype:
    """Choose the dtype to draw in: 8-bit floats are too coarse to compute with, so they are rounded from float32.

    Raises:
        InitError: a dtype that is no float and not complex.
    """
    if not is_inexact(dtype):
        raise InitError(
            f"it draws floats, and the leaf is {short_dtype(dtype)}; use constant, or a function of your own"
        )
    return jnp.dtype(jnp.float32) if jnp.dtype(dtype).itemsize < 2 else jnp.dtype(dtype)
