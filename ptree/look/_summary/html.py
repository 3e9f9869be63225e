"""Write a summary as a table of HTML, for notebooks."""

from __future__ import annotations

from .._notebook.tables import Bar, Column, html_table
from .lines import Line, lines_of
from .text import blocks_of, footer_of, main_dtype
from .totals import SummaryData

_ROOM = 60  # columns for the leaves of a node in its own row
_COLUMNS = (
    Column("path"),
    Column(""),
    Column("parameters", is_number=True),
    Column("share", is_number=True),
    Column(""),
)


def summary_html(summary: SummaryData) -> str:
    """The table of a summary as HTML for a notebook; names are inert, and markup in them is escaped."""
    dtype = main_dtype(summary.by_dtype)
    rows = [_cells(line, summary.count) for line in lines_of(blocks_of(summary), dtype, lambda size: _ROOM)]
    return html_table(_COLUMNS, rows, title=summary.title, footer=footer_of(summary))


def _cells(line: Line, whole: int) -> list[str | Bar]:
    if line.size is None:
        return [line.label, line.contents]
    share = line.size.count / whole if whole else 0.0
    return [line.label, line.contents, f"{line.size.count:,}", f"{share:.1%}", Bar(share)]
