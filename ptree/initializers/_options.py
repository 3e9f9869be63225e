"""Check the options of an initialiser, real and whole numbers, arrays and axes; a factory makes an initialiser of them; refuse
one that is not called."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import ParamSpec, TypeAlias, TypeGuard, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .._errors import InitError
from .._numbers import real_number, whole_number
from .._words import describe, quoted

Number: TypeAlias = complex | jax.Array | np.ndarray
"""A number of Python, NumPy or JAX, or an array that is broadcast against the shape."""

RealNumber: TypeAlias = float | jax.Array | np.ndarray
"""A number or array as `Number`, but real."""

Axes: TypeAlias = int | Sequence[int]
"""One axis or several, from the front or, negative, from the end."""


Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

_TWO_CALLS = "call it with its options first: normal(0.02)(key, shape, dtype)"


def factory(make: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Decorate a function that makes an initialiser of options, so that a wrong call says which options there are."""

    @wraps(make)
    def checked(*given: Parameters.args, **options: Parameters.kwargs) -> Result:
        try:
            return make(*given, **options)
        except TypeError as error:
            raise InitError(_misuse(make, given, options) or f"{make.__name__}: {error}") from error

    return checked


def _misuse(make: Callable[..., object], given: Sequence[object], options: Mapping[str, object]) -> str | None:
    """Say why a call does not fit the options of a function; None if it does."""
    signature = inspect.signature(make)
    try:
        signature.bind(*given, **options)
    except TypeError as error:
        shown = [*map(describe, given), *(f"{name}={describe(value)}" for name, value in options.items())]
        return f"{make.__name__} takes the options {[*signature.parameters]}, got ({', '.join(shown)}): {error}"
    return None


def is_factory(value: object) -> TypeGuard[Callable[..., object]]:
    """Whether this is a function that makes an initialiser, such as `normal`, given in place of one, `normal(0.02)`."""
    # a function that `exec` made may have no module
    return inspect.isfunction(value) and str(value.__module__).startswith(f"{__package__}.")


def refuse_factory(value: object) -> None:
    """Raise an InitError if a function that makes initialisers is given in place of one."""
    if is_factory(value):
        raise InitError(called_first(value))


def called_first(make: Callable[..., object]) -> str:
    """Say that a function that makes an initialiser is called first."""
    return f"{make.__name__} is called first, with its options: initializers.{make.__name__}()"


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
    return [value] if is_array(value) or value != default else []


def _shown(value: object) -> str:
    return describe(value) if is_array(value) else repr(value)


def number(name: str, value: Number, least: float = -math.inf) -> RealNumber:
    """Check an option that is a real number or an array of them; a number is given back as a float or int of Python.

    Raises:
        InitError: it is no number, not finite, or below the least that makes sense.
    """
    if isinstance(value, (jax.Array, np.ndarray)):
        _check_array(name, value, least)
        return value
    return real(name, value, least)


def _check_array(name: str, value: jax.Array | np.ndarray, least: float) -> None:
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        raise InitError(f"{name} must be a number, got a PRNG key, {describe(value)}; {_TWO_CALLS}")
    if not (jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer)):
        raise InitError(f"{name} must be a number, got {describe(value)}")
    if isinstance(value, Tracer):  # its values are not known
        return
    values = np.asarray(jax.device_get(value), np.float64)
    if not (np.isfinite(values) & (values >= least)).all():
        raise InitError(f"{name} must be finite numbers{_bound(least)}, got {describe(value)} with another")


def scale(name: str, value: Number) -> Number:
    """Check an option that multiplies what is drawn: a real or complex number, or an array.

    Raises:
        InitError: it is no number, or not finite.
    """
    if isinstance(value, (complex, np.complexfloating)):
        real(f"the real part of {name}", value.real)
        real(f"the imaginary part of {name}", value.imag)
        return complex(value)
    return number(name, value)


def real_part(value: Number) -> RealNumber:
    """The real part of an option."""
    if isinstance(value, jax.Array):
        return jnp.real(value)
    return np.real(value) if isinstance(value, np.ndarray) else value.real


def real(name: str, value: object, least: float = -math.inf) -> float:
    """Check an option that is one finite number: a float or int of Python.

    Raises:
        InitError: it is no real number, not finite, or below the least that makes sense.
    """
    plain = real_number(value)
    if plain is None:
        raise InitError(f"{name} must be a number, got {describe(value)}")
    # `not <=` also catches NaN; -inf is the `least` of options without a bound, so it is refused apart
    if not least <= plain < math.inf or plain == -math.inf:
        raise InitError(f"{name} must be a finite number{_bound(least)}, got {quoted(value)}")
    return plain


def _bound(least: float) -> str:
    return "" if least == -math.inf else f" of at least {least:g}"


def whole(name: str, value: object, least: int | None = None) -> int:
    """Check an option that is a whole number, of Python or NumPy.

    Raises:
        InitError: it is no whole number, or below the least that makes sense.
    """
    bound = "" if least is None else f" of at least {least}"
    number = _whole_number_of_64_bits(value)
    if number is None or (least is not None and number < least):
        raise InitError(f"{name} must be a whole number{bound}, got {describe(value)}")
    return number


def _whole_number_of_64_bits(value: object) -> int | None:
    number = whole_number(value)
    return None if number is None or number.bit_length() > 63 else number


def axes_of(axes: Axes, name: str) -> tuple[int, ...]:
    """Check an option that is one axis or several, and give a tuple.

    Raises:
        InitError: what is no whole number.
    """
    several = axes if isinstance(axes, Sequence) and not isinstance(axes, bytes) else (axes,)  # bytes hold ints
    numbers = [_whole_number_of_64_bits(axis) for axis in several]
    found = tuple(number for number in numbers if number is not None)
    if len(found) < len(numbers):
        raise InitError(f"{name} must be an axis, as a whole number, or a tuple of them, got {describe(axes)}")
    return found


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
