"""A loss function with its checks: how it is called, with a key or without, and that it returns one floating-point number."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..._errors import StructureError
from ..._tree import PyTree
from ..._words import describe, name_of


@dataclass(frozen=True)
class LossFunction:
    """`loss(params, batch)` or `loss(params, batch, key=key)`, which returns a loss, or a loss and something besides."""

    function: Callable[..., Any]
    takes_key: bool
    has_aux: bool

    @classmethod
    def of(cls, function: Callable[..., Any], has_aux: bool) -> LossFunction:
        """
        Raises:
            TypeError: it is no function, or cannot be called with parameters and a batch.
        """
        if not callable(function):
            raise TypeError(f"step(loss, optimiser): expected a function loss(params, batch), got {describe(function)}")
        return cls(function, _takes_key(function), has_aux)

    def __call__(self, params: PyTree, batch: PyTree, key: jax.Array | None) -> tuple[jax.Array, PyTree]:
        """The loss, and what comes with it, or None.

        Raises:
            StructureError: the loss is not one floating-point number, or there is no pair where `has_aux` says so.
        """
        given = self.function(params, batch, key=key) if self.takes_key else self.function(params, batch)
        if not self.has_aux:
            return self._checked(given), None
        if not isinstance(given, tuple) or len(given) != 2:
            raise StructureError(
                f"with has_aux=True {self._call} must return a pair (loss, aux), got {describe(given)}"
            )
        value, aux = given
        return self._checked(value), aux

    def _checked(self, value: object) -> jax.Array:
        if isinstance(value, tuple) and len(value) == 2:
            raise StructureError(
                f"{self._call} returned a pair. If its second value comes with the loss, say has_aux=True"
            )
        if not isinstance(value, jax.Array | np.ndarray | np.generic | float):
            raise StructureError(f"{self._call} must return one floating-point number, got {describe(value)}")
        array = jnp.asarray(value)
        if array.ndim > 0:
            raise StructureError(
                f"{self._call} must return one number, got {describe(array)}. Take the mean of it: loss.mean()"
            )
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise StructureError(
                f"{self._call} must return a floating-point number, got {describe(array)}, which has no gradient"
            )
        return array

    @property
    def _call(self) -> str:
        return f"the loss {name_of(self.function)}"


def _takes_key(function: Callable[..., Any]) -> bool:
    """Whether a function has an argument named `key`, which is not given yet.

    Raises:
        TypeError: it cannot be called with two arguments.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some functions in C do not say it
        return False
    parameter = signature.parameters.get("key")
    is_given = isinstance(function, functools.partial) and "key" in function.keywords
    takes_key = parameter is not None and parameter.kind is not parameter.POSITIONAL_ONLY and not is_given
    options = {"key": None} if takes_key else {}
    try:
        signature.bind(None, None, **options)
    except TypeError as error:
        raise TypeError(
            f"the loss {name_of(function)}{signature} must be called as loss(params, batch) or"
            f" loss(params, batch, key=key): {error}"
        ) from None
    return takes_key
