"""Checks of the arguments of a step: the optimiser, numbers and functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ..._numbers import whole_number
from ..._words import describe, quoted
from .loss_scale import LossScale


def checked_optimiser(optimiser: object) -> optax.GradientTransformation:
    """
    Raises:
        TypeError: it is no transformation of optax.
    """
    if isinstance(optimiser, optax.MultiSteps):
        return optimiser.gradient_transformation()
    if not isinstance(optimiser, optax.GradientTransformation):
        raise TypeError(
            f"step(loss, optimiser): expected an optimiser of optax, such as optax.adamw(3e-4), got {describe(optimiser)}"
        )
    return optimiser


def checked_count(accumulate: object) -> int:
    """
    Raises:
        TypeError, ValueError: it is no whole number from 1 on.
    """
    count = whole_number(accumulate)
    if count is None:
        raise TypeError(f"step(accumulate=): expected a whole number of microbatches, got {quoted(accumulate)}")
    if count < 1:
        raise ValueError(f"step(accumulate={count}): a batch has at least one microbatch")
    return count


def checked_function(function: Any, name: str, example: str) -> Callable[..., Any] | None:
    """
    Raises:
        TypeError: it is neither a function nor None.
    """
    if function is not None and not callable(function):
        raise TypeError(f"step({name}=): expected a function, such as {example}, got {describe(function)}")
    return function


def checked_scale(scale: object) -> LossScale | None:
    """
    Raises:
        TypeError: it is no LossScale.
    """
    if scale is not None and not isinstance(scale, LossScale):
        raise TypeError(f"step(scale=): expected ptree.train.LossScale(), got {quoted(scale)}")
    return scale


def checked_key(key: Any, takes_key: bool) -> jax.Array | None:
    """
    Raises:
        TypeError: it is no single key of JAX, or missing where the loss takes one.
    """
    if key is None:
        if takes_key:
            raise TypeError("the loss takes a key: step.init(params, key=jax.random.key(0))")
        return None
    is_array = isinstance(key, jax.Array)
    is_typed = is_array and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ()
    is_raw = is_array and key.dtype == jnp.uint32 and key.ndim == 1
    if not is_typed and not is_raw:
        raise TypeError(f"step.init(key=): expected one key, such as jax.random.key(0), got {describe(key)}")
    return key
