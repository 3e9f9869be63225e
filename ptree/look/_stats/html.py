"""Write statistics as a table of HTML, for notebooks."""

from __future__ import annotations

from collections.abc import Sequence

from .._layers import group_by_layer, sparkline
from .._notebook.tables import Column, html_table, number_range
from .rows import LeafStats, StatsData

_MOST_WARNINGS = 10


def stats_html(stats: StatsData) -> str:
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
    if not count:  # a leaf of size 0
        return [name, "-", "-", "-", "", ""]
    stds = [row.std for row in rows]
    return [
        name,
        number_range([row.mean.real for row in rows]),
        number_range(stds),
        number_range([row.largest for row in rows]),
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
