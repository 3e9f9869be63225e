"""The exponential moving average of parameters: in float32 or wider, started from the parameters."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp

from ..._numbers import real_number
from ..._tree import Leaf, PyTree
from ..._words import quoted

Decay: TypeAlias = float | Callable[[jax.Array], Leaf]
"""A decay, or a function of the number of steps taken before that gives it."""


def checked_decay(decay: object) -> Decay | None:
    """A decay from 0 to below 1, a schedule of decays, or None.

    Raises:
        TypeError, ValueError: it is something else.
    """
    if decay is None or callable(decay):
        return decay
    number = real_number(decay)
    if number is None:
        raise TypeError(f"expected a decay such as ema=0.999, or a function of the step, got {quoted(decay)}")
    if not 0 <= number < 1 or math.isnan(number):
        raise ValueError(f"expected a decay from 0 to below 1, such as ema=0.999, got {quoted(decay)}")
    return float(number)


def wide(dtype: jnp.dtype) -> jnp.dtype:
    """A dtype in which small changes of numbers of this one are not lost: float32 or wider, complex where this is."""
    return jnp.promote_types(dtype, jnp.float32)


def started(trained: PyTree) -> PyTree:
    """The average before the first step: copies, since the step donates the parameters as well."""
    return jax.tree.map(lambda leaf: jnp.array(leaf, wide(leaf.dtype), copy=True), trained)


def averaged(average: PyTree, trained: PyTree, decay: Decay, step: jax.Array) -> PyTree:
    """The average after a step: `decay * average + (1 - decay) * parameter`."""
    now = decay(step) if callable(decay) else decay

    def leaf_averaged(before: jax.Array, leaf: jax.Array) -> jax.Array:
        kept = jnp.asarray(now, jnp.finfo(before.dtype).dtype)
        return before + (1 - kept) * (leaf.astype(before.dtype) - before)

    return jax.tree.map(leaf_averaged, average, trained)


def as_parameters(average: PyTree, trained: PyTree) -> PyTree:
    """The average in the dtypes of the parameters: copies, since the step donates the average."""
    return jax.tree.map(lambda mean, leaf: jnp.array(mean, leaf.dtype, copy=True), average, trained)
