"""Fold the rows of repeated layers, which differ in the number of the layer alone, into rows with a range of numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from .._table.names import NamePattern
from .._table.row import Row

_NUMBERS = re.compile(r"([0-9]+)")


def folded(repetitions: Sequence[Sequence[Row | str]]) -> Iterator[Row | str]:
    """The rows of layer 0, 1, ..., each folded with those of the other layers where all differ in this number alone.

    A sentence is a problem, and stays what it is.
    """
    is_regular = len({len(rows) for rows in repetitions}) == 1 and len(repetitions) > 1
    if not is_regular:
        for rows in repetitions:
            yield from rows
        return
    for same in zip(*repetitions, strict=True):
        row = _folded_row(same)
        if row is None:
            yield from same
        else:
            yield row


def _folded_row(rows: Sequence[Row | str]) -> Row | None:
    """One row for those of all layers; None where they are not regular."""
    first = rows[0]
    if not isinstance(first, Row):
        return None
    names: list[list[str]] = []
    for row in rows:
        if not isinstance(row, Row) or row.operation != first.operation:
            return None
        names.append([pattern.text for pattern in (*row.sources, *row.targets)])
    patterns: list[NamePattern] = []
    for texts in zip(*names, strict=True):
        text = _with_range(texts)
        if text is None:
            return None
        patterns.append(NamePattern(text))
    count = len(first.sources)
    return Row(tuple(patterns[:count]), tuple(patterns[count:]), first.operation)


def _with_range(texts: Sequence[str]) -> str | None:
    """A pattern of names that differ in one number, which counts from 0: `h.{0..11}.weight`; None for other names.

    >>> _with_range(["h.0.mlp.1", "h.1.mlp.1"])
    'h.{0..1}.mlp.1'
    """
    pieces = [_NUMBERS.split(text) for text in texts]
    if len({len(each) for each in pieces}) > 1:
        return None
    written: list[str] = []
    places = 0
    for values in zip(*pieces, strict=True):
        if len({*values}) == 1:
            written.append(values[0])
            continue
        if [*values] != [str(number) for number in range(len(values))]:
            return None
        places += 1
        written.append(f"{{0..{len(values) - 1}}}")
    return "".join(written) if places == 1 else None
