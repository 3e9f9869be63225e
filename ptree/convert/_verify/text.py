"""Text of a verification: a verdict, a table of errors at 40 columns and at 120, the first difference in words, the checklist."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from ..._words import columns, listed, printable, quoted, shortened, table
from .calls import Failure
from .comparison import Comparison
from .verification_data import VerificationData

_HEADER = ("value", "shape", "dtype", "error", "relative", "cosine", "allowed", "")
_RIGHT = {3, 4, 5, 6}
_LONGEST_NAME = 60
_LONGEST_MESSAGE = 300


def verification_text(verification: VerificationData, width: int, most: int | None) -> str:
    """The text of a verification; see `Verification.text`."""
    width = max(width, 20)
    shown, hidden = _chosen(verification.worst, most)
    lines = _wrapped(_verdict(verification), width)
    lines += _table(shown, verification.batches, width)
    if hidden:
        lines += _wrapped(f"and {hidden:,} more that agree" if verification.ok else f"and {hidden:,} more", width)
    for failure in verification.failures:
        lines += _wrapped(_failure(failure, verification.batches), width)
    lines += _unmatched(verification, width)
    lines += _nonfinite_on_both(verification.worst, width)
    lines += _loose_tolerances(verification.rows, width)
    if verification.first is not None:
        lines += _first_difference(verification, verification.first, width)
    if verification.checklist:
        lines += ["", *_wrapped("Other causes than weights:", width)]
        for item in verification.checklist:
            lines += _wrapped(item, width, first="- ", rest="  ")
    return "\n".join(lines)


def _chosen(rows: Sequence[Comparison], most: int | None) -> tuple[list[Comparison], int]:
    """The rows to show in their order, those that differ before others, and how many are left out."""
    if most is None or len(rows) <= most:
        return list(rows), 0
    by_importance = sorted(range(len(rows)), key=lambda at: (rows[at].ok, at))
    kept = sorted(by_importance[:most])
    return [rows[at] for at in kept], len(rows) - most


def _wrapped(text: str, width: int, first: str = "", rest: str = "  ") -> list[str]:
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False, drop_whitespace=True
    )


def _verdict(verification: VerificationData) -> str:
    rows = verification.worst
    batches = "" if verification.batches == 1 else f" in {verification.batches:,} batches"
    differing = sum(not row.ok for row in rows)
    if verification.ok:
        return f"the same: {_counted(len(rows))}{batches} within the tolerance"
    if differing:
        verb = "differs" if differing == 1 else "differ"
        return f"not the same: {differing:,} of {_counted(len(rows))}{batches} {verb}"
    if verification.failures:
        failed = len(verification.failures)
        return f"not verified: {'a call' if failed == 1 else f'{failed:,} calls'} failed"
    return f"not verified: {_counted(len(rows))} without any numbers, so nothing was compared"


def _counted(count: int) -> str:
    return "1 value" if count == 1 else f"{count:,} values"


# ----------------------------------------------------------------------------------- table


def _table(rows: Sequence[Comparison], batches: int, width: int) -> list[str]:
    """The rows as a table; where that is wider than the page, the figures of each value below its name."""
    if not rows:
        return []
    cells = [_cells(row, batches) for row in rows]
    whole = table([_HEADER, *cells], right=_RIGHT)
    if max(map(columns, whole)) <= width:
        return whole
    lines: list[str] = []
    for row in cells:
        name, shape, dtype, *figures, verdict = row
        lines.append(shortened(f"{name}  {verdict}" if verdict else name, width))
        parts = [part for part in (shape, dtype) if part]
        parts += [f"{title} {figure}" for title, figure in zip(_HEADER[3:], figures) if figure]
        lines += _packed(parts, width)
    return lines


def _packed(parts: Sequence[str], width: int) -> list[str]:
    """As many parts in each indented line as fit."""
    lines: list[str] = []
    line = ""
    for part in parts:
        longer = f"{line}  {part}" if line else f"  {part}"
        if line and columns(longer) > width:
            lines.append(shortened(line, width))
            longer = f"  {part}"
        line = longer
    return [*lines, shortened(line, width)] if line else lines


def _cells(row: Comparison, batches: int) -> list[str]:
    verdict = "ok" if row.ok else "DIFFERS"
    if batches > 1 and not row.ok:
        verdict += f" (batch {row.batch})"
    has_numbers = row.absolute is not None
    return [
        _name(row),
        _both(_shape(row.shape), _shape(row.shape_ours)),
        _both(row.dtype, row.dtype_ours),
        _number(row.absolute),
        _number(row.relative),
        "" if row.cosine is None else f"{row.cosine:.6f}",
        _number(row.tolerance) if has_numbers else "",
        verdict,
    ]


def _name(row: Comparison) -> str:
    name = shortened(printable(row.name), _LONGEST_NAME)
    if not row.name_ours or row.name_ours == row.name:
        return name
    return f"{name} -> {shortened(printable(row.name_ours), _LONGEST_NAME)}"


def _both(source: str, ours: str) -> str:
    """What both have in common, or the source's and ours."""
    if source == ours:
        return source
    return f"{source or '-'} -> {ours or '-'}"


def _shape(shape: tuple[int, ...] | None) -> str:
    return "" if shape is None else f"[{','.join(map(str, shape))}]"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:.3g}" if 1e-3 <= abs(value) < 1e5 else f"{value:.1e}"


# --------------------------------------------------------------------------------- sentences


def _failure(failure: Failure, batches: int) -> str:
    where = "" if batches == 1 else f" on batch {failure.batch}"
    message = " ".join(failure.message.split())
    return f"! {failure.side} raised{where}: {shortened(printable(message), _LONGEST_MESSAGE)}"


def _unmatched(verification: VerificationData, width: int) -> list[str]:
    lines: list[str] = []
    for side, names in (("the source", verification.only_source), ("ours", verification.only_ours)):
        if names:
            lines += _wrapped(f"compared with nothing, as only {side} has them: {listed(names)}", width)
    return lines


def _nonfinite_on_both(rows: Sequence[Comparison], width: int) -> list[str]:
    lines: list[str] = []
    for row in rows:
        if row.ok and row.nonfinite:
            verbs = ("is", "proves") if row.nonfinite == 1 else ("are", "prove")
            text = f"! {quoted(row.name)}: {row.nonfinite:,} {verbs[0]} NaN or infinite on both sides, and {verbs[1]} nothing"
            lines += _wrapped(text, width)
    return lines


def _loose_tolerances(rows: Sequence[Comparison], width: int) -> list[str]:
    """Say where the default tolerance, that of the largest number, lets smaller numbers differ."""
    worst: dict[str, Comparison] = {}
    for row in rows:
        if row.unseen and (row.name not in worst or row.unseen > worst[row.name].unseen):
            worst[row.name] = row
    lines: list[str] = []
    for row in worst.values():
        verb = "differs" if row.unseen == 1 else "differ"
        text = (
            f"! {quoted(row.name)}: {row.unseen:,} of {row.count:,} {verb} by more than a tenth of the usual size there, within the"
            f" tolerance of {_number(row.tolerance)}, which is for the largest number; tolerance= sets a smaller one"
        )
        lines += _wrapped(text, width)
    return lines


def _first_difference(verification: VerificationData, row: Comparison, width: int) -> list[str]:
    order = " in the order of computation" if len(verification.worst) > 1 else ""
    lines = [
        "",
        *_wrapped(f"The first that differs{order}: {quoted(row.name)}{_place(row, verification.batches)}", width),
    ]
    for text in (row.problem, *row.hints):
        if text:
            lines += _wrapped(text, width, first="  ", rest="    ")
    return lines


def _place(row: Comparison, batches: int) -> str:
    """Where the largest error is, and the numbers there."""
    where = "" if batches == 1 else f", batch {row.batch}"
    if row.at is None or row.absolute is None:
        return where
    return f"{where}, most at {row.at}: {_value(row.value)} in the source, {_value(row.value_ours)} in ours"


def _value(value: object) -> str:
    return f"{value:.7g}" if isinstance(value, float) else str(value)
