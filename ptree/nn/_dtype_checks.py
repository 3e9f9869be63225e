"""Check arguments that are dtypes, of parameters or to compute in, or initialisers such as kernel_init."""

from __future__ import annotations

import inspect

import jax.numpy as jnp
import numpy as np

from .. import initializers
from .._words import name_of
from ._argument_checks import UnfitError, nearest_fix


def param_dtype(value: object) -> object:
    """Check the dtype of parameters: a dtype of numbers, also whole ones, which quantised parameters are."""
    return _dtype_of_kind(value, np.number, "a dtype of numbers such as jnp.float32")


def compute_dtype(value: object) -> object:
    """Check the dtype that a layer computes in: floats, as whole numbers would cut off the input's fractions."""
    return _dtype_of_kind(value, jnp.inexact, "a dtype of floats such as jnp.bfloat16")


def _dtype_of_kind(value: object, kind: type, expected: str) -> object:
    if value is None:  # NumPy reads it as float64
        raise UnfitError(expected)
    try:
        dtype = jnp.dtype(value)  # pyright: ignore[reportArgumentType, reportCallIssue]
    except TypeError:
        raise UnfitError(expected, nearest_fix(value, _DTYPES)) from None
    if not jnp.issubdtype(dtype, kind):
        raise UnfitError(expected)
    return value


_DTYPES = ("float32", "bfloat16", "float16", "float64", "complex64", "complex128", "int8", "int32")


def initializer(value: object) -> object:
    """Check an initialiser: a function `(key, shape, dtype) -> array`."""
    expected = "an initialiser, a function (key, shape, dtype) -> array"
    if isinstance(value, str):
        raise UnfitError(expected, _named_initializer(value))
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise UnfitError(expected, f": write initializers.constant({value!r})")
    if not callable(value) or isinstance(value, type):
        raise UnfitError(expected)
    # `normal` in the place of `normal(0.1)` would fail only when it draws.
    if inspect.isfunction(value) and value in vars(initializers).values():
        raise UnfitError(expected, f": call it first, initializers.{name_of(value)}(...)")
    return value


def _named_initializer(name: str) -> str:
    """What to write instead of the name of an initialiser, as in Keras: "glorot_uniform"."""
    if name in initializers.__all__:
        call = "(...)" if inspect.isfunction(vars(initializers)[name]) else ""
        return f": write initializers.{name}{call}"
    return nearest_fix(name, initializers.__all__)
