"""Leaves that are arrays or stand for one: the shape and dtype of each, the bytes of its numbers on a device."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._errors import StructureError
from .._tree import Leaf, Leaves, PyTree, leaves
from .._words import describe, lines, quoted
from .spec_fit import Shape


def itemsize(dtype: Any) -> int:
    """The bytes of one number on a device, or of one PRNG key."""
    return on_device(dtype).itemsize


def on_device(dtype: Any) -> Any:
    """The dtype of an array of this dtype on a device, where JAX has 64 bits only if that is configured."""
    return _on_device(dtype, jax.config.jax_enable_x64)  # pyright: ignore[reportAttributeAccessIssue]


@lru_cache(maxsize=256, typed=True)
def _on_device(dtype: Any, has_64_bits: bool) -> Any:
    if jnp.issubdtype(dtype, jax.dtypes.extended):
        return dtype
    return jax.dtypes.canonicalize_dtype(dtype)


def as_traced(leaf: Leaf) -> Leaf:
    """A `jax.ShapeDtypeStruct` in the dtype that JAX computes in; any other leaf as it is.

    Without x64 that is f32 for f64. JAX 0.12 warns where it is to trace a shape in a dtype that it has not.
    """
    if not isinstance(leaf, jax.ShapeDtypeStruct):
        return leaf
    dtype = on_device(leaf.dtype)
    return leaf if dtype == leaf.dtype else jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=leaf.sharding)


_NO_NUMBERS = "OSUMm"
"""The kinds of NumPy's dtypes that no device holds: objects, texts, dates."""


def shape_and_dtype(leaf: Leaf) -> tuple[Shape, Any] | None:
    """The shape and dtype of an array, of what stands for one, or of a number; None for what no device can hold."""
    if isinstance(leaf, bool | int | float | complex):
        return (), jax.dtypes.canonicalize_dtype(type(leaf))
    shape, dtype = getattr(leaf, "shape", None), getattr(leaf, "dtype", None)
    if shape is None or dtype is None or isinstance(leaf, type):
        return None
    if isinstance(dtype, np.dtype) and dtype.kind in _NO_NUMBERS:
        return None
    return tuple(shape), dtype


def array_leaves(tree: PyTree) -> Leaves:
    """The leaves of a tree by path, each with a shape and a dtype: a number as that of an array.

    Raises:
        StructureError: with the paths of leaves that have none.
    """
    pairs = leaves(tree)
    kinds = {(type(leaf), getattr(leaf, "dtype", None)): leaf for _, leaf in pairs}  # few, where leaves are many
    if not any(shape_and_dtype(leaf) is None or type(leaf) in _NUMBERS for leaf in kinds.values()):
        return pairs
    others = [(path, leaf) for path, leaf in pairs if shape_and_dtype(leaf) is None]
    if others:
        shown = lines([f"{quoted(path)} is {describe(leaf)}" for path, leaf in others], "; ")
        raise StructureError(
            f"only arrays live on devices, but {shown}. Keep what is no array apart: arrays, static ="
            " eqx.partition(model, eqx.is_array)"
        )
    return [(path, _as_array(leaf)) for path, leaf in pairs]


_NUMBERS = {bool, int, float, complex}


def _as_array(leaf: Leaf) -> Leaf:
    if type(leaf) not in _NUMBERS:
        return leaf
    return jax.ShapeDtypeStruct((), jax.dtypes.canonicalize_dtype(type(leaf)))
