"""What the first difference suggests, from the most certain on: a cause that explains it, another order, the look of the error."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..._words import quoted
from .causes import cause
from .comparison import Comparison
from .order_patterns import order_pattern, shape_pattern
from .size_patterns import size_pattern

_GRADUAL = 10
"""A relative error that is at most so many times that of the value before grew gradually."""
_MOST_NUMBERS = 1 << 22
"""Of more numbers a part with the largest error is sorted and tried: that of a gigabyte would take longer than the model."""


def hints(
    row: Comparison, a: np.ndarray, b: np.ndarray, equal_before: Sequence[np.ndarray], before: Sequence[Comparison]
) -> tuple[str, ...]:
    """Say what a difference looks like.

    Args:
        row: the comparison.
        a, b: the source and ours in double precision, zero where either is not finite.
        equal_before: inputs and values that were equal on both sides, the latest last.
        before: the comparisons before it.
    """
    if a.shape != b.shape:
        return (shape_pattern(a, b, row.tolerance),)
    found: list[str] = []
    if row.nonfinite != row.nonfinite_ours:
        found.append(
            "NaN or infinite on one side: a row that is masked everywhere, a division by zero, or float16 that overflows"
        )
    is_different = not np.array_equal(a, b)  # large integers may differ that are equal in double precision
    if is_different and row.absolute is not None and row.absolute > row.tolerance:
        with np.errstate(all="ignore"):  # of numbers as large as 1e300 the squares are infinite, and fit nothing
            found += [_described(row, a, b, equal_before), _growth(row, before)]
    return tuple(hint for hint in found if hint)


def _described(row: Comparison, a: np.ndarray, b: np.ndarray, equal_before: Sequence[np.ndarray]) -> str:
    part = _worst_part(row, a)
    a_part, b_part = a[part], b[part]
    inputs = [array[part] for array in equal_before if array.shape == a.shape]
    return (
        cause(inputs, a_part, b_part, row.tolerance)
        or order_pattern(a_part, b_part, row.tolerance)
        or size_pattern(a, b, row.tolerance)
    )


def _worst_part(row: Comparison, a: np.ndarray) -> slice | tuple[()]:
    """The rows of the first axis that are looked at, those with the largest error among them."""
    if a.size <= _MOST_NUMBERS or row.at is None:
        return ()
    count = max(1, _MOST_NUMBERS * a.shape[0] // a.size)
    start = min(row.at[0], a.shape[0] - count)
    return slice(start, start + count)


def _growth(row: Comparison, before: Sequence[Comparison]) -> str:
    """Say that an error grew gradually, which is rounding rather than one wrong layer."""
    errors = [(earlier.name, earlier.relative) for earlier in before if earlier.ok and earlier.relative]
    if len(errors) < 3 or not row.relative:
        return ""
    name, last = errors[-1]
    if row.relative > _GRADUAL * last or errors[0][1] * _GRADUAL > row.relative:
        return ""
    return (
        f"the error grew gradually, from {errors[0][1]:.1e} at {quoted(errors[0][0])} to {last:.1e} at {quoted(name)} and"
        f" {row.relative:.1e} at this one: rounding, so a precision or a dtype rather than one wrong layer"
    )
