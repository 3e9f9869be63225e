"""The exponential moving average of parameters: in float32 or wider, started from the parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import TypeAlias

import jax
import jax.numpy as jnp

from ..._numbers import real_number
from ..._tree import Leaf, PyTree, leaves, map_leaves
from ..._words import quoted
from .._groups.leaf_groups import part_of
from .._wide_floats import at_least_float32

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


def started(trained: PyTree) -> PyTree:
    """The average before the first step: copies, since the step donates the parameters as well."""
    return jax.tree.map(lambda leaf: jnp.array(leaf, at_least_float32(leaf.dtype), copy=True), trained)


def averaged(average: PyTree, params: PyTree, decay: Decay, step: jax.Array) -> PyTree:
    """The average after a step, of the leaves that it has: `decay * average + (1 - decay) * parameter`."""
    now = decay(step) if callable(decay) else decay
    values = dict(leaves(params))

    def leaf_averaged(path: str, before: jax.Array) -> jax.Array:
        kept = jnp.asarray(now, jnp.finfo(before.dtype).dtype)
        return before + (1 - kept) * (values[path].astype(before.dtype) - before)

    return map_leaves(average, leaf_averaged)


def averaged_part(average: PyTree, params: PyTree, trained: Collection[str]) -> PyTree:
    """The parameters that have an average: those that are trained, and those that were, so that freezing a leaf keeps its average."""
    before = set() if average is None else {path for path, _ in leaves(average)}
    everything = [path for path, _ in leaves(params)]
    chosen = [path for path in everything if path in trained or path in before]
    if len(chosen) == len(everything):  # with what holds no leaves, such as None, as `started` has it
        return params
    return part_of(params, tuple(chosen))


def as_parameters(average: PyTree, params: PyTree) -> PyTree:
    """The parameters with the average where there is one, in their own dtypes: copies, since the step donates the average."""
    means = dict(leaves(average))

    def mean_or_leaf(path: str, leaf: Leaf) -> Leaf:
        return jnp.array(means[path], leaf.dtype, copy=True) if path in means else leaf

    return map_leaves(params, mean_or_leaf)
