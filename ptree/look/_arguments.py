"""Checks of arguments that are no trees: functions, and numbers within bounds."""

from __future__ import annotations

import math

import numpy as np

from .._numbers import real_number, whole_number
from .._words import describe, quoted


def refuse_no_function(function: object, call: str) -> None:
    """Raise TypeError where what a call takes first is no function.

    >>> refuse_no_function(3, "guard(step)")
    Traceback (most recent call last):
        ...
    TypeError: guard(step): expected a function, got 3
    """
    if not callable(function):
        raise TypeError(f"{call}: expected a function, got {describe(function)}")


def checked_depth(depth: object) -> int | None:
    """The number of levels of a table, or None for all.

    Raises:
        TypeError: it is no whole number.
        ValueError: it is less than 1.
    """
    if depth is None:
        return None
    number = whole_number(depth)
    if number is None:
        raise TypeError(f"expected a whole number of levels as depth, got {quoted(depth)}")
    if number < 1:
        raise ValueError(f"depth={number}: a table is at least 1 name deep")
    return number


def checked_tolerance(tolerance: object) -> float:
    """A relative size of change.

    Raises:
        TypeError: it is no number.
        ValueError: it is negative, infinite or NaN.
    """
    number = real_number(tolerance)
    if number is None:
        raise TypeError(f"expected a number as tolerance, a relative size such as 1e-3, got {quoted(tolerance)}")
    if not 0 <= number < math.inf:  # False of NaN
        raise ValueError(f"the tolerance is a relative size from 0 on, got {quoted(tolerance)}")
    return float(number)


def checked_shares(quantiles: object) -> tuple[float, ...]:
    """Shares of numbers, which quantiles are wanted of.

    Raises:
        TypeError: it is no sequence of numbers.
        ValueError: one is not between 0 and 1.
    """
    given = quantiles.tolist() if isinstance(quantiles, np.ndarray) else quantiles
    if not isinstance(given, (list, tuple)):
        raise TypeError(f"expected quantiles such as (0.05, 0.5, 0.95), got {quoted(quantiles)}")
    shares = [real_number(share) for share in given]
    if None in shares:
        raise TypeError(f"expected numbers as quantiles, such as (0.05, 0.5, 0.95), got {quoted(given)}")
    found = tuple(share for share in shares if share is not None)
    wrong = [share for share in found if not 0 <= share <= 1]
    if wrong:
        raise ValueError(f"expected quantiles between 0 and 1, got {quoted(wrong)}")
    return found
