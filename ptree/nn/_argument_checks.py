"""Check the value of one argument: a number within bounds, a flag, a text, axis names, one of several names, a function,
optional; what fix to write."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import TypeAlias

import jax
import numpy as np
from jax.core import Tracer

from .._numbers import real_number, whole_number
from .._words import suggestion

LARGEST_SIZE = 2**31 - 1
"""The largest size of an axis: the largest index in int32, the dtype of JAX's indices."""


class UnfitError(Exception):
    """A value that does not fit its argument: what was expected, and the fix if it is
    clear, as the end of the sentence."""

    def __init__(self, expected: str, fix: str = ""):
        super().__init__(expected)
        self.expected, self.fix = expected, fix


Check: TypeAlias = Callable[[object], object]
"""Checks the value of an argument, and returns it as the layer keeps it. Raises `UnfitError`."""


def whole_from(least: int, value: object, expected: str) -> int:
    number = whole_number(value)
    if number is None:
        raise UnfitError(expected, whole_fix(value))
    if number < least:
        raise UnfitError(expected)
    if number > LARGEST_SIZE:
        raise UnfitError(f"{expected}, and at most {LARGEST_SIZE}")
    return number


def whole_fix(value: object) -> str:
    """The fix for a text or a float that means a whole number: the number to write instead."""
    if isinstance(value, str) and value.isdecimal() and len(value) < 10:
        return f": write {int(value)}"
    if isinstance(value, (float, np.floating)) and float(value).is_integer() and abs(value) < LARGEST_SIZE:
        return f": write {int(value)}"
    return ""


def sequence(value: object) -> list[object] | None:
    """The items of a list, tuple or array with an axis; None for anything else."""
    if isinstance(value, Tracer):
        return None
    is_array = isinstance(value, (np.ndarray, jax.Array)) and value.ndim > 0
    return list(value) if is_array or isinstance(value, (list, tuple)) else None  # pyright: ignore[reportArgumentType]


def real_within(
    *, least: float = -math.inf, above: float = -math.inf, below: float = math.inf, such_as: str = ""
) -> Check:
    """Make a check of a finite real number within these bounds."""
    bounds: list[str] = []
    if least > -math.inf:
        bounds.append(f"of at least {least:g}")
    if above > -math.inf:
        bounds.append(f"above {above:g}")
    if below < math.inf:
        bounds.append(f"below {below:g}")
    expected = " ".join(["a finite number", " and ".join(bounds)]).strip() + such_as

    def check(value: object) -> float:
        number = real_number(value)
        if number is None:
            raise UnfitError(expected, _real_fix(value))
        # NaN is neither within the bounds nor out of them.
        if not (math.isfinite(number) and number >= least and number > above and number < below):
            raise UnfitError(expected)
        return number

    return check


def _real_fix(value: object) -> str:
    if not isinstance(value, str):
        return ""
    try:
        number = float(value)
    except ValueError:
        return ""
    return f": write {number!r}" if math.isfinite(number) else ""


def flag(value: object) -> bool:
    """Check True or False."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, int) and value in (0, 1):
        raise UnfitError("True or False", f": write {bool(value)}")
    raise UnfitError("True or False")


def size_or_flag(value: object) -> int | bool:
    """Check a whole number of at least 1, or True for all and False for one."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    return whole_from(1, value, "a whole number of at least 1, or True for all")


def flag_or_function(value: object) -> object:
    """Check True, False, or a function."""
    if callable(value):
        return value
    return flag(value)


def one_of(*choices: str | None) -> Check:
    """Make a check of an argument that is one of several names."""
    expected = " or ".join([", ".join(map(repr, choices[:-1])), repr(choices[-1])])

    def check(value: object) -> object:
        # By type first: an array has no truth value for `==`.
        if isinstance(value, str | None) and value in choices:
            return value
        names = [choice for choice in choices if choice is not None]
        raise UnfitError(expected, nearest_fix(value, names))

    return check


def nearest_fix(value: object, names: Collection[str]) -> str:
    near = suggestion(value, names) if isinstance(value, str) else ""
    return f".{near}" if near else ""


def text(value: object) -> str:
    """Check a text, such as the name of a function."""
    if isinstance(value, str):
        return value
    raise UnfitError("a name")


def axis_names(value: object) -> str | tuple[str, ...]:
    """Check the name of a mapped axis, or a tuple of names."""
    if isinstance(value, str) and value:
        return value
    several = sequence(value)
    if several and all(isinstance(one, str) and one for one in several):
        return tuple(map(str, several))
    raise UnfitError("the name of an axis of jax.shard_map, jax.vmap or jax.pmap, or a tuple of names")


def function(value: object) -> object:
    """Check a function."""
    if callable(value):
        return value
    raise UnfitError("a function")


def optional(check: Check) -> Check:
    """Make a check optional: it takes None too."""

    def checked(value: object) -> object:
        if value is None:
            return None
        try:
            return check(value)
        except UnfitError as unfit:
            raise UnfitError(f"{unfit.expected}, or None", unfit.fix) from None

    return checked
