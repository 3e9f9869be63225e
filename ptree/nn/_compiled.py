"""Calls of layers as functions of their own: inside of `jax.jit`, equal layers are traced and lowered once."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import jax
from jax.core import Tracer


def compiled(call: Callable[..., Any], name: str) -> Callable[..., Any]:
    """A layer's call that is a `jax.jit` function wherever values are not known anyway.

    XLA then neither fuses across its border nor computes its inside again for the gradient, which makes small layers
    such as norms faster; and a block that stands in a model 24 times is traced once. Where values are known, outside
    of `jax.jit`, the call is what it says: a layer may look at its input, print it, or stop in a debugger.
    """

    def run(layer: Any, fixed: tuple[tuple[str, Any], ...], params: Any, x: Any, moving: dict[str, Any]) -> Any:
        return call(layer, params, x, **dict(fixed), **moving)

    run.__name__ = run.__qualname__ = name
    jitted = jax.jit(run, static_argnums=(0, 1))

    @wraps(call)
    def called(self: Any, params: Any, x: Any, *args: Any, **options: Any) -> Any:
        if args or not _unknown((x, params)) or not _hashable(self):
            return call(self, params, x, *args, **options)
        fixed = {name: value for name, value in options.items() if _is_fixed(value)}
        moving = {name: value for name, value in options.items() if name not in fixed}
        if not _traceable((x, params, moving)):
            return call(self, params, x, **options)
        return jitted(self, tuple(fixed.items()), params, x, moving)

    return called


def _unknown(values: Any) -> bool:
    """Whether JAX is tracing, so that nothing can look at values."""
    tracer = next((leaf for leaf in jax.tree.leaves(values) if isinstance(leaf, Tracer)), None)
    return tracer is not None and tracer.to_concrete_value() is None


def _hashable(layer: Any) -> bool:
    try:
        hash(layer)
    except TypeError:  # one that holds an array, say
        return False
    return True


def _is_fixed(value: Any) -> bool:
    """Whether an option says what to compute, rather than being computed with."""
    return value is None or isinstance(value, (bool, int, str)) or callable(value)


def _traceable(values: Any) -> bool:
    return all(hasattr(leaf, "shape") and hasattr(leaf, "dtype") for leaf in jax.tree.leaves(values))
