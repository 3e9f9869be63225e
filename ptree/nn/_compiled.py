"""Compile the calls of equal layers as one inner `jax.jit` program, traced and lowered once; static options are compiled in."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import jax
import numpy as np
from jax.core import Tracer

from .._tree import PyTree
from ._equality import FieldEquality, identity_of

_MOST_KEPT = 256
"""The most compiled functions, and layers in their closures, that are kept."""


def call(
    method: Callable[..., PyTree],
    layer: FieldEquality,
    inputs: tuple[PyTree, ...],
    options: Mapping[str, PyTree],
    *,
    always: bool = False,
) -> PyTree:
    """Call `method(layer, *inputs, **options)`, as a compiled function where JAX is tracing anyway.

    XLA then neither fuses across the border of the function nor computes its inside again for the gradient, which makes
    small layers such as norms faster; and a block that is in a model 24 times is traced once. Outside of `jax.jit` the
    call is plain: a layer may look at its input, print it, or stop in a debugger. A layer whose call is a JAX loop,
    which compiles in any case, is compiled `always`, once for all calls.
    """
    # Tracers among the options alone do not count: the layer may look at its input and parameters.
    if not always and not _is_traced(inputs):
        return method(layer, *inputs, **options)
    static = {name: value for name, value in options.items() if _is_static(value)}
    arrays = {name: value for name, value in options.items() if name not in static}
    if not _can_be_traced((inputs, arrays), always):
        return method(layer, *inputs, **options)
    function = _compiled(method, layer, static)
    if function is None:
        return method(layer, *inputs, **options)
    return function(inputs, arrays)


def compile_key(layer: FieldEquality) -> Hashable | None:
    """A key that is equal for equal layers, which share a compiled function; None for a layer that can change."""
    identity = identity_of(layer)
    if identity is None or not identity.is_constant:
        return None
    return identity


@dataclass(frozen=True)
class _Program:
    """What a compiled call depends on besides its arrays. Options are compared with their types: 1 is not True."""

    method: Callable[..., PyTree]
    key: Hashable
    options: tuple[tuple[str, type, PyTree], ...]
    layer: FieldEquality = field(compare=False)  # `key` says what matters about it


def _compiled(
    method: Callable[..., PyTree], layer: FieldEquality, options: Mapping[str, PyTree]
) -> Callable[..., PyTree] | None:
    """The compiled function that this layer shares with equal ones; None if its fields or the options have no hash."""
    key = compile_key(layer)
    if key is None:
        return None
    typed = tuple((name, type(value), value) for name, value in options.items())
    try:
        return _function(_Program(method, key, typed, layer))
    except TypeError:  # an option or a field, such as a list, has no hash
        return None


# A hit returns the same function object, in whose cache `jax.jit` finds what it has traced.
@lru_cache(maxsize=_MOST_KEPT)
def _function(program: _Program) -> Callable[..., PyTree]:
    options = {name: value for name, _, value in program.options}

    def run(inputs: tuple[PyTree, ...], arrays: Mapping[str, PyTree]) -> PyTree:
        return program.method(program.layer, *inputs, **options, **arrays)

    run.__name__ = run.__qualname__ = type(program.layer).__name__  # what profiles and jaxprs show
    return jax.jit(run)


def _is_traced(values: PyTree) -> bool:
    """Whether JAX is tracing, so that the values behind these arrays are not known."""
    for leaf in jax.tree.leaves(values):
        if isinstance(leaf, Tracer):
            return leaf.to_concrete_value() is None  # `jax.grad` outside of `jax.jit` traces with values
    return False


def _is_static(value: PyTree) -> bool:
    """Whether an option is compiled into the function, as it says what to compute, rather than passed as an array."""
    return value is None or isinstance(value, (bool, int, str)) or callable(value)


def _can_be_traced(values: PyTree, always: bool) -> bool:
    """Whether a compiled function can take all of these: only arrays.

    NumPy's arrays have values even while JAX is tracing, at which a layer may look; a loop would hide them in any case.
    """
    arrays = (jax.Array, np.ndarray, np.generic) if always else jax.Array
    return all(isinstance(leaf, arrays) for leaf in jax.tree.leaves(values))
