"""Calls of layers as functions of their own: inside of `jax.jit`, equal layers are traced and lowered once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

_MOST_KEPT = 256
"""How many layers' functions are kept, and what these close over with them."""


def compiled(method: Callable[..., Any], *, always: bool = False) -> Callable[..., Any]:
    """A layer's method `(self, params, x, ...)` that is a `jax.jit` function wherever values are not known anyway.

    XLA then neither fuses across its border nor computes its inside again for the gradient, which makes small layers
    such as norms faster; and a block that stands in a model 24 times is traced once. Where values are known, outside
    of `jax.jit`, the call is what it says: a layer may look at its input, print it, or stop in a debugger. One that
    is a loop of JAX's own, which compiles in any case, is compiled `always`, once for all calls.
    """
    given = [*inspect.signature(method).parameters.values()][3:]
    names = [parameter.name for parameter in given if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]

    @wraps(method)
    def called(self: Any, params: Any, x: Any, *args: Any, **options: Any) -> Any:
        if not always and not _unknown((x, params)):
            return method(self, params, x, *args, **options)
        given = {**dict(zip(names, args, strict=False)), **options}
        fixed = tuple((name, type(value), value) for name, value in given.items() if _is_fixed(value))
        moving = {name: value for name, value in given.items() if not _is_fixed(value)}
        if len(args) > len(names) or not self.is_fixed or not _traceable((params, x, moving), always):
            return method(self, params, x, *args, **options)
        try:
            function = _function(method, self, fixed)
        except TypeError:  # an option, or what a layer holds, has no hash
            return method(self, params, x, *args, **options)
        return function(params, x, moving)

    return called


@lru_cache(maxsize=_MOST_KEPT)
def _function(method: Callable[..., Any], layer: Any, fixed: tuple[tuple[str, type, Any], ...]) -> Any:
    """The compiled function of a layer, and of all that are equal to it."""

    options = {name: value for name, _, value in fixed}

    def run(params: Any, x: Any, moving: dict[str, Any]) -> Any:
        return method(layer, params, x, **options, **moving)

    run.__name__ = run.__qualname__ = type(layer).__name__
    return jax.jit(run)


def _unknown(values: Any) -> bool:
    """Whether JAX is tracing, so that nothing can look at values."""
    tracer = next((leaf for leaf in jax.tree.leaves(values) if isinstance(leaf, Tracer)), None)
    return tracer is not None and tracer.to_concrete_value() is None


def _is_fixed(value: Any) -> bool:
    """Whether an option says what to compute, rather than being computed with."""
    return value is None or isinstance(value, (bool, int, str)) or callable(value)


def _traceable(values: Any, numpy: bool) -> bool:
    """Whether all are arrays; those of NumPy only if asked for, as their values are known and a layer may look at them."""
    arrays = (jax.Array, np.ndarray, np.generic) if numpy else jax.Array
    return all(isinstance(leaf, arrays) for leaf in jax.tree.leaves(values))
