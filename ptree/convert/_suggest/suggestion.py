"""Suggestion: a proposed table as data and as code that can be pasted, with its doubts and what is left over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..._words import listed
from .._operations.operation import Operation
from .._table.row import Source, Target
from .._table.table import Table
from .row_code import INDENT, comment, commented, row_code

_MOST_CHOICES = 5


@dataclass(frozen=True)
class SuggestedRow:
    """A row of a proposed table.

    >>> import numpy as np
    >>> from ptree import convert
    >>> source = {"0.weight": np.ones((8, 4)), "0.bias": np.ones(8)}
    >>> suggestion = convert.suggest(source, {"0": {"kernel": np.ones((4, 8)), "bias": np.ones(8)}})
    >>> [row.entry for row in suggestion.rows]
    [('0.weight', ('0/kernel', linear)), ('0.bias', '0/bias')]
    """

    sources: tuple[str, ...]
    """Patterns of names in the source."""
    targets: tuple[str, ...]
    """Patterns of names in the target."""
    operation: Operation
    """What is done with the arrays."""
    reason: Literal["shape", "name"]
    """What decided: a shape that nothing else has, or names."""
    doubts: tuple[str, ...] = ()
    """Why the row is not certain; empty where it is."""
    alternatives: tuple[SuggestedRow, ...] = ()
    """Other rows that fit as well, most alike first."""
    is_explicit: bool = True
    """Whether the row names its operation; `as_is` is what a row without one does."""

    __module__ = "ptree.convert"

    @property
    def entry(self) -> tuple[Source, Target]:
        """The row as `Table` takes it: `convert.Table([row.entry, ...])`."""
        left = self.sources[0] if len(self.sources) == 1 else self.sources
        right = (*self.targets, self.operation) if self.is_explicit else self.targets
        return left, right[0] if len(right) == 1 else right


@dataclass(frozen=True)
class Suggestion:
    """A proposed table. `print(suggestion)` shows it as code, with the doubtful rows as comments.

    >>> import numpy as np
    >>> from ptree import convert
    >>> source = {"0.weight": np.ones((8, 4)), "0.bias": np.ones(8)}
    >>> suggestion = convert.suggest(source, {"0": {"kernel": np.ones((4, 8)), "bias": np.ones(8)}})
    >>> len(suggestion.table), suggestion.ambiguous, suggestion.missing
    (2, (), ())
    """

    rows: tuple[SuggestedRow, ...]
    """All rows, those in doubt too."""
    unused: tuple[str, ...]
    """Names in the source that are in no row."""
    missing: tuple[str, ...]
    """Leaves of the target that are in no row."""

    __module__ = "ptree.convert"

    @property
    def table(self) -> Table:
        """The rows that are certain."""
        return Table([row.entry for row in self.rows if not row.doubts])

    @property
    def ambiguous(self) -> tuple[SuggestedRow, ...]:
        """The rows that are in doubt: each has `doubts`, and `alternatives` where others fit as well."""
        return tuple(row for row in self.rows if row.doubts)

    def text(self, width: int = 80) -> str:
        """The proposal as Python code: the certain rows as a table, the doubtful ones as comments in it, then what is left over.

        Args:
            width: the most characters of a line; from 40 on it reads well.
        """
        lines = ["from ptree import convert", "", "table = convert.Table({"]
        for row in self.rows:
            lines += _lines_of(row, width)
        lines.append("})")
        for title, names in (
            ("not matched in the source", self.unused),
            ("not matched in the target", self.missing),
        ):
            if names:
                lines += comment(f"{title}, {len(names)}: {listed(names)}", width, indent="")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.text()


def _lines_of(row: SuggestedRow, width: int) -> list[str]:
    """A certain row as code; of a doubtful one its doubts, and each of the rows that may be right, as comments."""
    if not row.doubts:
        return [f"{INDENT}{line}" for line in _code_of(row, width - len(INDENT))]
    # two marks: sentences are comments still when the code below is uncommented
    lines = [line for doubt in row.doubts for line in comment(doubt, width, mark="##")]
    for choice in (row, *row.alternatives)[:_MOST_CHOICES]:
        lines += commented(_code_of(choice, width - len(INDENT) - 2))
    more = 1 + len(row.alternatives) - _MOST_CHOICES
    if more > 0:
        lines += comment(f"and {more} more", width, mark="##")
    return lines


def _code_of(row: SuggestedRow, width: int) -> list[str]:
    return row_code(row.sources, row.targets, row.operation if row.is_explicit else None, width)
