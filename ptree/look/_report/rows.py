"""Rows of a report: leaves with their numbers, aliases, and leaves that were removed."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from ..._errors import FileError, PatternError
from ..._paths import Selector
from .._diff.leaves import UNREADABLE, reason_of
from .._sources.selection import selected
from .._sources.source import LeafInfo, Source
from .changes import Change
from .leaf_numbers import LeafNumbers, leaf_numbers

_OTHER_NUMBERS = {"changed", "reshaped", "retyped", "transposed"}
"""Kinds of changes after which a leaf has other numbers, or others at a place."""


@dataclass(frozen=True)
class ReportRow:
    """A row of the page: a leaf, or an alias with the sizes of its leaf."""

    path: str
    info: LeafInfo
    shape: tuple[int, ...] | None
    numbers: LeafNumbers | None = None
    source: str | None = None
    """Of an alias the path of its leaf."""
    shown: str = ""
    """Of an alias its source as people write it."""
    problem: str = ""
    """Why its numbers cannot be read."""
    is_damaged: bool = False
    """Whether its bytes are not what was written, as far as is known after they were read."""

    @property
    def is_alias(self) -> bool:
        return self.source is not None

    @property
    def damage(self) -> str:
        """Its path and what is wrong with it; "" if it is not damaged."""
        return f"{self.path}: {self.problem}" if self.is_damaged else ""


def rows_of(source: Source, paths: Iterable[str]) -> list[ReportRow]:
    """The rows of leaves, and of all their aliases, in the order of the source."""
    chosen = set(paths)
    rows: list[ReportRow] = []
    for name in source.order:
        alias = source.aliases.get(name)
        if alias is None and name in chosen:
            rows.append(_leaf_row(source, name))
        elif alias is not None and alias.source in chosen:
            info = source.leaves[alias.source]
            rows.append(ReportRow(name, info, alias.shape, source=alias.source, shown=alias.shown))
    return rows


def _is_damage(error: BaseException) -> bool:
    """Whether an error of reading a leaf says that its bytes are not what was written, rather than that they cannot be had."""
    if isinstance(error, FileError):
        return error.is_damage
    return isinstance(error, (zipfile.BadZipFile, zlib.error, EOFError))


def damage_before(before: Source, change: Change) -> str:
    """The damage of the leaf before of a change that could not be read; "" if it is not damaged."""
    if "unread" not in change.kinds or change.before not in before.leaves:
        return ""
    return _leaf_row(before, change.before).damage


def rows_by_selector(source: Source, selector: Selector | None) -> list[ReportRow]:
    """The rows of the selected leaves; none where the selector matches nothing here, as it may in one of two inputs."""
    try:
        return rows_of(source, selected(source, selector))
    except PatternError:
        return []


def removed_rows(before: Source, changes: Iterable[tuple[str, Change]]) -> list[ReportRow]:
    """The rows of leaves that are only in the source before."""
    removed = [path for path, change in changes if "removed" in change.kinds]
    return [_leaf_row(before, path) for path in removed if path in before.leaves]


def _leaf_row(source: Source, path: str) -> ReportRow:
    info = source.leaves[path]
    problem = "" if info.is_declared else info.problem
    try:
        numbers = leaf_numbers(source, path)
    except UNREADABLE as error:
        return ReportRow(path, info, info.shape, problem=reason_of(error), is_damaged=_is_damage(error))
    return ReportRow(path, info, info.shape, numbers, problem=problem, is_damaged=info.is_damaged)


def numbers_before(before: Source, change: Change | None) -> LeafNumbers | None:
    """The numbers that a leaf had, where it has others now."""
    if change is None or change.before not in before.leaves or not _OTHER_NUMBERS & {*change.kinds}:
        return None
    try:
        return leaf_numbers(before, change.before)
    except UNREADABLE:
        return None
