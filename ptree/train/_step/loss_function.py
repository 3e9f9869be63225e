"""A loss function of a step, and how it is called: with a key or without."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from ..._tree import PyTree
from ..._words import describe, name_of
from .._checked_loss import loss_and_aux


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
        options = {"key": key} if self.takes_key else {}
        return loss_and_aux(self.function, self.has_aux, params, batch, **options)


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
