"""Elements of one array: an index checked against the array's bounds, and a write to what it selects."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .._errors import StructureError
from .._tree import Leaf, signature, written
from .._words import describe, quoted

Elements: TypeAlias = Any
"""An index expression, as in `array[...]`: numbers, slices, arrays of numbers or of bools, or a tuple of these."""

Number: TypeAlias = bool | int | float | complex


def written_at(path: str, leaf: Leaf, at: Elements, value: Leaf) -> Leaf:
    """The array with its elements at an index written; bounds are checked where the index is known.

    Raises:
        StructureError: no array, an index out of bounds, or a value of another shape or dtype, or beyond the dtype.
    """
    attempt = f"cannot set {quoted(path)} at {_index_text(at)}"
    at = tuple(map(_as_array, at)) if isinstance(at, tuple) else _as_array(at)
    if not isinstance(leaf, jax.Array | np.ndarray):
        raise StructureError(f"{attempt}: it is {describe(leaf)}, not an array")
    shape = _selected_shape(leaf, at, attempt)
    _check_value(value, shape, leaf, attempt)
    if isinstance(leaf, np.ndarray):
        changed = leaf.copy()
        changed[at] = value
        return changed
    return written(leaf, at, value)


def _as_array(part: Elements) -> Elements:
    return np.asarray(part) if isinstance(part, list) else part


def _selected_shape(leaf: jax.Array | np.ndarray[Any, Any], at: Elements, attempt: str) -> tuple[int, ...]:
    """The shape of what an index selects. NumPy checks the bounds that JAX clamps in silence."""
    for part in jax.tree.leaves(at):
        if isinstance(part, Tracer) and part.dtype == bool:
            raise StructureError(
                f"{attempt}: a mask that is only known inside of jit has no known shape; use jnp.where"
            )
    index = jax.tree.map(_on_host, at)
    try:
        shape = np.broadcast_to(np.int8(0), leaf.shape)[index].shape
    except (IndexError, TypeError, ValueError) as error:
        raise StructureError(f"{attempt}: it is {describe(leaf)}, and {error}") from None
    if 0 in shape and 0 not in leaf.shape:
        raise StructureError(f"{attempt}: it is {describe(leaf)}, and the index selects nothing of it")
    return shape


def _on_host(part: Elements) -> Elements:
    """An index as NumPy takes it: zeros, which are never out of bounds, for one that is only known inside of jit."""
    if isinstance(part, Tracer):
        return np.zeros(part.shape, int)
    return np.asarray(part) if isinstance(part, jax.Array) else part


def _check_value(value: Leaf, shape: tuple[int, ...], leaf: Leaf, attempt: str) -> None:
    if isinstance(value, Number):
        if not _can_hold(leaf.dtype, value):
            raise StructureError(f"{attempt}: expected a number that {describe(leaf)} can hold, got {quoted(value)}")
        return
    if signature(value) != (shape, leaf.dtype):
        expected = describe(jax.ShapeDtypeStruct(shape, leaf.dtype))
        raise StructureError(f"{attempt}: expected a number or {expected}, got {describe(value)}")


def _can_hold(dtype: Any, number: Number) -> bool:
    """Whether a dtype can hold a Python number, rounding allowed."""
    if isinstance(number, bool) or jnp.issubdtype(dtype, jnp.complexfloating):
        return True
    if isinstance(number, int) and jnp.issubdtype(dtype, jnp.integer):
        return jnp.iinfo(dtype).min <= number <= jnp.iinfo(dtype).max
    if isinstance(number, complex) or not jnp.issubdtype(dtype, jnp.floating):
        return False
    return not abs(number) > float(jnp.finfo(dtype).max) or number in (math.inf, -math.inf)


def _index_text(at: Elements) -> str:
    parts = at if isinstance(at, tuple) else (at,)
    return f"[{', '.join(map(_part_text, parts))}]"


def _part_text(part: Elements) -> str:
    if part is ...:
        return "..."
    if not isinstance(part, slice):
        return describe(part)
    ends = [part.start, part.stop] if part.step is None else [part.start, part.stop, part.step]
    return ":".join("" if end is None else describe(end) for end in ends)
