"""Clip gradients by the norm of all of them together."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from ..._tree import Leaf, PyTree
from .._wide_floats import at_least_float32, with_wide_floats


def global_norm(tree: PyTree) -> Leaf:
    """The Euclidean norm of all numbers of all leaves; those of 16 bits are summed in float32, where they do not overflow."""
    return optax.tree.norm(with_wide_floats(tree))


def clipped(gradients: PyTree, largest: float) -> PyTree:
    """The gradients, scaled down if their global norm is larger than this, as `optax.clip_by_global_norm` does."""
    norm = global_norm(gradients)
    fits = norm < largest

    def scaled(gradient: Leaf) -> Leaf:
        # in the order of optax, so that the last bits agree
        return jnp.where(fits, gradient, (gradient / norm.astype(gradient.dtype)) * largest)

    def scaled_wide(gradient: Leaf) -> Leaf:
        return scaled(gradient.astype(at_least_float32(gradient.dtype))).astype(gradient.dtype)

    return jax.tree.map(scaled_wide, gradients)
