"""Text of a diff: counts, rules, and a section for each kind, at 40 columns and at 120; leaves by layer share a line."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..._words import columns, printable, printable_path, shortened
from .._layers import group_by_layer, sparkline
from .._wrapping import wrapped
from .differences import Difference, order_by_size, relative_of_layer
from .rows import DiffData
from .rules import separator_of

_LABEL = 12
"""Columns of the kind in front of the lines of a section."""
_NARROW = 60
"""Below so many columns the kind has a line of its own."""
_LONGEST = 200  # characters of a name or a note
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


def diff_text(diff: DiffData, width: int, *, color: bool, most: int | None) -> str:
    """The text of a diff; see `Diff.text`."""
    width = max(width, 20)
    lines = _packed(_counts(diff), width, ", ")
    sections = [("renamed", _renames(diff, _inside(width), most))]
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
        front = label + " " * (_LABEL - len(kind)) if at == 0 and not is_narrow else " " * (width - inside)
        yield f"{front}{line}".rstrip()


# --------------------------------------------------------------------------------- counts


def _counts(diff: DiffData) -> list[str]:
    counts = diff.counts
    parts = [f"{diff.unchanged:,} the same{_within(diff)}"]
    parts += [f"{counts[kind]:,} {kind}" for kind in KINDS[1:] if kind in counts]
    if not diff.has_numbers:
        parts.append("by shapes and dtypes alone, as one of the two is a spec")
    elif diff.declared:
        parts.append(f"{diff.declared:,} of all by shape and dtype alone, without numbers yet")
    return parts


def _within(diff: DiffData) -> str:
    if not diff.within:
        return ""
    return f" ({diff.within:,} of them within the tolerance {diff.tolerance:g})"


def _renames(diff: DiffData, width: int, most: int | None) -> list[str]:
    """The rules, and the leaves that are renamed by none."""
    entries = [
        _Entry(f"{_path_shown(rule.before)} -> {_path_shown(rule.after)}", [_leaves(rule.count)]) for rule in diff.rules
    ]
    for row in diff.rows:
        if row.kind == "renamed" and row.path_before not in diff.ruled:
            entries.append(_Entry(_name(row.path, row), []))
    return _lines(entries, width, most)


def _shown(text: str) -> str:
    return shortened(printable(text), _LONGEST)


def _path_shown(path: str) -> str:
    return shortened(printable_path(path), _LONGEST)


def _leaves(count: int) -> str:
    return f"{count:,} leaf" if count == 1 else f"{count:,} leaves"


@dataclass(frozen=True)
class _Entry:
    """A name, and what is said of it."""

    name: str
    parts: list[str]
    between: str = ", "


def _lines(entries: Sequence[_Entry], width: int, most: int | None) -> list[str]:
    """The lines of a section: of each entry one, or the name and indented lines below it where one is too long."""
    shown = entries if most is None else entries[:most]
    lines: list[str] = []
    for entry in shown:
        whole = f"{entry.name}  {entry.between.join(entry.parts)}".rstrip()
        if columns(whole) <= width:
            lines.append(whole)
        else:
            lines += wrapped(entry.name, width)
            lines += [f"  {line}" for line in _packed(entry.parts, width - 2, entry.between)]
    if len(entries) > len(shown):
        lines.append(f"... and {len(entries) - len(shown):,} more")
    return lines


def _packed(parts: Sequence[str], width: int, between: str) -> list[str]:
    """As many parts in each line as fit; what does not fit in a line by itself is broken."""
    lines: list[str] = []
    line = ""
    for part in parts:
        longer = f"{line}{between}{part}" if line else part
        if line and columns(longer) > width:
            lines += wrapped(line + between.rstrip(), width)
            longer = part
        line = longer
    return lines + (wrapped(line, width) if line else [])


# ------------------------------------------------------------------------------- sections


def _section(kind: str, rows: Sequence[Difference], width: int, most: int | None) -> list[str]:
    if kind == "changed":
        return _changed(rows, width, most)
    groups: list[_Group] = []
    for alike in _by(rows, _detail_key).values():
        groups += _groups(alike)
    entries = [_Entry(_name(group.name, group.rows[0]), _details(group)) for group in groups]
    return _lines(entries, width, most)


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
    shown = _path_shown(name)
    if row.kind in ("renamed", "restacked") and row.path_before is not None:
        return f"{_path_shown(row.path_before)} -> {shown}"
    return shown


def _details(group: _Group) -> list[str]:
    row = group.rows[0]
    parts = {
        "reshaped": [f"{_shape(row.shape_before)} -> {_shape(row.shape)}"],
        "retyped": [f"{row.dtype_before} -> {row.dtype}"],
        "added": [f"{_shape(row.shape)} {row.dtype}"],
        "removed": [f"{_shape(row.shape_before)} {row.dtype_before}"],
    }.get(row.kind, [])
    has_size = row.kind in ("retyped", "transposed", "restacked")
    if has_size and any(row.relative for row in group.rows):
        parts.append(f"relative {_range(row.relative for row in group.rows)}")
    if row.by_layer and any(row.by_layer):
        parts.append(sparkline(row.by_layer))
    if row.note:
        parts.append(_shown(row.note))
    return [part.strip() for part in [*parts, _nonfinite(group)] if part.strip()]


def _shape(shape: tuple[int, ...] | None) -> str:
    return "" if shape is None else str([*shape])


# -------------------------------------------------------------------------------- changed


def _changed(rows: Sequence[Difference], width: int, most: int | None) -> list[str]:
    """The changed leaves as a table; where that is wider than the page, the figures of each leaf below its path."""
    groups = _groups(rows)
    shown = groups if most is None else groups[:most]
    if not shown:
        return []
    cells = [_cells(group) for group in shown]
    shown_columns = [at for at in range(len(_HEADER)) if at == 0 or any(row[at] for row in cells)]
    table = [[row[at] for at in shown_columns] for row in (_HEADER, *cells)]
    widths = [max(map(columns, column)) for column in zip(*table)]
    if sum(widths) + 2 * len(widths) - 2 > width:
        return _lines([_figures(group) for group in groups], width, most)
    padded = ["  ".join(_padded(cell, size) for cell, size in zip(row, widths)).rstrip() for row in table]
    lines = [padded[0]]
    for line, group in zip(padded[1:], shown):
        lines += _lines([_Entry(line, _notes(group), "  ")], width, None)
    if len(groups) > len(shown):
        lines.append(f"... and {len(groups) - len(shown):,} more")
    return lines


def _padded(cell: str, width: int) -> str:
    return cell + " " * (width - columns(cell))


def _figures(group: _Group) -> _Entry:
    """A changed leaf with its figures, each with its name."""
    path, by_layer, *figures = _cells(group)
    named = [f"{title} {figure}" for title, figure in zip(_HEADER[2:], figures) if figure]
    return _Entry(path, [part for part in (by_layer, *named, *_notes(group)) if part], "  ")


def _cells(group: _Group) -> list[str]:
    relative = [row.relative for row in group.rows]
    if all(value is None for value in relative):
        return [_path_shown(group.name), "", "", "", ""]
    numbers = [row.largest for row in group.rows if row.largest is not None]
    cosines = [row.cosine for row in group.rows if row.cosine is not None]
    return [
        _path_shown(group.name),
        _by_layer(group),
        _range(relative),
        _number(max(numbers, default=0.0)),
        _cosine(min(cosines, default=math.nan)),
    ]


def _by_layer(group: _Group) -> str:
    """The relative sizes by layer as a sparkline: of the leaves of a group, or of the layers of one stack."""
    if len(group.rows) > 1:
        return sparkline([relative_of_layer(row) for row in group.rows])
    layers = next(iter(group.rows)).by_layer
    return sparkline(layers) if len(layers) > 1 else ""


def _notes(group: _Group) -> list[str]:
    """What else there is to say of changed leaves."""
    row = group.rows[0]
    parts = [_shown(row.note)]
    if not row.relative and row.differing:  # no size, or one of finite numbers alone
        parts.append(f"{sum(row.differing or 0 for row in group.rows):,} differ")
    return [part for part in [*parts, _nonfinite(group)] if part]


def _nonfinite(group: _Group) -> str:
    before = sum(row.nonfinite_before for row in group.rows)
    after = sum(row.nonfinite for row in group.rows)
    if not before and not after:
        return ""
    return f"! {after:,} non-finite" + (f", before {before:,}" if before else "")


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
