"""HTML tables for notebooks: statistics and differences as static, escaped tables of bounded size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from ..._words import printable, shortened
from .._layers import group_by_layer, sparkline

if TYPE_CHECKING:
    from .._diff.differences import Difference
    from .._diff.result import Diff
    from .._stats.stats import LeafStats, Stats

_MOST_ROWS = 200
_MOST_WARNINGS = 10
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


# ------------------------------------------------------------------------------ statistics


def stats_html(stats: Stats) -> str:
    """Statistics as a table; leaves that have one name in each layer are one row."""
    read = {row.path: row for row in stats.rows if not row.problem}
    columns = [
        Column("path"),
        *(Column(name, True) for name in ("mean", "std", "|max|", "zeros")),
        Column("std by layer"),
    ]
    rows = [_stats_row(group.name, [read[path] for path in group.paths]) for group in group_by_layer(read)]
    bad = [row for row in stats.rows if row.nonfinite or row.problem]
    return html_table(columns, rows, title=stats.title, footer=_warnings(bad))


def _stats_row(name: str, rows: Sequence[LeafStats]) -> list[str]:
    zeros, count = sum(row.zeros for row in rows), sum(row.count for row in rows)
    stds = [row.std for row in rows]
    return [
        name,
        _range([row.mean.real for row in rows]),
        _range(stds),
        _range([row.largest for row in rows]),
        f"{zeros / count:.0%}" if zeros else "",
        sparkline(stds) if len(rows) > 1 else "",
    ]


def _warnings(rows: Sequence[LeafStats]) -> list[str]:
    lines: list[str] = []
    for row in rows[:_MOST_WARNINGS]:
        what = row.problem or f"{row.nonfinite:,} non-finite, first at {row.first}"
        lines.append(f"! {row.path}: {what}")
    more = len(rows) - len(lines)
    return [*lines, f"! and {more:,} more"] if more else lines


def _range(values: Sequence[float]) -> str:
    """The least and the largest of some numbers; one number where they are written the same, "" of none."""
    if not values:
        return ""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return str(values[0])
    low, high = f"{min(finite):.3g}", f"{max(finite):.3g}"
    return low if low == high else f"{low}..{high}"


# ----------------------------------------------------------------------------- differences


def diff_html(diff: Diff) -> str:
    """Differences as a table; leaves of one kind that have one name in each layer are one row."""
    columns = [
        Column("kind"),
        Column("path"),
        Column("by layer"),
        *(Column(name, True) for name in ("relative", "largest", "cosine")),
        Column(""),
    ]
    kinds = dict.fromkeys(row.kind for row in diff.rows)
    rows = [row for kind in kinds for row in _rows_of_kind(kind, [row for row in diff.rows if row.kind == kind])]
    counts = ", ".join(f"{count:,} {kind}" for kind, count in diff.counts.items())
    rules = [f"renamed: {rule.before} → {rule.after}, {rule.count:,} leaves" for rule in diff.rules]
    return html_table(columns, rows, title=f"{diff.before} → {diff.after}", footer=[counts, *rules])


def _rows_of_kind(kind: str, rows: Sequence[Difference]) -> list[list[str]]:
    by_path = {row.path: row for row in rows}
    return [_diff_row(kind, group.name, [by_path[path] for path in group.paths]) for group in group_by_layer(by_path)]


def _diff_row(kind: str, name: str, rows: Sequence[Difference]) -> list[str]:
    relative = _there(row.relative for row in rows)
    sizes = _range(relative)
    bars = sparkline(relative) if ".." in sizes else ""  # of equal sizes the bars would show rounding
    largest = _there(row.largest for row in rows)
    cosine = _there(row.cosine for row in rows)
    return [kind, name, bars, sizes, _range(largest), _range(cosine), _note(rows[0])]


def _there(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _note(row: Difference) -> str:
    parts = [row.note] if row.note else []
    if row.kind in ("added", "removed"):
        shape, dtype = (row.shape, row.dtype) if row.kind == "added" else (row.shape_before, row.dtype_before)
        parts.append(f"{shape} {dtype}")
    if row.kind == "reshaped":
        parts.append(f"{row.shape_before} → {row.shape}")
    if row.kind == "retyped":
        parts.append(f"{row.dtype_before} → {row.dtype}")
    if row.path_before is not None and row.path_before != row.path:
        parts.append(f"was {row.path_before}")
    if row.nonfinite:
        parts.append(f"! {row.nonfinite:,} non-finite")
    return ", ".join(parts)
