"""A leaf: its signature (shape and dtype), copies, whether two leaves hold the same values, and their largest difference.

A leaf is whatever JAX does not open: an array of any library, a tracer, a `Param`, a
`jax.ShapeDtypeStruct`, a bool, a label, a sharding.
"""

from __future__ import annotations

from typing import Any, TypeAlias, TypeVar

import jax
import numpy as np

PyTree: TypeAlias = Any
"""Any pytree: a Tree, dicts, lists, dataclasses, an optax state, a single leaf."""

Leaf: TypeAlias = Any
"""Whatever JAX does not open: an array of any library, a tracer, a `Param`, a number, a label, a sharding."""

Signature: TypeAlias = tuple[tuple[int, ...], Any] | type
"""The shape and dtype of an array, of a `Param` or the like; the type of any other leaf."""

T = TypeVar("T")


def signature(leaf: Leaf) -> Signature:
    """What must agree for one leaf to take another's place: shape and dtype, else the type."""
    try:
        shape = leaf.shape
        return shape if type(shape) is tuple else tuple(shape), leaf.dtype
    except (AttributeError, TypeError):
        return type(leaf)


def shape_only(leaf: Leaf) -> Leaf:
    """An array's shape and dtype; any other leaf as it is."""
    if isinstance(leaf, jax.Array | np.ndarray):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    return leaf


def copied(leaf: T) -> T:
    """A copy of an array, so that both can be donated; any other leaf as it is."""
    if isinstance(leaf, jax.Array | np.ndarray):
        return leaf.copy()  # pyright: ignore[reportReturnType]
    return leaf


def same(a: Leaf, b: Leaf) -> bool:
    """Whether two leaves hold the same: equal shapes, dtypes and values, where NaN equals NaN."""
    if a is b:
        return True
    if signature(a) != signature(b):
        return False
    equal = a == b
    if hasattr(equal, "all") and hasattr(a, "shape"):
        both_nan = (a != a) & (b != b)
        return bool((equal | both_nan).all())
    return bool(equal) or bool(a != a and b != b)


def largest_difference(a: Leaf, b: Leaf) -> float | None:
    """The largest distance between two arrays of numbers of one shape; None for any other pair.

    NaN where one holds NaN and the other does not.
    """
    try:
        a, b = np.asarray(a), np.asarray(b)
        if a.dtype.itemsize < 4 or a.dtype.kind in "iub":  # small floats and integers would overflow
            a, b = a.astype(np.float64), b.astype(np.float64)
        with np.errstate(invalid="ignore"):
            is_same = (a == b) | ((a != a) & (b != b))
            distance = np.where(is_same, 0, abs(a - b))
    except (TypeError, ValueError):
        return None
    if a.shape != b.shape:
        return None
    return float(distance.max()) if distance.size else 0.0
