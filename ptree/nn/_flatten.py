"""Flatten: merge all axes but the batch into one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
from jax.sharding import PartitionSpec

from .._tree import PyTree, entries_of
from ._explicit_axes import split_along, splits_output
from ._inputs import described, is_foreign, misfit
from ._layer import Layer, Params


@dataclass(frozen=True, eq=False, repr=False)
class Flatten(Layer):
    """All axes but the first as one: f32[batch, ...] -> f32[batch, features].

    >>> import jax.numpy as jnp
    >>> Flatten()({}, jnp.ones((2, 8, 8))).shape
    (2, 64)

    Raises:
        LayerError: an input without an axis.
    """

    def _split(self, params: Params, x: PyTree) -> PartitionSpec:
        # Several axes as one are gathered: their order in memory is not that of the parts.
        entries = entries_of(x)
        return split_along(entries if len(entries) == 2 else (*entries[:1], None))

    @splits_output(_split)
    def apply(self, params: Params, x: PyTree) -> jax.Array:
        if not getattr(x, "shape", ()) or is_foreign(x):  # a Python number has no shape at all
            raise misfit(self, "an array with at least one axis", described(x))
        # Not -1, which NumPy and JAX cannot work out for an empty batch.
        return x.reshape(x.shape[0], math.prod(x.shape[1:]))
