"""Recipe, an initialiser as a value: a draw function with its options, comparable and printed as its call."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from ._dtypes import exact
from ._options import is_array

Initializer: TypeAlias = Callable[[Any, tuple[int, ...], Any], Any]
"""Any function `(key, shape, dtype) -> array`. It is pure: one run serves all leaves of one shape and dtype."""

_LARGEST_FILLED = 1 << 20
"""Up to this many elements, filling an array on the host is faster than compiling a program that does it."""


@dataclass(frozen=True, repr=False, eq=False)
class Recipe:
    """A draw function with its options: what ptree's own initialisers are.

    Two with the same function and options are equal, so that their leaves share one compiled program. One that holds
    an array is equal to itself alone.
    """

    text: str
    """The call that made it."""
    draw: Callable[..., jax.Array]
    """`(key, shape, dtype, *options) -> array`"""
    options: tuple[Any, ...] = ()
    fill: complex | None = None
    """The number that every element is, for an initialiser that gives the same number everywhere."""
    parts: tuple[Initializer, ...] = ()
    """Other initialisers that it calls."""

    def __call__(self, key: jax.Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> jax.Array:
        return self.draw(key, tuple(shape), dtype, *self.options)

    @property
    def holds_array(self) -> bool:
        """Whether an option is an array, which should not become a constant of a compiled program."""
        return any(map(is_array, self.options))

    @property
    def built_in(self) -> bool:
        """Whether it runs ptree's functions alone, which work with keys of any implementation."""
        return all(isinstance(part, Recipe) and part.built_in for part in self.parts)

    def filled(self, shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray | None:
        """The array, made on the host, if it is small and one number fills it; None otherwise."""
        # large arrays are made on their device: a copy from the host would take longer than compiling
        if self.fill is None or math.prod(shape) > _LARGEST_FILLED:
            return None
        return np.full(shape, exact(self.fill, dtype))

    def __repr__(self) -> str:
        return self.text

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Recipe):
            return NotImplemented
        # comparing arrays would fetch them from their devices
        if self.holds_array or other.holds_array:
            return self is other
        return (self.draw, self.text, self.options) == (other.draw, other.text, other.options)

    def __hash__(self) -> int:
        return id(self) if self.holds_array else hash((self.draw, self.text, self.options))
