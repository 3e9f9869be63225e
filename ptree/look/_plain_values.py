"""Values of results as JSON and CSV can hold them."""

from __future__ import annotations

import math
from typing import Any


def json_value(value: Any) -> Any:
    """A value as JSON can hold it: tuples are lists, complex numbers, NaN and inf are texts.

    >>> json_value({"shape": (2, 3), "mean": float("nan")})
    {'shape': [2, 3], 'mean': 'nan'}
    """
    if isinstance(value, dict):
        return {str(name): json_value(inner) for name, inner in value.items()}
    if isinstance(value, tuple):
        return [json_value(item) for item in value]
    if isinstance(value, complex) or (isinstance(value, float) and not math.isfinite(value)):
        return str(value)
    return value


def csv_value(value: Any) -> Any:
    """A value as a cell of CSV: the items of a tuple apart by spaces, and nothing for None."""
    if value is None:
        return ""
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return value
