"""Read whole numbers and real numbers of Python, NumPy or JAX, also arrays without axes, as an int or a float of Python."""

from __future__ import annotations

import math
import operator

import numpy as np


def whole_number(value: object) -> int | None:
    """Read a whole number of Python, NumPy, JAX or PyTorch, also an array without axes, as an int; None for anything else.

    >>> whole_number(np.int64(3)), whole_number(np.array(3)), whole_number(3.0), whole_number(True)
    (3, 3, None, None)
    """
    # The bools of Python, PyTorch and older NumPy have an index, and would pass as the size 1; those of JAX have none.
    if isinstance(value, (bool, np.bool_)) or str(getattr(value, "dtype", "")) == "torch.bool":
        return None
    try:
        return operator.index(value)  # pyright: ignore[reportArgumentType]
    except TypeError:  # also of a tracer, whose value is not known
        return None


def real_number(value: object) -> float | None:
    """Read a real number of Python, NumPy or JAX as an int or float of Python; None for anything else."""
    if isinstance(value, (bool, np.bool_)):
        return None
    if isinstance(value, int):
        return int(value) if abs(value) < 1e300 else math.inf  # it may be too large for a float
    if isinstance(value, float):
        return float(value)  # NumPy's float64 is one too
    import jax  # looking at a file, which imports this module, needs no JAX
    import jax.numpy as jnp
    from jax.core import Tracer

    # A number of NumPy or an array without axes, also of bfloat16, which is no subclass of NumPy's floats.
    if isinstance(value, (np.generic, np.ndarray, jax.Array)) and not isinstance(value, Tracer):
        is_real = jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer)
        return float(value) if is_real and value.ndim == 0 else None
    return None
