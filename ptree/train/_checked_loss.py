"""Check what a loss function returned: one floating-point number, or a pair of it and something besides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._errors import StructureError
from .._tree import PyTree, explicit_axes_problem
from .._words import describe, name_of


def loss_and_aux(function: Callable[..., Any], has_aux: bool, *given: Any, **options: Any) -> tuple[jax.Array, PyTree]:
    """Call a loss function: the loss, and what comes with it, or None.

    Raises:
        StructureError: the loss is not one floating-point number, or there is no pair where `has_aux` says so; or JAX cannot
            tell how something in it is split over explicit axes of a mesh.
    """
    name = name_of(function)
    call = "the loss" if name == "loss" else f"the loss {name}"
    try:
        returned = function(*given, **options)
    except Exception as error:
        problem = explicit_axes_problem(error)
        if problem is None:
            raise
        raise StructureError(f"{call}: {problem}") from error
    if not has_aux:
        return _checked(returned, call), None
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise StructureError(f"with has_aux=True {call} must return a pair (loss, aux), got {describe(returned)}")
    value, aux = returned
    return _checked(value, call), aux


def _checked(value: object, call: str) -> jax.Array:
    if isinstance(value, tuple) and len(value) == 2:
        raise StructureError(f"{call} returned a pair. If its second value comes with the loss, say has_aux=True")
    if not isinstance(value, jax.Array | np.ndarray | np.generic | float):
        raise StructureError(f"{call} must return one floating-point number, got {describe(value)}")
    array = jnp.asarray(value)
    if array.ndim > 0:
        raise StructureError(f"{call} must return one number, got {describe(array)}. Take the mean of it: loss.mean()")
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise StructureError(
            f"{call} must return a floating-point number, got {describe(array)}, which has no gradient"
        )
    return array
