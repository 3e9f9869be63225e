"""Recipe, an initialiser as a value: its call and options, and the Draw, a function and its numbers, for checked sizes and a
dtype."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from .._errors import InitError
from .._words import quoted
from ._dtypes import exact
from ._options import is_array

Initializer: TypeAlias = Callable[[Any, tuple[int, ...], Any], Any]
"""Any function `(key, shape, dtype) -> array`. It is pure: one run serves all leaves of one shape and dtype."""

_LARGEST_FILLED = 1 << 20
"""Up to this many elements, filling an array on the host is faster than compiling a program that does it."""


@partial(jax.tree_util.register_dataclass, data_fields=["numbers"], meta_fields=["function", "fixed"])
@dataclass(frozen=True)
class Draw:
    """What an initialiser does for one shape and dtype: a function, its numbers, and options that are no numbers.

    It is a pytree whose leaves are the numbers. So they are arguments of the program that JAX compiles of it: initialisers
    that differ only in numbers, such as `normal(0.02)` and `normal(0.01)`, share one program.
    """

    function: Callable[..., jax.Array]
    """`(key, shape, dtype, *numbers, *fixed) -> array`"""
    numbers: tuple[Any, ...] = ()
    fixed: tuple[Any, ...] = ()

    def __call__(self, key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
        return self.function(key, shape, dtype, *self.numbers, *self.fixed)


@dataclass(frozen=True, repr=False, eq=False)
class Recipe:
    """A plan with its options: what ptree's own initialisers are.

    Two with the same plan and options are equal. One that holds an array is equal to itself alone.
    """

    text: str
    """The call that made it."""
    plan: Callable[..., Draw]
    """`(shape, dtype, *options) -> Draw`, computed on the host in double precision."""
    options: tuple[Any, ...] = ()
    fill: complex | None = None
    """The number that every element is, for an initialiser that gives the same number everywhere."""
    parts: tuple[Initializer, ...] = ()
    """Other initialisers that it calls."""

    def __call__(self, key: Any = None, shape: Any = None, dtype: DTypeLike = jnp.float32) -> jax.Array:
        if shape is None:
            raise InitError(
                f"{self.text} is an initialiser as it stands: write it without (), or draw with {self.text}(key, shape, dtype)"
            )
        sizes, checked = _sizes(shape), _dtype(dtype)
        return self.at(sizes, checked)(key, sizes, checked)

    def at(self, shape: tuple[int, ...], dtype: DTypeLike) -> Draw:
        """Make what draws an array of this shape and dtype."""
        return self.plan(shape, dtype, *self.options)

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
        return (self.plan, self.text, self.options) == (other.plan, other.text, other.options)

    def __hash__(self) -> int:
        return id(self) if self.holds_array else hash((self.plan, self.text, self.options))


def draw_of(initializer: Initializer, shape: tuple[int, ...], dtype: DTypeLike) -> Draw:
    """Make what draws an array of this shape and dtype by a Recipe or by any other function."""
    return initializer.at(shape, dtype) if isinstance(initializer, Recipe) else Draw(initializer)


def _sizes(shape: int | Sequence[int]) -> tuple[int, ...]:
    """Check a shape, a tuple of sizes or one size, and give a tuple."""
    several = shape if isinstance(shape, Sequence) else (shape,)
    try:
        sizes = tuple(map(operator.index, several))
    except TypeError:
        raise InitError(f"bad shape {quoted(shape)}: a shape is a tuple of whole numbers") from None
    return sizes


def _dtype(dtype: DTypeLike) -> np.dtype:
    """Check a dtype, given as JAX and NumPy take it."""
    try:
        return jnp.dtype(dtype)
    except TypeError:
        raise InitError(f"bad dtype {quoted(dtype)}: use jnp.float32, 'bfloat16' or another dtype") from None
