"""Lay out the steps of a plan as lines of text: an array a line, folded where a row does the same to several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax

from ..._words import columns, describe, describe_apart, padded, printable
from ...look._wrapping import wrapped
from .._operations.operation import Described
from .step import Step, folded

_ARROW = "->"
_BELOW = "      "


class _Line(NamedTuple):
    """One line of the table, as cells: name and shape on the left, on the right, and the operation."""

    source: str
    source_shape: str
    target: str
    target_shape: str
    operation: str


def step_lines(steps: Sequence[Step], width: int) -> list[str]:
    """The lines of the steps of a plan, at most `width` columns wide."""
    rows = [line for group in folded(steps) for line in _lines_of(group)]
    return _laid_out(rows, width)


def _lines_of(steps: Sequence[Step]) -> list[_Line]:
    """A line for each name on the side that has more of them."""
    first = steps[0]
    row = first.row
    is_folded = len(steps) > 1
    sources = [pattern.text for pattern in row.sources] if is_folded else [source.name for source in first.sources]
    targets = [pattern.text for pattern in row.targets] if is_folded else [*first.targets]
    source_shapes = [_shown(source.described) for source in first.sources]
    target_shapes = [_shown(described) for described in first.outcome]
    count = max(len(sources), len(targets))
    lines: list[_Line] = []
    for at in range(count):
        source, source_shape = _cell(sources, at), _cell(source_shapes, at)
        target, target_shape = _cell(targets, at), _cell(target_shapes, at)
        lines.append(_Line(source, source_shape, target, target_shape, _note(steps) if at == 0 else ""))
    return lines


def _cell(cells: Sequence[str], at: int) -> str:
    return printable(cells[at]) if at < len(cells) else ""


def _shown(described: Described | None) -> str:
    return "" if described is None else describe(jax.ShapeDtypeStruct(described.shape, described.dtype))


def _note(steps: Sequence[Step]) -> str:
    """The operation, how many arrays the line stands for, and whether there is no way back."""
    row = steps[0].row
    notes: list[str] = []
    if row.says_operation:
        notes.append(repr(row.operation))
    if len(steps) > 1:
        notes.append(f"x{len(steps)}")
    if row.operation.is_one_way:
        notes.append("(one way)")
    return "  ".join(notes)


def _laid_out(rows: Sequence[_Line], width: int) -> list[str]:
    """The table: one line a row where the width allows it, else the right side on a line of its own."""
    left = max((columns(row.source) for row in rows), default=0)
    left_shape = max((columns(row.source_shape) for row in rows), default=0)
    right = max((columns(row.target) for row in rows), default=0)
    right_shape = max((columns(row.target_shape) for row in rows), default=0)
    note = max((columns(row.operation) for row in rows), default=0)
    whole = left + left_shape + right + right_shape + note + len(_ARROW) + 10
    lines: list[str] = []
    for row in rows:
        source = f"{padded(row.source, left)}  {padded(row.source_shape, left_shape)}"
        if whole <= width:
            target = f"{padded(row.target, right)}  {padded(row.target_shape, right_shape)}"
            lines.append(f"{source}  {_ARROW}  {target}  {row.operation}".rstrip())
            continue
        if row.source:
            lines += wrapped(f"{row.source}  {row.source_shape}".rstrip(), width)
        rest = [row.target, row.target_shape, row.operation]
        below = "  ".join([f"  {_ARROW}", *(cell for cell in rest if cell)])
        lines += wrapped(below, width, indent=_BELOW)
    return lines


def misfit_lines(
    steps: Sequence[Step], paths: Sequence[str], expected: Mapping[str, object], got: Mapping[str, object]
) -> list[str]:
    """A line for each leaf of another shape or dtype than in `like`; one for those of one row that differ in the same."""
    patterns = {
        target: pattern.text for step in steps for target, pattern in zip(step.targets, step.row.targets, strict=True)
    }
    groups: dict[tuple[str, str], list[str]] = {}
    for path in paths:
        before, after = describe_apart(expected[path], got[path])
        misfit = f"expected {before} in `like`, got {after}"
        groups.setdefault((patterns.get(path, path), misfit), []).append(path)
    lines: list[str] = []
    for (pattern, misfit), alike in groups.items():
        name = f"{printable(pattern)} x{len(alike)}" if len(alike) > 1 else printable(alike[0])
        lines.append(f"{name}: {misfit}")
    return lines
