"""Tables of HTML for notebooks: static, escaped and of bounded size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from ..._words import printable, shortened

_MOST_ROWS = 200
_LONGEST_CELL = 120
"""Characters. With the bound on rows, it bounds a table to about 200 KB."""

# Colours come from the notebook's theme, light or dark: the table has none of its own but for bars and warnings.
_STYLE = """<style>
.ptree-table { color: inherit; border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
.ptree-table caption { text-align: left; font-weight: 600; padding-bottom: 4px; caption-side: top; }
.ptree-table th, .ptree-table td { padding: 2px 10px 2px 0; text-align: left; white-space: pre; border: 0; background: none; }
.ptree-table th { font-weight: 400; opacity: 0.7; border-bottom: 1px solid; }
.ptree-table .right { text-align: right; }
.ptree-table tfoot td { border-top: 1px solid; white-space: normal; }
.ptree-table .bar { height: 0.7em; min-width: 1px; background: #5a93dd; border-radius: 2px; }
.ptree-table .warning { color: #d1242f; font-weight: 600; }
</style>"""


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    title: str
    is_number: bool = False


@dataclass(frozen=True)
class Bar:
    """A cell that shows a share, from 0 to 1, as a bar."""

    share: float


Cell = str | Bar


def html_table(
    columns: Sequence[Column], rows: Sequence[Sequence[Cell]], *, title: str = "", footer: Iterable[str] = ()
) -> str:
    """A table of texts as HTML. Texts are escaped, long ones are cut, of many rows the middle is left out, empty columns too.

    >>> html_table([Column("path")], [["<b>"]]).count("&lt;b&gt;")
    1
    """
    said = [at for at in range(len(columns)) if at == 0 or any(at < len(row) and row[at] for row in rows)]
    columns = [columns[at] for at in said]
    rows = [[row[at] for at in said if at < len(row)] for row in _without_middle(rows)]
    head = "".join(_cell("th", column.title, column) for column in columns)
    caption = f"<caption>{_text(title)}</caption>" if title else ""
    body = "".join(_row(row, columns) for row in rows)
    foot = "".join(_foot(line, len(columns)) for line in footer)
    return (
        f'{_STYLE}<table class="ptree-table">{caption}<thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody><tfoot>{foot}</tfoot></table>"
    )


def _row(row: Sequence[Cell], columns: Sequence[Column]) -> str:
    return f"<tr>{''.join(_cell('td', text, column) for text, column in zip(row, columns))}</tr>"


def _cell(tag: str, cell: Cell, column: Column) -> str:
    if isinstance(cell, Bar):
        return f'<{tag}><div class="bar" style="width: {8 * cell.share:.3f}em"></div></{tag}>'
    right = ' class="right"' if column.is_number else ""
    return f"<{tag}{right}><bdi>{_text(cell)}</bdi></{tag}>"


def _foot(line: str, width: int) -> str:
    warning = ' class="warning"' if line.startswith("!") else ""
    return f'<tr><td colspan="{width}"{warning}>{_text(line)}</td></tr>'


def _text(text: str) -> str:
    return escape(shortened(printable(text), _LONGEST_CELL))


def _without_middle(rows: Sequence[Sequence[Cell]]) -> list[Sequence[Cell]]:
    if len(rows) <= _MOST_ROWS:
        return list(rows)
    half = _MOST_ROWS // 2
    return [*rows[:half], [f"... {len(rows) - 2 * half:,} more"], *rows[-half:]]


def number_range(values: Sequence[float]) -> str:
    """The least and the largest of some numbers; one number where they are written the same, "" of none."""
    if not values:
        return ""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return str(values[0])
    low, high = f"{min(finite):.3g}", f"{max(finite):.3g}"
    return low if low == high else f"{low}..{high}"
