"""Text of a diff: counts, rules, and a section for each kind, at 40 columns and at 120; leaves by layer share a line."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .._words import printable
from ._diff_rules import separator_of
from ._differences import Difference, order_by_size
from ._layers import group_by_layer, sparkline

if TYPE_CHECKING:
    from ._diff_result import Diff

_LABEL = 12
"""Columns of the kind in front of the lines of a section."""
_NARROW = 60
"""Below so many columns the kind has a line of its own."""
_COLORS = {"renamed": 36, "added": 32, "removed": 31, "unread": 35}
_CHANGE_COLOR = 33
_HEADER = ["path", "by layer", "relative", "largest", "cosine"]
KINDS = (
    "renamed", "changed", "retyped", "transposed", "reshaped", "restacked", "tied", "untied", "retied", "added", "removed", "unread",
)  # fmt: skip
"""The kinds of differences, in the order in which they are shown."""


@dataclass(frozen=True)
class _Group:
    """Differences of one kind that have one name in each layer."""

    name: str
    rows: tuple[Difference, ...]

    @property
    def order(self) -> tuple[bool, float]:
        return min(map(order_by_size, self.rows))


def diff_text(diff: Diff, width: int, *, color: bool, most: int | None) -> str:
    """The text of a diff; see `Diff.text`."""
    width = max(width, 20)
    lines = _wrapped(_counts(diff), width, " ")
    sections = [("renamed", _renames(diff, most))]
    for kind in KINDS[1:]:
        rows = [row for row in diff.rows if row.kind == kind]
        sections.append((kind, _section(kind, rows, _inside(width), most)))
    for kind, section in sections:
        lines += _labelled(kind, section, width, color)
    return "\n".join(lines)


def _inside(width: int) -> int:
    """The columns of a line of a section, behind the kind."""
    return width - (2 if width < _NARROW else _LABEL)


def _labelled(kind: str, section: Sequence[str], width: int, color: bool) -> Iterator[str]:
    """The lines of a section with its kind in front."""
    is_narrow = width < _NARROW
    inside = _inside(width)
    label = kind
    if color and section:
        label = f"\x1b[{_COLORS.get(kind, _CHANGE_COLOR)}m{kind}\x1b[0m"
    if is_narrow and section:
        yield label
    for at, line in enumerate(section):
        for part_at, part in enumerate(_wrapped(line, inside, " /")):
            is_first = at == 0 and part_at == 0 and not is_narrow
            front = label + " " * (_LABEL - len(kind)) if is_first else " " * (width - inside)
            yield f"{front}{part}".rstrip()


# --------------------------------------------------------------------------------- counts


def _counts(diff: Diff) -> str:
    counts = diff.counts
    same = counts["same"] + counts.get("renamed", 0)
    parts = [f"{same:,} the same{_within(diff)}"]
    parts += [f"{counts[kind]:,} {kind}" for kind in KINDS[1:] if kind in counts]
    text = ", ".join(parts)
    if not diff.has_numbers:
        text += "; shapes and dtypes alone, as one of the two is a spec"
    return text


def _within(diff: Diff) -> str:
    if not diff.within:
        return ""
    return f" ({diff.within:,} of them within the tolerance {diff.tolerance:g})"


def _renames(diff: Diff, most: int | None) -> list[str]:
    """The rules, and the leaves that are renamed by none."""
    lines = [f"{printable(rule.before)} -> {printable(rule.after)}   {_leaves(rule.count)}" for rule in diff.rules]
    for row in diff.rows:
        if row.kind == "renamed" and row.path_before not in diff.ruled:
            lines.append(_name(row.path, row))
    return _cut(lines, most)


def _leaves(count: int) -> str:
    return f"{count:,} leaf" if count == 1 else f"{count:,} leaves"


def _cut(lines: list[str], most: int | None) -> list[str]:
    if most is None or len(lines) <= most:
        return lines
    return [*lines[:most], f"... and {len(lines) - most:,} more lines"]


# ------------------------------------------------------------------------------- sections


def _section(kind: str, rows: Sequence[Difference], width: int, most: int | None) -> list[str]:
    if kind == "changed":
        return _changed(rows, width, most)
    groups: list[_Group] = []
    for alike in _by(rows, _detail_key).values():
        groups += _groups(alike)
    lines = [f"{_name(group.name, group.rows[0])}  {_detail(group)}".rstrip() for group in groups]
    return _cut(lines, most)


def _by(rows: Iterable[Difference], key: Callable[[Difference], object]) -> dict[object, list[Difference]]:
    found: dict[object, list[Difference]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return found


def _detail_key(row: Difference) -> object:
    """What rows on one line have in common."""
    return row.shape_before, row.shape, row.dtype_before, row.dtype, row.note


def _groups(rows: Iterable[Difference]) -> list[_Group]:
    """The rows by layer, the largest first; dots in names of other programs separate as slashes do."""
    by_path = {row.path: row for row in rows}
    separator = separator_of(by_path)
    row_of = {path.replace(separator, "/"): row for path, row in by_path.items()}
    groups = [
        _Group(group.name.replace("/", separator), tuple(row_of[path] for path in group.paths))
        for group in group_by_layer(row_of)
    ]
    return sorted(groups, key=lambda group: group.order)


def _name(name: str, row: Difference) -> str:
    """The name of a group; with the name before, where that is another and no rule says it."""
    shown = printable(name)
    if row.kind in ("renamed", "restacked") and row.path_before is not None:
        return f"{printable(row.path_before)} -> {shown}"
    return shown


def _detail(group: _Group) -> str:
    row = group.rows[0]
    parts = {
        "reshaped": [f"{_shape(row.shape_before)} -> {_shape(row.shape)}"],
        "retyped": [f"{_typed(row.dtype_before)} -> {_typed(row.dtype)}"],
        "added": [f"{_shape(row.shape)} {row.dtype}"],
        "removed": [f"{_shape(row.shape_before)} {row.dtype_before}"],
    }.get(row.kind, [])
    has_size = row.kind in ("retyped", "transposed", "restacked")
    if has_size and any(row.relative for row in group.rows):
        parts.append(f"relative {_range(row.relative for row in group.rows)}")
    if row.by_layer and any(row.by_layer):
        parts.append(sparkline(row.by_layer))
    if row.note:
        parts.append(printable(row.note))
    return ", ".join(part.strip() for part in parts if part.strip()) + _nonfinite(group)


def _shape(shape: tuple[int, ...] | None) -> str:
    return "" if shape is None else str([*shape])


def _typed(dtype: str) -> str:
    return dtype


# -------------------------------------------------------------------------------- changed


def _changed(rows: Sequence[Difference], width: int, most: int | None) -> list[str]:
    """The changed leaves as a table; below each other, where it is wider than the page."""
    groups = _groups(rows)
    shown = groups if most is None else groups[:most]
    cells = [_cells(group) for group in shown]
    notes = [_notes(group) for group in shown]
    if not cells:
        return []
    table = [_HEADER, *cells]
    columns = [at for at in range(len(_HEADER)) if at == 0 or any(row[at] for row in cells)]
    widths = {at: max(len(row[at]) for row in table) for at in columns}
    if sum(widths.values()) + 2 * len(widths) - 2 > width:
        lines = [line for row, note in zip(cells, notes) for line in _below_each_other(row, note, width)]
    else:
        padded = ["  ".join(row[at].ljust(widths[at]) for at in columns).rstrip() for row in table]
        lines = [padded[0], *(_noted(line, note, width) for line, note in zip(padded[1:], notes))]
    if len(groups) > len(shown):
        left = sum(len(group.rows) for group in groups[len(shown) :])
        lines.append(f"... and {_leaves(left)} more")
    return lines


def _noted(line: str, note: str, width: int) -> str:
    return f"{line}  {note}".rstrip() if note else line


def _cells(group: _Group) -> list[str]:
    relative = [row.relative for row in group.rows]
    if all(value is None for value in relative):
        return [printable(group.name), "", "", "", ""]
    numbers = [row.largest for row in group.rows if row.largest is not None]
    cosines = [row.cosine for row in group.rows if row.cosine is not None]
    return [
        printable(group.name),
        _by_layer(group),
        _range(relative),
        _number(max(numbers, default=0.0)),
        _cosine(min(cosines, default=math.nan)),
    ]


def _by_layer(group: _Group) -> str:
    """The relative sizes by layer as a sparkline: of the leaves of a group, or of the layers of one stack."""
    if len(group.rows) > 1:
        return sparkline([math.nan if row.relative is None else row.relative for row in group.rows])
    layers = group.rows[0].by_layer
    return sparkline(layers) if len(layers) > 1 else ""


def _notes(group: _Group) -> str:
    """What else there is to say of changed leaves."""
    row = group.rows[0]
    parts = [printable(row.note)] if row.note else []
    if row.relative is None and row.differing is not None:
        differing = sum(row.differing or 0 for row in group.rows)
        parts.append(f"{differing:,} differ")
    return (", ".join(parts) + _nonfinite(group)).strip()


def _nonfinite(group: _Group) -> str:
    before = sum(row.nonfinite_before for row in group.rows)
    after = sum(row.nonfinite for row in group.rows)
    if not before and not after:
        return ""
    return f"  ! {after:,} non-finite" + (f", before {before:,}" if before else "")


def _below_each_other(cells: Sequence[str], note: str, width: int) -> Iterator[str]:
    """A changed leaf on two or more lines: its path, and below it as many of its figures as fit."""
    yield cells[0]
    figures = [f"{title} {cell}" for title, cell in zip(_HEADER[2:], cells[2:]) if cell]
    line = ""
    for part in [cells[1], *figures, note]:
        longer = f"{line}  {part}".rstrip() if line else f"  {part}"
        if part and line and len(longer) > width:
            yield line
            longer = f"  {part}"
        line = longer if part else line
    if line:
        yield line


# -------------------------------------------------------------------------------- numbers


def _range(values: Iterable[float | None]) -> str:
    there = [value for value in values if value is not None]
    if not there:
        return ""
    low, high = _number(min(there)), _number(max(there))
    return low if low == high else f"{low}..{high}"


def _number(value: float) -> str:
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    return f"{value:.3g}" if 1e-3 <= abs(value) < 1e5 else f"{value:.1e}"


def _cosine(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}"


def _wrapped(line: str, width: int, breaks: str) -> list[str]:
    """A line in parts of at most so many characters, broken behind one of these characters where there is one."""
    parts: list[str] = []
    while len(line) > width:
        at = max(line.rfind(character, width // 2, width) for character in breaks) + 1
        at = at if at > 0 else width
        parts.append(line[:at].rstrip())
        line = "  " + line[at:].lstrip() if width > 8 else line[at:]
    return [*parts, line]
