"""Row: one line of a table, from patterns of the source to patterns of the target through an operation; checked and inverted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..._errors import PatternError
from ..._words import describe, quoted
from .._operations import public
from .._operations.operation import AsIs, Operation
from .._operations.text import parse_operation
from .names import NamePattern

Source: TypeAlias = "str | tuple[str, ...]"
"""The left side of a row: a pattern, or several whose arrays an operation joins."""
Target: TypeAlias = "str | Operation | tuple[str | Operation, ...]"
"""The right side of a row: patterns, and after them the operation where there is one."""


@dataclass(frozen=True)
class Row:
    """One line of a table."""

    sources: tuple[NamePattern, ...]
    targets: tuple[NamePattern, ...]
    operation: Operation
    says_operation: bool = True
    """Whether the table says the operation, if only `as_is`; without it, square kernels are refused."""

    @property
    def inverse(self) -> Row:
        return Row(self.targets, self.sources, self.operation.inverse, self.says_operation)

    @property
    def text(self) -> str:
        """The row as people write it: `'a.*.weight' -> 'a/*/kernel', linear`."""
        right = [*map(repr, self.targets)]
        if self.says_operation:
            right.append(repr(self.operation))
        return f"{', '.join(map(repr, self.sources)) or '()'} -> {', '.join(right)}"


def parsed_row(left: Source, right: Target) -> Row:
    """A row of the form in which tables are written.

    Raises:
        PatternError: a malformed pattern, wildcards that do not correspond, or names that do not fit the operation.
    """
    sources = tuple(map(NamePattern, _as_tuple(left)))
    parts = _as_tuple(right)
    says_operation = bool(parts) and isinstance(parts[-1], Operation)
    operation = parts[-1] if says_operation else AsIs()
    names = parts[:-1] if says_operation else parts
    wrong = [name for name in names if not isinstance(name, str)]
    if wrong:
        raise PatternError(
            f"row {quoted(left)}: expected patterns, then at most one operation (`a >> b` joins two); got {describe(wrong[0])}"
        )
    assert isinstance(operation, Operation)
    row = Row(sources, tuple(map(NamePattern, map(str, names))), operation, says_operation)
    _check_names(row)
    _check_counts(row)
    _check_wildcards(row)
    return row


def _as_tuple(side: Any) -> tuple[Any, ...]:
    return tuple(side) if isinstance(side, (tuple, list)) else (side,)


def _check_names(row: Row) -> None:
    """Refuse a name that stands twice on one side: one of its arrays would be lost."""
    for patterns in (row.sources, row.targets):
        paths = [pattern.path for pattern in patterns]
        twice = [pattern for pattern in patterns if paths.count(pattern.path) > 1]
        if twice:
            raise PatternError(f"row {row.text}: the name {twice[0]!r} stands there twice")


def _check_counts(row: Row) -> None:
    counts = (len(row.sources), len(row.targets))
    arity = row.operation.arity
    if arity is None and counts != (1, 1):
        hint = "" if row.says_operation else _missing_operation(row)
        raise PatternError(
            f"row {row.text}: {row.operation!r} changes one array, and the row has {_counted(counts)}{hint}"
        )
    if arity is not None and arity != counts:
        raise PatternError(
            f"row {row.text}: {row.operation!r} takes {_counted(arity)}, and the row has {_counted(counts)}"
        )


def _missing_operation(row: Row) -> str:
    """The end of a sentence: what a row of several names lacks."""
    for pattern in row.targets[1:]:
        if _is_operation(pattern.text):
            return f": {pattern!r} is read as the name of a leaf, and the operation is ptree.convert.{pattern.text}, without quotes"
    return ": say one that splits or joins them, such as split(3)"


def _is_operation(text: str) -> bool:
    if public.is_name(text):
        return True
    try:
        parse_operation(text)
    except PatternError:
        return False
    return True


def _counted(counts: tuple[int, int]) -> str:
    sources, targets = counts
    return f"{sources} name{'s' * (sources != 1)} on the left and {targets} on the right"


def _check_wildcards(row: Row) -> None:
    patterns = [*row.sources, *row.targets]
    kinds = [[wildcard.is_path for wildcard in pattern.wildcards] for pattern in patterns]
    for pattern, kind in zip(patterns, kinds, strict=True):
        if kind != kinds[0]:
            raise PatternError(
                f"row {row.text}: the wildcards of {pattern!r} do not correspond to those of {patterns[0]!r} one to one, in"
                " order: `**` to `**`, every other to one inside a segment"
            )
    for pattern in patterns[1:]:
        pairs = zip(patterns[0].wildcards, pattern.wildcards, strict=True)
        if any(first.is_apart_from(other) for first, other in pairs):
            raise PatternError(
                f"row {row.text}: nothing that the wildcards of {patterns[0]!r} stand for is in those of {pattern!r}; braces"
                " with as many plain choices on both sides correspond by position"
            )


def captured(patterns: Sequence[NamePattern], position: int, path: str) -> tuple[str, ...] | None:
    """What the wildcards of the first pattern stand for, if the pattern at a position matches this path; else None."""
    found = patterns[position].read(path)
    if found is None:
        return None
    return patterns[position].translate(found, patterns[0])
