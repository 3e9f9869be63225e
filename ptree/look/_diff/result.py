"""Diff: what differs between two trees or files, as text, HTML, dict, CSV, and an exit code."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from ..._terminal import terminal_width
from .._plain_values import csv_text, json_value
from .differences import Difference
from .html import diff_html
from .rows import DiffData
from .text import diff_text

Json = Any
"""What JSON can hold."""


@dataclass(frozen=True, repr=False, eq=False)
class Diff(DiffData):
    """Differences between two trees or files, largest first; true where there are any. It prints as a table.

    >>> import numpy as np
    >>> from ptree import look
    >>> found = look.diff({"w": np.ones(2), "b": np.ones(2)}, {"w": np.zeros(2), "b": np.ones(2)})
    >>> found.is_same, found.unchanged, [row.path for row in found.rows]
    (False, 1, ['w'])
    """

    __module__ = "ptree.look"

    @property
    def is_same(self) -> bool:
        """Whether there is no difference, and everything could be read."""
        return not self.rows

    @property
    def exit_code(self) -> int:
        """0 where all is the same, 1 where something differs or cannot be read, as of the program `diff`."""
        return 0 if self.is_same else 1

    def __bool__(self) -> bool:
        return not self.is_same

    def to_dict(self) -> dict[str, Json]:
        """All of it as dicts, lists, texts and numbers, for JSON; NaN and inf are the texts "nan" and "inf"."""
        return {
            "before": self.before,
            "after": self.after,
            "is_same": self.is_same,
            "tolerance": self.tolerance,
            "within_tolerance": self.within,
            "numbers_compared": self.has_numbers,
            "unchanged": self.unchanged,
            "counts": self.counts,
            "rules": [vars(rule) for rule in self.rules],
            "rows": [_plain_row(row) for row in self.rows],
        }

    def to_csv(self) -> str:
        """The differences as CSV, a row each under a header; a shape is written as `4x8`."""
        names = [field.name for field in fields(Difference)]
        return csv_text(names, ([getattr(row, name) for name in names] for row in self.rows))

    def text(self, width: int = 80, *, color: bool = False, most: int | None = 50) -> str:
        """The differences as text of lines of at most `width` characters.

        Leaves that have one name in each layer share a line, with the relative size by layer as a sparkline.

        Args:
            width: the most characters of a line; from 40 on it reads well.
            color: mark kinds with the colours of a terminal.
            most: how many lines of one kind are shown, and then a count; None for all.
        """
        return diff_text(self, width, color=color, most=most)

    def __repr__(self) -> str:
        return self.text(terminal_width())

    def _repr_html_(self) -> str:
        return diff_html(self)


def _plain_row(row: Difference) -> dict[str, Json]:
    return {field.name: json_value(getattr(row, field.name)) for field in fields(row)}
