"""Write differences as a table of HTML, for notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .._layers import group_by_layer, sparkline
from .._notebook.tables import Column, html_table, number_range
from .differences import Difference, relative_of_layer
from .rows import DiffData


def diff_html(diff: DiffData) -> str:
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
    sizes = number_range(relative)
    bars = sparkline([relative_of_layer(row) for row in rows]) if ".." in sizes else ""
    largest = _there(row.largest for row in rows)
    cosine = _there(row.cosine for row in rows)
    return [kind, name, bars, sizes, number_range(largest), number_range(cosine), _note(rows[0])]


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
