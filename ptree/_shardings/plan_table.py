"""The table of a plan: each leaf with its shape, spec, rule and bytes per device, and the sums."""

from __future__ import annotations

from collections.abc import Sequence

from .._terminal import terminal_width
from .._words import SHOWN, columns, describe, in_bytes, table
from .plan_rows import Row, Sums, rows_of, size_in_words, spec_in_words
from .planned_leaves import PlannedLeaf

_PATH, _SHAPE, _SPEC, _SIZE, _RULE = range(5)
_HEAD = ("path", "shape", "divided by", "per device", "rule")
_DROPPED = ((), (_SHAPE,), (_RULE,), (_SHAPE, _RULE), (_SHAPE, _RULE, _SIZE))
"""The columns to leave out where there is too little room, in the order in which it is tried."""
_ENOUGH_FOR_PATHS = 44
_MARK = "*"


def table_of(leaves: Sequence[PlannedLeaf], sums: Sums, width: int | None = None) -> str:
    """The table of the leaves of a plan as text.

    Args:
        leaves: each leaf of the plan.
        sums: what they are together.
        width: the most columns of a line; by default those of the terminal.
    """
    width = terminal_width() if width is None else width
    rows = rows_of(leaves)
    cells = [_HEAD, *map(_cells, rows)]
    dropped = _dropped_columns(cells, width)
    kept = [column for column in range(len(_HEAD)) if column not in dropped]
    shown = [[row[column] for column in kept] for row in cells]
    right = {kept.index(_SIZE)} if _SIZE in kept else set()
    lines = table(shown, right=right, width=width)
    return "\n".join([*lines, *sums_in_words(sums, width), *_footnotes(rows, width)])


def _cells(row: Row) -> tuple[str, ...]:
    leaf = row.leaf
    path = row.path if row.leaves == 1 else f"{row.path} x{row.leaves}"
    spec = spec_in_words(leaf.sharding)
    if leaf.undivided:
        spec += f" {_MARK}"
    return path, describe(leaf), spec, size_in_words(row), leaf.reason


def _dropped_columns(cells: Sequence[Sequence[str]], width: int) -> Sequence[int]:
    """The columns that are left out so that enough of the paths can be read."""
    widths = [max(columns(row[column]) for row in cells) for column in range(len(_HEAD))]
    needed = min(widths[_PATH], _ENOUGH_FOR_PATHS)
    for dropped in _DROPPED:
        others = sum(widths[at] + 2 for at in range(len(_HEAD)) if at != _PATH and at not in dropped)
        if needed + others <= width:
            return dropped
    return _DROPPED[-2]


def sums_in_words(sums: Sums, width: int) -> list[str]:
    """The sums of a plan in lines: on how many devices, how large, and the replicated share."""
    share = sums.replicated_bytes / sums.bytes_per_device if sums.bytes_per_device else 0.0
    facts = [
        f"{sums.devices:,} {'device' if sums.devices == 1 else 'devices'}: {sums.axes}",
        f"{in_bytes(sums.bytes)} in {sums.leaves:,} {'leaf' if sums.leaves == 1 else 'leaves'}",
        f"{in_bytes(sums.bytes_per_device)} per device",
        f"{in_bytes(sums.replicated_bytes)} of it ({share:.1%}) on every device",
    ]
    if sums.host_bytes_per_device:
        facts.append(f"{in_bytes(sums.host_bytes_per_device)} in the host's memory for each device")
    return _side_by_side(facts, width)


def _side_by_side(facts: Sequence[str], width: int) -> list[str]:
    """Facts side by side, as many as fit in a line."""
    lines = [facts[0]]
    for fact in facts[1:]:
        longer = f"{lines[-1]}; {fact}"
        if columns(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(fact)
    return lines


def _footnotes(rows: Sequence[Row], width: int) -> list[str]:
    """For each leaf that a mark says is whole in a dimension: why."""
    marked = [row for row in rows if row.leaf.undivided]
    lines = [f"{_MARK} {row.path}: {'; '.join(row.leaf.undivided)}" for row in marked[:SHOWN]]
    if len(marked) > SHOWN:
        lines.append(f"{_MARK} and {len(marked) - SHOWN} more")
    return [line for text in lines for line in _wrapped(text, width)]


def _wrapped(text: str, width: int) -> list[str]:
    """A text in lines of at most so many columns, of which a wide character takes two."""
    lines: list[str] = []
    for word in text.split(" "):
        if lines and columns(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word if not lines else f"  {word}")
    return lines
