"""Flatten, all axes but the first as one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax

from .._tree import PyTree
from .._words import describe
from ._inputs import misfit
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

    def apply(self, params: Params, x: PyTree) -> jax.Array:
        if not getattr(x, "shape", ()):
            raise misfit(self, "an array with at least one axis", describe(x))
        return x.reshape(x.shape[0], math.prod(x.shape[1:]))
