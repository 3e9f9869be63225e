"""Summary: the parameters of a tree, spec or file as a table of text or HTML, as a dict and as CSV."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..._terminal import terminal_width
from .._plain_values import csv_text
from .html import summary_html
from .row import Row
from .text import summary_text
from .totals import SummaryData


@dataclass(frozen=True, repr=False)
class Summary(SummaryData):
    """Rows for all parameters of a tree or file, and totals that count a tied leaf once. It prints as a table.

    >>> import numpy as np
    >>> from ptree import look
    >>> found = look.summary({"w": np.ones((2, 3), "f4"), "b": np.ones(3, "f4")})
    >>> found.count, found.bytes, [row.path for row in found.rows]
    (9, 36, ['w', 'b'])
    """

    __module__ = "ptree.look"

    def __repr__(self) -> str:
        return self.text(terminal_width())

    def text(self, width: int = 80, *, color: bool = False) -> str:
        """The table as text.

        Args:
            width: the most characters of a line; from 40 on it reads well.
            color: dim what matters less, with ANSI codes.
        """
        return summary_text(self, width, color=color)

    def _repr_html_(self) -> str:
        return summary_html(self)

    def to_dict(self) -> dict[str, Any]:
        """The rows and totals as plain dicts and lists, which `json.dumps` takes."""
        shown = {
            "title": self.title,
            "count": self.count,
            "bytes": self.bytes,
            "leaves": len(self.leaves),
            "trainable": self.trainable,
            "by_dtype": {dtype: vars(total) for dtype, total in self.by_dtype.items()},
            "rows": [_row_as_dict(row) for row in self.rows],
        }
        if self.flops is not None:
            shown["flops"] = self.flops.to_dict()
        if self.memory is not None:
            shown["memory_analysis"] = dict(self.memory)
        return shown

    def to_csv(self) -> str:
        """The rows as CSV with a header; a shape is written as `4x8`."""
        return csv_text(Row._fields, self.rows)


def _row_as_dict(row: Row) -> dict[str, Any]:
    shown = row._asdict()
    shown["shape"] = None if row.shape is None else [*row.shape]
    shown["output"] = None if row.output is None else [*row.output]
    return shown
