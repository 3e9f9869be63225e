"""Compiled calls: inside of `jax.jit`, equal layers are one inner jit function, traced and lowered once."""

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
"""How many compiled functions are kept, and the layers that these close over."""


def call(
    method: Callable[..., PyTree],
    layer: FieldEquality,
    inputs: tuple[PyTree, ...],
    options: Mapping[str, PyTree],
    *,
    always: bool = False,
) -> PyTree:
    """Call `method(layer, *inputs, **options)`, as a `jax.jit` function wherever JAX is tracing anyway.

    XLA then neither fuses across its border nor computes its inside again for the gradient, which makes small layers
    such as norms faster; and a block that stands in a model 24 times is traced once. Where values are known, outside
    of `jax.jit`, the call is plain: a layer may look at its input, print it, or stop in a debugger. A layer whose call
    is a loop of JAX's, which compiles in any case, is compiled `always`, once for all calls.
    """
    # Tracers among options alone do not count: the input and the parameters are then values to look at.
    if not always and not _is_traced(inputs):
        return method(layer, *inputs, **options)
    static = {name: value for name, value in options.items() if _is_static(value)}
    arrays = {name: value for name, value in options.items() if name not in static}
    function = _compiled(method, layer, static) if _can_be_traced((inputs, arrays), always) else None
    if function is None:
        return method(layer, *inputs, **options)
    return function(inputs, arrays)


def compile_key(layer: FieldEquality) -> Hashable | None:
    """A key that layers share which compile to the same function; None for a layer that can change."""
    identity = identity_of(layer)
    return identity if identity is not None and identity.is_constant else None


@dataclass(frozen=True)
class _Program:
    """What a compiled call depends on besides its arrays. Options count with their types: 1 is not True."""

    method: Callable[..., PyTree]
    key: Hashable
    options: tuple[tuple[str, type, PyTree], ...]
    layer: FieldEquality = field(compare=False)


def _compiled(
    method: Callable[..., PyTree], layer: FieldEquality, options: Mapping[str, PyTree]
) -> Callable[..., PyTree] | None:
    """The compiled function of all layers that are equal to this one; None where equality cannot tell."""
    key = compile_key(layer)
    if key is None:
        return None
    typed = tuple((name, type(value), value) for name, value in options.items())
    try:
        return _function(_Program(method, key, typed, layer))
    except TypeError:  # an option, or what the layer holds, has no hash
        return None


@lru_cache(maxsize=_MOST_KEPT)
def _function(program: _Program) -> Callable[..., PyTree]:
    options = {name: value for name, _, value in program.options}

    def run(inputs: tuple[PyTree, ...], arrays: Mapping[str, PyTree]) -> PyTree:
        return program.method(program.layer, *inputs, **options, **arrays)

    run.__name__ = run.__qualname__ = type(program.layer).__name__  # what profiles and jaxprs show
    return jax.jit(run)


def _is_traced(values: PyTree) -> bool:
    """Whether values are tracers that hide them, so that nothing can look at values."""
    for leaf in jax.tree.leaves(values):
        if isinstance(leaf, Tracer):
            return leaf.to_concrete_value() is None
    return False


def _is_static(value: PyTree) -> bool:
    """Whether an option says what to compute, rather than being computed with."""
    return value is None or isinstance(value, (bool, int, str)) or callable(value)


def _can_be_traced(values: PyTree, always: bool) -> bool:
    """Whether all are arrays. NumPy's are traced only in loops: elsewhere a layer may look at their values."""
    arrays = (jax.Array, np.ndarray, np.generic) if always else jax.Array
    return all(isinstance(leaf, arrays) for leaf in jax.tree.leaves(values))
