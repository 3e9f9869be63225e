"""An index into one array: what it selects, checked against the array's bounds, and a write to that part."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .._errors import StructureError
from .._tree import Leaf, signature
from .._words import describe, quoted

Elements: TypeAlias = Any
"""An index expression, as in `array[...]`: numbers, slices, arrays of numbers or of bools, or a tuple of these."""


def written_at(path: str, leaf: Leaf, at: Elements, value: Leaf) -> Leaf:
    """The array with a part of it written; bounds are checked where the index is known."""
    asked = f"cannot set {quoted(path)} at {_index_text(at)}"
    at = tuple(map(_array, at)) if isinstance(at, tuple) else _array(at)
    if not isinstance(leaf, (jax.Array, np.ndarray)):
        raise StructureError(f"{asked}: it is {describe(leaf)}, not an array")
    if any(isinstance(part, Tracer) and part.dtype == bool for part in jax.tree.leaves(at)):
        raise StructureError(f"{asked}: a mask that is only known inside of jit has no known shape; use jnp.where")
    index = jax.tree.map(_known, at)  # of what only jit knows the bounds cannot be checked
    try:
        shape = np.broadcast_to(np.int8(0), leaf.shape)[index].shape  # NumPy checks what JAX clamps
    except (IndexError, TypeError, ValueError) as error:
        raise StructureError(f"{asked}: it is {describe(leaf)}, and {error}") from None
    if 0 in shape and 0 not in leaf.shape:
        raise StructureError(f"{asked}: it is {describe(leaf)}, and the index selects nothing of it")
    number = isinstance(value, (bool, int, float, complex))
    if not number and signature(value) != (shape, leaf.dtype):
        part = jax.ShapeDtypeStruct(shape, leaf.dtype)
        raise StructureError(f"{asked}: expected a number or {describe(part)}, got {describe(value)}")
    if number and not _holds(leaf.dtype, value):
        raise StructureError(f"{asked}: expected a number that {describe(leaf)} can hold, got {quoted(value)}")
    if isinstance(leaf, np.ndarray):
        new = leaf.copy()
        new[at] = value
        return new
    return leaf.at[at].set(value)


def _array(part: Any) -> Any:
    return np.asarray(part) if isinstance(part, list) else part


def _known(part: Any) -> Any:
    if isinstance(part, Tracer):
        return np.zeros(part.shape, int)
    return np.asarray(part) if isinstance(part, jax.Array) else part


def _holds(dtype: Any, number: Any) -> bool:
    """Whether a dtype has a place for a Python number, rounding allowed."""
    if isinstance(number, bool) or jnp.issubdtype(dtype, jnp.complexfloating):
        return True
    if isinstance(number, int) and jnp.issubdtype(dtype, jnp.integer):
        return jnp.iinfo(dtype).min <= number <= jnp.iinfo(dtype).max
    if isinstance(number, complex) or not jnp.issubdtype(dtype, jnp.floating):
        return False
    return not abs(number) > float(jnp.finfo(dtype).max) or number in (math.inf, -math.inf)


def _index_text(at: Any) -> str:
    parts = at if isinstance(at, tuple) else (at,)
    return (
        "["
        + ", ".join(_slice_text(p) if isinstance(p, slice) else "..." if p is ... else describe(p) for p in parts)
        + "]"
    )


def _slice_text(part: slice) -> str:
    ends = ["" if end is None else describe(end) for end in (part.start, part.stop)]
    return ":".join(ends if part.step is None else [*ends, describe(part.step)])
