"""Check the options of an initialiser, numbers and axes, and write its call with these options as a person would."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Number as AnyNumber
from numbers import Real
from typing import TypeAlias

import jax
import numpy as np

from .._errors import InitError
from .._words import describe

Number: TypeAlias = complex | jax.Array | np.ndarray
"""A number of Python, NumPy or JAX, or an array that is broadcast against the shape."""

Axes: TypeAlias = int | Sequence[int]
"""One axis or several, from the front or, negative, from the end."""


def is_array(value: object) -> bool:
    """Whether an option is an array of JAX or NumPy, or a number of theirs."""
    return isinstance(value, (jax.Array, np.ndarray, np.generic))


def called(name: str, *given: object, **options: tuple[object, object]) -> str:
    """Write the call of an initialiser as a person would: an option, (value, default), is shown if the two differ.

    >>> called("uniform", -1, 1), called("normal", 0.1, mean=(0.0, 0.0))
    ('uniform(-1, 1)', 'normal(0.1)')
    """
    arguments = [_shown(value) for value in given]
    for option, (value, default) in options.items():
        if is_array(value) or value != default:  # `!=` of an array is an array
            arguments.append(f"{option}={_shown(value)}")
    return f"{name}({', '.join(arguments)})"


def unless_default(value: object, default: object) -> list[object]:
    """The first argument of a call as a person would write it: left out if it is the default.

    >>> called("identity", *unless_default(1, 1)), called("identity", *unless_default(2, 1))
    ('identity()', 'identity(2)')
    """
    return [] if value == default else [value]


def _shown(value: object) -> str:
    return describe(value) if is_array(value) else repr(value)


def number(name: str, value: Number, least: float = -math.inf) -> Number:
    """Check an option that is a number: one of Python if it is real; arrays are taken as they are.

    Raises:
        InitError: it is no number, not finite, or below the least that makes sense.
    """
    if isinstance(value, Real):
        return real(name, value, least)
    if is_array(value) or isinstance(value, AnyNumber):  # an array may be a tracer, whose value is not known
        return value
    raise InitError(f"{name} must be a number, got {describe(value)}")


def real(name: str, value: object, least: float = -math.inf) -> float:
    """Check an option that is one finite number: a float or int of Python.

    Raises:
        InitError: it is no real number, not finite, or below the least that makes sense.
    """
    if not isinstance(value, Real):
        raise InitError(f"{name} must be a number, got {describe(value)}")
    plain = value if isinstance(value, (int, float)) else float(value)
    # `not <=` also catches NaN; -inf is the `least` of options without a bound, so it is refused apart
    if not least <= plain < math.inf or plain == -math.inf:
        bound = "" if least == -math.inf else f" of at least {least:g}"
        raise InitError(f"{name} must be a finite number{bound}, got {value}")
    return plain


def axes_of(axes: Axes, name: str) -> tuple[int, ...]:
    """Check an option that is one axis or several, and give a tuple.

    Raises:
        InitError: what is no whole number.
    """
    several = tuple(axes) if isinstance(axes, Sequence) else (axes,)
    if not all(isinstance(axis, int) for axis in several):
        raise InitError(f"{name} must be an axis, as a whole number, or a tuple of them, got {describe(axes)}")
    return several


def from_front(axes: tuple[int, ...], ndim: int, name: str) -> list[int]:
    """Count the axes of an option from the front of a shape.

    Raises:
        InitError: a shape with this number of axes does not have them.
    """
    if any(not -ndim <= axis < ndim for axis in axes):
        shown = axes[0] if len(axes) == 1 else axes
        counted = "1 axis" if ndim == 1 else f"{ndim} axes"
        raise InitError(f"{name}={shown} is not there in a shape with {counted}")
    return [axis % ndim for axis in axes]
