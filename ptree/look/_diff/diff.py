"""diff: what differs between two trees, specs or files, read in chunks of bounded size."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from ..._errors import PatternError
from .._arguments import checked_tolerance
from .._sources.selection import selected
from .._sources.source import UNKNOWN_DTYPE, LeafInfo, Source
from .._sources.source_of import source_of
from .differences import WITHIN, Difference, difference_of, difference_of_stack, order_by_size
from .leaves import Side
from .pairs import Pairing, paired
from .result import Diff
from .text import KINDS
from .ties import copies_of_others, tie_changes

if TYPE_CHECKING:
    from ..._paths import Selector


def diff(a: Any, b: Any, *, selector: Selector | None = None, tolerance: float = 0.0, verify: bool = True) -> Diff:
    """What differs between two trees, specs or files, from `a` to `b`; print it for a table.

    >>> import numpy as np
    >>> before = {"enc": {"w": np.arange(1.0, 9.0), "b": np.array([3, 4.0])}, "head": np.ones((2, 3))}
    >>> after = {"encoder": {"w": np.arange(1.0, 9.0), "b": np.array([3, 4.5])}, "head": np.ones((4, 3))}
    >>> found = diff(before, after)
    >>> print(found)
    1 the same, 1 changed, 1 reshaped
    renamed     enc/** -> encoder/**  2 leaves
    changed     path       relative  largest  cosine
                encoder/b  0.1       0.5      0.998
    reshaped    head  [2, 3] -> [4, 3]
    >>> found.is_same, found.exit_code, bool(found), found.rows[0].kind
    (False, 1, True, 'renamed')

    Leaves are paired by name. The others are paired by content, then by rules that those pairs follow, so that constant
    and changed leaves find their partner too. Two NaN are the same, and so are 0.0 and -0.0. A change of dtype is a
    difference even where the numbers are the same.

    Files are read in chunks and never as a whole, in any format that `ptree` reads, without JAX (but for Orbax); beside
    them a few megabytes are used. A leaf that cannot be read is a row of the kind `unread`, and all else is compared.
    The leaves of a spec are compared by shapes and dtypes alone.

    Args:
        a: a tree, a spec or another pytree, the path of a file or a folder, or an open file.
        b: the same; it need not be of the same kind.
        selector: which leaves, of both; all by default. It may match nothing in one of the two.
        tolerance: a leaf is the same where its relative size of change, |b - a| / |a| over all its numbers, is at most
            this. A number that becomes NaN or inf is a change all the same.
        verify: read all leaves, and compare them with the checksums that files by ptree hold. If False, leaves of which
            both files state the same checksum are the same without being read: 100 GB take no time, and damage since
            the files were written is not seen.

    Returns:
        The differences as rows, which print as a table; true where there are any.

    Raises:
        FileError: either is no file that ptree reads, or its header is damaged.
        OSError: there is nothing at a path, or it cannot be read.
        PatternError: the selector is malformed, or matches nothing in both.
        StructureError: either is no tree.
        TypeError: the tolerance is no number.
        ValueError: it is negative, infinite or NaN.
    """
    tolerance = checked_tolerance(tolerance)
    with ExitStack() as opened:
        before, after = _opened(a, opened), _opened(b, opened)
        chosen = _selected(before, after, selector)
        pairing = paired(before, after, verify)  # all leaves: the partner of a chosen one may have a name that is not
        if selector is not None:
            pairing = pairing.restricted_to(chosen)
        return _Comparison(before, after, pairing, tolerance, verify).result()


def _opened(thing: Any, opened: ExitStack) -> Source:
    """The source of a side, which is closed at the end if it was opened here."""
    source = source_of(thing)
    if isinstance(thing, (str, os.PathLike)):
        opened.enter_context(source)
    return source


def _selected(before: Source, after: Source, selector: Selector | None) -> frozenset[str]:
    """The leaves of both sides that a selector selects: it may match nothing on one, as names may be removed."""
    chosen: set[str] = set()
    errors: list[PatternError] = []
    for source in (before, after):
        try:
            chosen.update(selected(source, selector))
        except PatternError as error:
            errors.append(error)
    if len(errors) == 2:
        raise errors[0]
    return frozenset(chosen)


class _Comparison:
    """Compares two sides whose leaves are paired."""

    def __init__(self, before: Source, after: Source, pairing: Pairing, tolerance: float, verify: bool):
        self.before, self.after, self.pairing = before, after, pairing
        self.tolerance, self.verify = tolerance, verify

    def result(self) -> Diff:
        found = {new_path: self._difference(path, new_path) for path, new_path in self.pairing.pairs.items()}
        rows = [*self._rows_of_pairs(found), *self._rows_of_stacks(), *self._rows_of_ties_and_single_leaves()]
        within = sum(row is not None and row.kind == WITHIN for row in found.values())
        return Diff(
            before=self.before.title,
            after=self.after.title,
            rows=tuple(sorted(rows, key=_kind_and_size)),
            same=tuple(self._same(found)),
            rules=self.pairing.rules,
            ruled=self.pairing.ruled,
            tolerance=self.tolerance,
            within=within,
            has_numbers=not (_is_spec(self.before) or _is_spec(self.after)),
            declared=sum(self._is_declared(path, new_path) for path, new_path in self.pairing.pairs.items()),
        )

    def _difference(self, path: str, new_path: str) -> Difference | None:
        if path in self.pairing.equal:
            return None
        return difference_of(
            Side(self.before, path, self.verify), Side(self.after, new_path, self.verify), self.tolerance
        )

    def _rows_of_pairs(self, found: Mapping[str, Difference | None]) -> Iterator[Difference]:
        """The differences of pairs, and the leaves that differ in their name alone."""
        for path, new_path in self.pairing.pairs.items():
            row = found[new_path]
            if row is not None and row.kind != WITHIN:
                yield row
            elif self._is_renamed(path, new_path):
                yield self._renamed(path, new_path)

    def _same(self, found: Mapping[str, Difference | None]) -> Iterator[str]:
        for path, new_path in self.pairing.pairs.items():
            row = found[new_path]
            if (row is None or row.kind == WITHIN) and not self._is_renamed(path, new_path):
                yield new_path

    def _is_renamed(self, path: str, new_path: str) -> bool:
        # two names of one tie are there on both sides, whichever of them has the leaf
        return path != new_path and path not in self.after.aliases

    def _is_declared(self, path: str, new_path: str) -> bool:
        return self.before.leaves[path].is_declared or self.after.leaves[new_path].is_declared

    def _rows_of_stacks(self) -> Iterator[Difference]:
        for pair in self.pairing.stacks:
            yield difference_of_stack(self.before, self.after, pair, self.tolerance, self.verify)

    def _rows_of_ties_and_single_leaves(self) -> Iterator[Difference]:
        """Ties that differ, and leaves that are added or removed, but for those that are tied names on the other side."""
        ties = tie_changes(self.before, self.after, self.pairing, self.tolerance, self.verify)
        explained = {tie.explained for tie in ties}
        yield from (tie.row for tie in ties)
        yield from self._added([path for path in self.pairing.added if path not in explained])
        yield from self._removed([path for path in self.pairing.removed if path not in explained])

    def _renamed(self, path: str, new_path: str) -> Difference:
        before, after = self.before.leaves[path], self.after.leaves[new_path]
        return Difference(
            kind="renamed",
            path=new_path,
            path_before=path,
            shape_before=before.shape,
            shape=after.shape,
            dtype_before=before.dtype,
            dtype=after.dtype,
        )

    def _added(self, paths: Sequence[str]) -> Iterator[Difference]:
        twin_of = copies_of_others(self.after, paths, self.verify)
        for path in paths:
            info = self.after.leaves[path]
            note = f"a copy of {twin_of[path]}" if path in twin_of else _problem_of(info)
            yield Difference(kind="added", path=path, shape=info.shape, dtype=info.dtype, note=note)

    def _removed(self, paths: Sequence[str]) -> Iterator[Difference]:
        twin_of = copies_of_others(self.before, paths, self.verify)
        for path in paths:
            info = self.before.leaves[path]
            note = f"a copy of {twin_of[path]}" if path in twin_of else _problem_of(info)
            yield Difference(
                kind="removed", path=path, path_before=path, shape_before=info.shape, dtype_before=info.dtype, note=note
            )


def _kind_and_size(row: Difference) -> tuple[int, bool, float]:
    """The key by which differences are sorted: by kind, then by size."""
    return KINDS.index(row.kind), *order_by_size(row)


def _is_spec(source: Source) -> bool:
    """Whether no leaf has numbers, and some have a shape and a dtype."""
    leaves = source.leaves.values()
    return any(leaf.is_declared for leaf in leaves) and not any(leaf.count and not leaf.is_declared for leaf in leaves)


def _problem_of(info: LeafInfo) -> str:
    """Why nothing is known of a leaf that is added or removed."""
    return info.problem if info.dtype == UNKNOWN_DTYPE else ""
