"""One leaf: its shape and dtype, how a person reads it, and whether two are the same.

A leaf is whatever JAX does not open: an array of any library, a tracer, a `Param`, a
`jax.ShapeDtypeStruct`, a bool, a label, a sharding.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import jax
import numpy as np

PyTree: TypeAlias = Any
"""Any pytree: a Tree, dicts, lists, dataclasses, an optax state, a single leaf."""

Leaf: TypeAlias = Any
"""Whatever JAX does not open: an array of any library, a tracer, a `Param`, a number, a label, a sharding."""


def signature(leaf: Any) -> tuple[tuple[int, ...], Any] | type:
    """What must agree for one leaf to take another's place: shape and dtype, else the type."""
    try:
        return leaf.shape if type(leaf.shape) is tuple else tuple(leaf.shape), leaf.dtype
    except (AttributeError, TypeError):
        return type(leaf)


def shape_only(leaf: Any) -> Any:
    """An array's shape and dtype; any other leaf as it is."""
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if isinstance(leaf, (jax.Array, np.ndarray)) else leaf


def copied(leaf: Any) -> Any:
    """An array of its own, so that both can be donated; any other leaf as it is."""
    return leaf.copy() if isinstance(leaf, (jax.Array, np.ndarray)) else leaf


def same(a: Any, b: Any) -> bool:
    """Whether two leaves hold the same: equal shapes, dtypes and values, where NaN equals NaN."""
    if a is b:
        return True
    if signature(a) != signature(b):
        return False
    equal = a == b
    if hasattr(equal, "all") and hasattr(a, "shape"):
        return bool((equal | ((a != a) & (b != b))).all())
    return bool(equal) or bool(a != a and b != b)


def largest_difference(a: Any, b: Any) -> float | None:
    """The largest distance between two arrays of numbers of one shape; None for what is no such pair.

    NaN where one holds NaN and the other does not.
    """
    try:
        a, b = np.asarray(a), np.asarray(b)
        if a.dtype.itemsize < 4 or a.dtype.kind in "iub":
            a, b = a.astype(np.float64), b.astype(np.float64)
        with np.errstate(invalid="ignore"):
            off = np.where((a == b) | ((a != a) & (b != b)), 0, abs(a - b))
    except (TypeError, ValueError):
        return None
    if a.shape != b.shape:
        return None
    return float(off.max()) if off.size else 0.0
