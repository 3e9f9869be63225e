"""Floats of 16 bits as float32: sums, averages and small changes of them would be rounded away."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from .._tree import Leaf, PyTree, map_leaves, signature


def at_least_float32(dtype: np.dtype) -> np.dtype:
    """The dtype itself, or float32 in the place of floats of fewer bits; complex numbers stay complex."""
    if jnp.finfo(dtype).bits < 32:
        return np.dtype(np.float32)
    return jax.dtypes.canonicalize_dtype(dtype)


def with_wide_floats(tree: PyTree) -> PyTree:
    """A tree of arrays or shapes with its floats in float32 or wider; other leaves stay as they are."""
    return map_leaves(tree, lambda path, leaf: _wide(leaf))


def _wide(leaf: Leaf) -> Leaf:
    about = signature(leaf)
    if not isinstance(about, tuple) or not jnp.issubdtype(about[1], jnp.inexact):
        return leaf
    dtype = at_least_float32(leaf.dtype)
    if dtype == leaf.dtype:
        return leaf
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=leaf.sharding)
    return leaf.astype(dtype)
