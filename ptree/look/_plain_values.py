"""Values of results as JSON and CSV can hold them."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

from .._words import printable


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


def csv_text(names: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    """Rows as CSV under their names; see `csv_value`.

    >>> print(csv_text(["path", "shape"], [["enc/w", (2, 3)], ["=1+2", ()]]), end="")
    path,shape
    enc/w,2x3
    '=1+2,
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow([csv_value(value) for value in row])
    return file.getvalue()


def csv_value(value: Any) -> Any:
    """A value as a cell of CSV: a shape or an index as `2x3`, the items of another tuple apart by spaces, nothing for None.

    A name is inert: what a terminal obeys is escaped. One that a spreadsheet would take for a formula, as it begins with =,
    +, - or @ and is no number, gets the quotation mark in front that spreadsheets read as "this is text".
    """
    if value is None:
        return ""
    if isinstance(value, tuple):
        is_shape = all(isinstance(item, int) for item in value)
        return ("x" if is_shape else " ").join(map(str, value))
    if isinstance(value, str):
        return _inert(value)
    return value


def _inert(text: str) -> str:
    text = printable(text)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
