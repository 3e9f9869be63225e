"""Compile initialisers, and keep what was compiled in bounded caches: one compiled function for each kind of leaf.

The numbers of ptree's own initialisers are arguments of what is compiled, so `normal(0.01)` and `normal(0.02)` share it.
What is compiled of another function is kept as long as that function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias
from weakref import WeakKeyDictionary, ref

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding

from .._words import describe, name_of
from .threefry import Implementation

if TYPE_CHECKING:  # a sixth of the time of `import ptree`, which draws nothing
    from ..initializers import Draw, Initializer


class MisfitError(Exception):
    """The result of an initialiser does not fit the shape or dtype of its leaf."""


@dataclass(frozen=True)
class Kind:
    """A kind of leaf: all that a compiled function depends on, beside the initialiser."""

    shape: tuple[int, ...]
    dtype: np.dtype
    impl: Implementation
    sharding: Sharding | None = None

    def draw(self, draw: Draw, words: jax.Array) -> jax.Array:
        """Draw with the key of these words, and check the shape and dtype of the result."""
        value = draw(jax.random.wrap_key_data(words, impl=self.impl), self.shape, self.dtype)
        if callable(value):
            raise MisfitError(f"it returned a function; call it first: {name_of(draw.function)}()")
        value = value if hasattr(value, "dtype") else jnp.asarray(value)  # a number, or a list of them
        if value.shape != self.shape or value.dtype != self.dtype:
            raise MisfitError(f"it returned {describe(value)}")
        return jax.lax.convert_element_type(value, self.dtype)  # a weak type would make a train step compile twice

    def jit(self, function: Callable[..., jax.Array]) -> jax.stages.Wrapped:
        """Compile a function, with its result placed by the sharding."""
        if self.sharding is None:
            return jax.jit(function)
        return jax.jit(function, out_shardings=self.sharding)


Compiler: TypeAlias = Callable[[Kind], jax.stages.Wrapped]
"""From a kind of leaf to the compiled function `(words of one key, numbers) -> array`."""


@dataclass(frozen=True)
class Compiled:
    """A compiled function that draws, and the numbers of one initialiser, which are its arguments."""

    function: jax.stages.Wrapped
    numbers: Sequence[jax.Array | np.ndarray]


def compiled(initializer: Initializer, kind: Kind) -> Compiled:
    """Compile an initialiser for a kind of leaf, or find what was compiled before."""
    from ..initializers import Recipe

    if not (isinstance(initializer, Recipe) and initializer.built_in):
        return Compiled(_compiler_of(initializer)(kind), ())
    numbers, structure = jax.tree.flatten(initializer.at(kind.shape, kind.dtype))
    return Compiled(_compiled_structure(structure, kind), numbers)


@lru_cache(maxsize=512)
def _compiled_structure(
    structure: jax.tree_util.PyTreeDef,  # pyright: ignore[reportInvalidTypeForm]  JAX gives it no type
    kind: Kind,
) -> jax.stages.Wrapped:
    """Compile all initialisers of ptree that differ only in numbers."""

    def draw(words: jax.Array, numbers: Sequence[jax.Array]) -> jax.Array:
        return kind.draw(jax.tree.unflatten(structure, numbers), words)

    return kind.jit(draw)


_compilers: WeakKeyDictionary[Initializer, Compiler] = WeakKeyDictionary()
"""The compiler of each function that is not ptree's: it goes when the function goes, as nobody can ask for it again."""


def _compiler_of(initializer: Initializer) -> Compiler:
    """Find or make the compiler of a function that is not ptree's."""
    kind_of_function: type = type(initializer)
    compares_by_value = kind_of_function.__eq__ is not object.__eq__
    takes_weak_references = kind_of_function.__weakrefoffset__ > 0
    if compares_by_value or not takes_weak_references:
        return _compiler_by_value(initializer)
    if initializer not in _compilers:
        _compilers[initializer] = _compiler(ref(initializer))
    return _compilers[initializer]


@lru_cache(maxsize=32)
def _compiler_by_value(initializer: Initializer) -> Compiler:
    """Make the compiler of initialisers that are equal: dataclasses, methods, mixtures with such a part."""
    return _compiler(lambda: initializer)


def _compiler(initializer: Callable[[], Initializer | None]) -> Compiler:
    """Make the compiler of an initialiser, given a reference to it."""
    from ..initializers import draw_of

    @lru_cache(maxsize=128)
    def compiler(kind: Kind) -> jax.stages.Wrapped:
        def draw(words: jax.Array, numbers: Sequence[jax.Array]) -> jax.Array:
            function = initializer()
            assert function is not None  # the caller holds it
            return kind.draw(draw_of(function, kind.shape, kind.dtype), words)

        return kind.jit(draw)

    return compiler
