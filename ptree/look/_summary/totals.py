"""Summary of parameters as data: rows, and totals by dtype, node and selector."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from .row import Row

if TYPE_CHECKING:
    from ..._paths import Selector
    from .._flops.flops import Flops
    from .._sources.selection import Names


@dataclass(frozen=True)
class Total:
    """How many numbers, bytes and leaves there are together; a tied leaf counts once.

    >>> import numpy as np
    >>> from ptree import look
    >>> look.summary({"w": np.ones((2, 3), "f4")}).by_dtype
    {'f32': Total(count=6, bytes=24, leaves=1)}
    """

    count: int
    """How many numbers."""
    bytes: int
    """Their bytes."""
    leaves: int
    """How many leaves."""

    __module__ = "ptree.look"


@dataclass(frozen=True, repr=False)
class SummaryData:
    """Rows for all parameters of a tree or file, and totals that count a tied leaf once."""

    rows: tuple[Row, ...]
    """A row for each leaf and each alias."""
    title: str = ""
    """The name of a file and what is known of it, above the table."""
    depth: int | None = None
    """How many names deep the table goes; None for all."""
    fold: bool = True
    """Whether blocks that are equal but for their names are one row of the table."""
    memory: dict[str, int] | None = None
    """With `memory=True`: what `compile().memory_analysis()` says of the compiled model, in bytes."""
    flops: Flops | None = None
    """With `flops=True`: the operations of one call of the model."""

    @cached_property
    def leaves(self) -> tuple[Row, ...]:
        """The rows without those of aliases."""
        return tuple([row for row in self.rows if row.tied_to is None])

    @cached_property
    def count(self) -> int:
        """The number of parameters: all elements of all leaves."""
        return sum([row.count for row in self.rows])

    @cached_property
    def bytes(self) -> int:
        """The size of all parameters in bytes."""
        return sum([row.bytes for row in self.rows])

    @cached_property
    def trainable(self) -> int | None:
        """The number of trainable parameters; None if neither the tree nor a mask says which are."""
        if all(row.trainable is None for row in self.leaves):
            return None
        return sum(row.count for row in self.leaves if row.trainable)

    @cached_property
    def by_dtype(self) -> dict[str, Total]:
        """The total of each dtype, the largest count first."""
        totals = _totals((row.dtype, row) for row in self.leaves)
        return dict(sorted(totals.items(), key=lambda item: -item[1].count))

    def by_node(self, depth: int = 1) -> dict[str, Total]:
        """The total below each node at a depth: of the top-level nodes for 1.

        >>> from ptree import summary
        >>> {path: total.count for path, total in summary({"a": {"w": [1, 2]}, "b": 3}).by_node().items()}
        {'a': 2, 'b': 1}
        """
        return _totals(("/".join(row.path.split("/")[:depth]), row) for row in self.leaves)

    def total(self, selector: Selector) -> Total:
        """The total of the leaves that a selector means; a predicate gets the path and the row.

        Raises:
            PatternError: the selector is malformed, or a part of it matches nothing.
        """
        chosen = {*self._names.selected(selector)}
        return _total(row for row in self.leaves if row.path in chosen)

    @cached_property
    def _names(self) -> Names[Row]:
        sources = {row.path: row.source for row in self.rows if row.source is not None}
        from .._sources.selection import Names  # with all of the language of patterns

        return Names({row.path: row for row in self.leaves}, sources)


def _total(rows: Iterable[Row]) -> Total:
    rows = list(rows)
    return Total(sum([row.count for row in rows]), sum([row.bytes for row in rows]), len(rows))


def _totals(named: Iterable[tuple[str, Row]]) -> dict[str, Total]:
    """The total of the rows of each name."""
    rows: dict[str, list[Row]] = {}
    for name, row in named:
        rows.setdefault(name, []).append(row)
    return {name: _total(those) for name, those in rows.items()}
