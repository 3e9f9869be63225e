"""Initializer, a function `(key, shape, dtype) -> array` that says what it does; and what its options may be."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import jax.numpy as jnp
import numpy as np

from .._errors import InitError
from .._words import describe, short_dtype


@dataclass(frozen=True, repr=False, eq=False)
class Initializer:
    """An initialiser that says what it does; two with the same function and options are equal."""

    text: str
    draw: Callable[..., Any]
    options: tuple[Any, ...] = ()
    fill: Any = None
    """The number that every element is, if it is one."""
    parts: tuple[Any, ...] = ()
    """Other initialisers that it draws from."""

    def __call__(self, key: Any, shape: Sequence[int], dtype: Any = jnp.float32) -> Any:
        return self.draw(key, tuple(shape), dtype, *self.options)

    @property
    def holds_array(self) -> bool:
        """Whether an option is an array, which should not become a constant of a compiled program."""
        return any(hasattr(option, "shape") for option in self.options)

    @property
    def only_draws(self) -> bool:
        """Whether it is made of this room's functions alone: then its key may be of any implementation."""
        return all(getattr(part, "only_draws", False) for part in self.parts)

    def filled(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray | None:
        """The array itself where it is one number in a small place, for which nothing need be compiled."""
        return None if self.fill is None or math.prod(shape) > 1 << 20 else np.full(shape, exact(self.fill, dtype))

    def __repr__(self) -> str:
        return self.text

    def __eq__(self, other: object) -> bool:
        if self is other or not isinstance(other, Initializer):
            return self is other
        if self.holds_array or other.holds_array:
            return False
        return (self.draw, self.text, self.options) == (other.draw, other.text, other.options)

    def __hash__(self) -> int:
        return id(self) if self.holds_array else hash((self.draw, self.text, self.options))


def called(name: str, *given: Any, **options: tuple[Any, Any]) -> str:
    """The call as a person would write it: an option, (value, default), is shown where the two differ.

    >>> called("uniform", -1, 1), called("normal", 0.1, mean=(0.0, 0.0))
    ('uniform(-1, 1)', 'normal(0.1)')
    """
    shown = [describe(value) if hasattr(value, "shape") else repr(value) for value in given]
    shown += [
        f"{key}={describe(value) if hasattr(value, 'shape') else repr(value)}"
        for key, (value, default) in options.items()
        if hasattr(value, "shape") or value != default
    ]
    return f"{name}({', '.join(shown)})"


def number(name: str, value: Any, least: float = -math.inf) -> Any:
    """An option that is a finite number, as Python's own; what only JAX knows is not looked at."""
    if not isinstance(value, Real):
        return value
    plain = value if isinstance(value, (int, float)) else float(value)
    if not least <= plain < math.inf or plain == -math.inf:
        raise InitError(
            f"{name} must be a finite number{f' of at least {least:g}' if least > -math.inf else ''}, got {value}"
        )
    return plain


def exact(value: Any, dtype: Any) -> np.ndarray:
    """A number, or an array, in this dtype: it may be rounded, but not become another whole number, infinite or NaN."""
    given = np.asarray(value)
    with np.errstate(all="ignore"):
        cast = given.astype(dtype)
    kept = np.isfinite(cast.astype(complex)) == np.isfinite(given.astype(complex)) if _inexact(dtype) else cast == given
    if not kept.all():
        raise InitError(f"{short_dtype(dtype)} cannot hold {value if given.ndim == 0 else describe(given)}")
    return cast


def _inexact(dtype: Any) -> bool:
    return bool(jnp.issubdtype(dtype, jnp.inexact))


def drawn_in(dtype: Any) -> Any:
    """The dtype to draw in: 8-bit floats are too coarse to compute with, so they are rounded from float32.

    Raises:
        InitError: a dtype that is no float and not complex.
    """
    if not _inexact(dtype):
        raise InitError(
            f"it draws floats, and the leaf is {short_dtype(dtype)}; use constant, or a function of your own"
        )
    return jnp.dtype(jnp.float32) if jnp.dtype(dtype).itemsize < 2 else jnp.dtype(dtype)


Axes = int | Sequence[int]


def axes_of(given: Axes) -> tuple[int, ...]:
    """One axis or several, as a tuple."""
    return (given,) if isinstance(given, int) else tuple(given)


def from_front(axes: tuple[int, ...], ndim: int, name: str) -> list[int]:
    """The axes counted from the front; they must be there."""
    if any(not -ndim <= axis < ndim for axis in axes):
        shown = axes[0] if len(axes) == 1 else axes
        raise InitError(f"{name}={shown} is not there in a shape with {ndim} {'axis' if ndim == 1 else 'axes'}")
    return [axis % ndim for axis in axes]
