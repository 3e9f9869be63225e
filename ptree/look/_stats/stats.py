"""Compute statistics of the numbers of a tree or a file: mean, standard deviation, norm, largest, zeros, quantiles, relative change."""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..._errors import FileError, StructureError
from ..._words import lines, printable, quoted, with_fixes
from .._arguments import checked_shares
from .._sources.selection import selected
from .._sources.source import LeafInfo, Source
from .._sources.source_of import source_of
from .layer_moments import (
    bit_counts_by_layer,
    changes_by_layer,
    problem_of_numbers,
    start_moments,
)
from .moments import NONE, Moments
from .result import Stats
from .rows import LeafStats
from .stack_layers import Layers, layers_of

if TYPE_CHECKING:
    from ..._paths import Selector

_DAMAGE = (FileError, OSError, EOFError, zipfile.BadZipFile, zlib.error)
"""What reading one leaf of a damaged file raises."""


# --------------------------------------------------------------------------------- reading


def stats(
    thing: Any,
    selector: Selector | None = None,
    *,
    relative_to: Any = None,
    quantiles: Sequence[float] = (),
) -> Stats:
    """Mean, standard deviation, norm, largest absolute value, zeros and non-finite numbers of each leaf of a tree or a file.

    >>> import numpy as np
    >>> layers = [{"kernel": np.arange(3.0) * size} for size in (1, 2, 3)]
    >>> stats({"h": layers, "head": np.float32([0, 0, np.nan, 4])})
    path            mean  std |max| zeros std by layer
    h/{0..2}/kernel    2 1.94     6   33% ▁▅█ 0.816..2.45
    head            1.33 1.89     4   50%
    ! head: 1 non-finite, first at (2,)
    >>> stats(layers, "0/**", relative_to=[{"kernel": np.float64([0, 1, 1])}])["0/kernel"].relative
    0.7071067811865475

    Rows are exact where the text folds them: `h/0/kernel`, `h/1/kernel`; a stacked leaf `blocks/:/kernel` has a row for
    each layer. A tied leaf is read once. Files are read in chunks of 256 KiB, and without JAX; arrays on accelerators
    are reduced there. A leaf that cannot be read has a row that says why.

    Args:
        thing: a pytree of arrays, the path of a file or of a folder of checkpoints, or an open file.
        selector: which leaves; all by default.
        relative_to: another tree or file. Leaves of the same path and shape are compared with those in it.
        quantiles: shares such as `(0.05, 0.5, 0.95)`. They are found from a count of the upper 16 bits of each number,
            to within 0.8 percent, which reads the numbers a second time; 0 and 1 are the least and the largest exactly.

    Raises:
        FileError: there is no file that ptree reads.
        OSError: there is nothing at the path, or it cannot be read.
        PathError: two leaves of a plain tree have one path, or it has more than 256 levels.
        PatternError: the selector is malformed, or a part of it matches nothing.
        StructureError: it is no tree; no leaf has numbers, as in a spec; none has a counterpart in `relative_to`.
        TypeError: the quantiles are no numbers.
        ValueError: a quantile is not between 0 and 1.
    """
    shares = checked_shares(quantiles)
    with ExitStack() as opened:
        source = _opened(thing, opened)
        other = None if relative_to is None else _opened(relative_to, opened)
        paths = selected(source, selector)
        _refuse_without_numbers(source, paths)
        with np.errstate(all="ignore"):  # numbers that are not finite, or that overflow, are in the result
            return _Reader(source, other, shares).stats(paths)


def _opened(thing: Any, opened: ExitStack) -> Source:
    """The source of a thing, closed at the end if it was opened here: at the path of a file."""
    source = source_of(thing)
    if isinstance(thing, (str, os.PathLike)):
        opened.enter_context(source)
    return source


def _refuse_without_numbers(source: Source, paths: Sequence[str]) -> None:
    problems = [(path, problem_of_numbers(source.leaves[path])) for path in paths]
    if source.is_file or not problems or not all(problem for _, problem in problems):
        return
    found = lines([f"{quoted(path)} {problem}" for path, problem in problems])
    raise StructureError(with_fixes([f"no numbers to look at: {found}"], ["For shapes alone use ptree.summary."]))


class _Reader:
    """Reads the leaves of a source, and those of another that they are compared with."""

    def __init__(self, source: Source, other: Source | None, shares: tuple[float, ...]):
        self.source, self.other, self.shares = source, other, shares

    def stats(self, paths: Sequence[str]) -> Stats:
        unmatched = None if self.other is None else self._unmatched(paths)
        started = [self._start(path) for path in paths]  # so that accelerators work while others are read
        rows = [row for path, moments in zip(paths, started) for row in self._rows(path, moments)]
        return Stats(self.source.title, tuple(rows), unmatched)

    def _unmatched(self, paths: Sequence[str]) -> int:
        """How many leaves cannot be compared; an error if none can."""
        paths = [path for path in paths if not problem_of_numbers(self.source.leaves[path])]
        unmatched = [path for path in paths if not self._is_in_other(path)]
        if self.other is None or not paths or len(unmatched) < len(paths):
            return len(unmatched)
        raise StructureError(
            f"no leaf of {quoted(self.source.title)} has one of the same path and shape in `relative_to`,"
            f" {quoted(self.other.title)}: {quoted(unmatched[0])} is"
            f" {self.source.leaves[unmatched[0]].shape}, there are {[*self.other.leaves][:3]}"
        )

    def _is_in_other(self, path: str) -> bool:
        leaf = self.source.leaves[path]
        there = None if self.other is None else self.other.leaves.get(path)
        if there is None or problem_of_numbers(leaf) or problem_of_numbers(there):
            return False
        return there.shape == leaf.shape

    def _start(self, path: str) -> Callable[[], list[Moments]]:
        leaf = self.source.leaves[path]
        if problem_of_numbers(leaf):
            return list
        return start_moments(self.source, path, layers_of(path, leaf.shape or ()))

    def _rows(self, path: str, moments: Callable[[], list[Moments]]) -> list[LeafStats]:
        leaf = self.source.leaves[path]
        problem = problem_of_numbers(leaf)
        if problem:
            return [_unread(leaf, problem)]
        layers = layers_of(path, leaf.shape or ())
        try:
            return self._read(leaf, layers, moments())
        except _DAMAGE as error:
            return [_unread(leaf, str(error).removeprefix(f"{quoted(path)} "))]

    def _read(self, leaf: LeafInfo, layers: Layers, moments: list[Moments]) -> list[LeafStats]:
        quantiles = self._quantiles(leaf.path, layers)
        changes = self._changes(leaf.path, layers)
        return [
            _row(name, leaf, layers, found, between, change)
            for name, found, between, change in zip(layers.paths, moments, quantiles, changes, strict=True)
        ]

    def _quantiles(self, path: str, layers: Layers) -> list[dict[float, float]]:
        if not self.shares:
            return [{} for _ in layers.paths]
        counts = bit_counts_by_layer(self.source, path, layers)
        return [dict(zip(self.shares, count.quantiles(self.shares))) for count in counts]

    def _changes(self, path: str, layers: Layers) -> Sequence[float | None]:
        if self.other is None or not self._is_in_other(path):
            return [None for _ in layers.paths]
        return changes_by_layer(self.source, self.other, path, layers)


def _row(
    path: str,
    leaf: LeafInfo,
    layers: Layers,
    moments: Moments,
    quantiles: dict[float, float],
    relative: float | None,
) -> LeafStats:
    return LeafStats(
        path=path,
        shape=layers.shape,
        dtype=leaf.dtype,
        count=layers.size,
        mean=moments.mean,
        std=moments.std,
        norm=moments.norm if moments.finite else math.nan,
        largest=moments.largest if moments.finite else math.nan,
        zeros=moments.zeros,
        nonfinite=moments.nonfinite,
        first=layers.index(moments.first),
        quantiles=quantiles,
        relative=relative,
    )


def _unread(leaf: LeafInfo, problem: str) -> LeafStats:
    """The row of a leaf without statistics."""
    shape = leaf.shape or ()
    row = _row(leaf.path, leaf, Layers((leaf.path,), shape), NONE, {}, None)
    return replace(row, count=leaf.count, problem=printable(problem))
