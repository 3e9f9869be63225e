"""Stats: statistics of each leaf as a table of text or HTML, as a dict and as CSV."""

from __future__ import annotations

from dataclasses import dataclass
from operator import add
from typing import Any

from ..._terminal import terminal_width
from .._plain_values import csv_text, json_value
from .html import stats_html
from .rows import LeafStats, StatsData
from .text import stats_text


@dataclass(frozen=True, repr=False)
class Stats(StatsData):
    """Statistics of each leaf, a row each. It prints as a table in which the layers of a model are one row.

    >>> import numpy as np
    >>> from ptree import look
    >>> found = look.stats({"w": np.array([3.0, -4.0]), "b": np.zeros(2)})
    >>> found.count, found["b"].zeros, [row.path for row in found.rows]
    (4, 2, ['w', 'b'])
    """

    __module__ = "ptree.look"

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain Python that JSON can hold: NaN and infinite numbers as text, complex numbers too."""
        rows = [{name: json_value(value) for name, value in vars(row).items()} for row in self.rows]
        totals = {"count": self.count, "nonfinite": self.nonfinite, "unmatched": self.unmatched}
        return {"title": self.title, **totals, "rows": rows}

    def to_csv(self) -> str:
        """A line for each row, under the names of its fields; each quantile has its own column; a shape is written as `4x8`."""
        shares = dict.fromkeys(share for row in self.rows for share in row.quantiles)
        names = [name for name in LeafStats.__dataclass_fields__ if name != "quantiles"]
        columns = [*names, *(f"q{share:g}" for share in shares)]
        numbers = [[row.quantiles.get(share) for share in shares] for row in self.rows]
        cells = [[getattr(row, name) for name in names] for row in self.rows]
        return csv_text(columns, map(add, cells, numbers))

    def text(self, width: int = 80, *, color: bool = False) -> str:
        """The table, at most `width` characters wide.

        Args:
            width: the most characters of a line; from 40 on it reads well.
            color: with ANSI codes.
        """
        return stats_text(self, width, color=color)

    def __repr__(self) -> str:
        return self.text(terminal_width())

    def _repr_html_(self) -> str:
        return stats_html(self)
