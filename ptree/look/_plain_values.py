"""Values of results as JSON and CSV can hold them."""

from __future__ import annotations

import math
from typing import Any

from .._words import printable

_SHAPES = ("shape", "shape_before", "output")
_FORMULA = ("=", "+", "-", "@")


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


def csv_cell(name: str, value: Any) -> Any:
    """A value as a cell of CSV in the column of this name: shapes as `4x8`, other tuples apart by spaces, None as nothing.

    Texts are inert: no escape codes, and a quote before what a spreadsheet would compute.

    >>> csv_cell("shape", (4, 8)), csv_cell("first", (0, 2)), csv_cell("path", "=1+2")
    ('4x8', '0 2', "'=1+2")
    """
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ("x" if name in _SHAPES else " ").join(map(str, value))
    if isinstance(value, str):
        shown = printable(value)
        return f"'{shown}" if shown.startswith(_FORMULA) else shown
    return value
