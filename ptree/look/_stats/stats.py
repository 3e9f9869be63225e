"""Statistics of the numbers of a tree or a file: mean, spread, norm, largest, zeros, non-finite, quantiles, relative change."""

from __future__ import annotations

import csv
import io
import math
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ..._errors import FileError, PathError, StructureError
from ..._words import lines, printable, quoted, suggestion, with_fixes
from .._notebook.tables import stats_html
from .._plain_values import csv_value, json_value
from .._sources.selection import selected
from .._sources.source import LeafInfo, Source, source_of
from .layer_moments import (
    Layers,
    bit_counts_by_layer,
    changes_by_layer,
    layers_of,
    problem_of_numbers,
    start_moments,
)
from .moments import NONE, Moments
from .text import stats_text

if TYPE_CHECKING:
    from ..._paths import Selector

_DAMAGE = (FileError, OSError, EOFError, zipfile.BadZipFile, zlib.error)
"""What reading one leaf of a damaged file raises."""


@dataclass(frozen=True)
class LeafStats:
    """Statistics of one leaf, or of one layer of a stack.

    Mean, std, norm, largest and quantiles are those of the finite numbers, and NaN where there is none. The mean of a
    complex leaf is complex; its other statistics are those of the sizes.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    count: int
    """How many numbers it has."""
    mean: complex
    std: float
    """Of all numbers, not of a sample of them: divided by the count."""
    norm: float
    """The square root of the sum of squares."""
    largest: float
    """Of the sizes."""
    zeros: int
    nonfinite: int
    first: tuple[int, ...] | None
    """The index of the first number that is not finite; None if there is none."""
    quantiles: dict[float, float] = field(default_factory=dict)
    relative: float | None = None
    """|a - b| / |b|, where b is the leaf in `relative_to`; None where there is none of this path and shape."""
    problem: str = ""
    """Why its numbers could not be read; "" where they could."""

    __module__ = "ptree.look"


@dataclass(frozen=True, repr=False)
class Stats:
    """Statistics of each leaf, a row each. It prints as a table in which the layers of a model are one row."""

    title: str
    rows: tuple[LeafStats, ...]
    unmatched: int | None = None
    """How many leaves have no counterpart in `relative_to`; None where there was none to compare with."""

    __module__ = "ptree.look"

    def __getitem__(self, path: str) -> LeafStats:
        """The statistics of the leaf, or the layer of a stack, at this path.

        Raises:
            PathError: there is no such row.
        """
        if path not in self._by_path:
            raise PathError(f"no statistics of {quoted(path)}.{suggestion(path, self._by_path)}".removesuffix("."))
        return self._by_path[path]

    @cached_property
    def _by_path(self) -> dict[str, LeafStats]:
        return {row.path: row for row in self.rows}

    @property
    def count(self) -> int:
        """How many numbers all leaves have."""
        return sum(row.count for row in self.rows)

    @property
    def nonfinite(self) -> int:
        """How many of them are not finite."""
        return sum(row.nonfinite for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain Python that JSON can hold: NaN and infinite numbers as text, complex numbers too."""
        rows = [{name: json_value(value) for name, value in vars(row).items()} for row in self.rows]
        totals = {"count": self.count, "nonfinite": self.nonfinite, "unmatched": self.unmatched}
        return {"title": self.title, **totals, "rows": rows}

    def to_csv(self) -> str:
        """A line for each row, under the names of its fields; each quantile has its own column."""
        file = io.StringIO()
        shares = dict.fromkeys(share for row in self.rows for share in row.quantiles)
        names = [name for name in LeafStats.__dataclass_fields__ if name != "quantiles"]
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*names, *(f"q{share:g}" for share in shares)])
        for row in self.rows:
            cells = [csv_value(getattr(row, name)) for name in names]
            writer.writerow([*cells, *(row.quantiles.get(share, "") for share in shares)])
        return file.getvalue()

    def text(self, width: int = 80, *, color: bool = False) -> str:
        """The table, at most `width` characters wide."""
        return stats_text(self, width, color=color)

    def __repr__(self) -> str:
        return self.text(shutil.get_terminal_size((80, 24)).columns)

    def _repr_html_(self) -> str:
        return stats_html(self)


# --------------------------------------------------------------------------------- reading


def stats(
    thing: Any,
    selector: Selector | None = None,
    *,
    relative_to: Any = None,
    quantiles: Sequence[float] = (),
) -> Stats:
    """Mean, spread, norm, largest number, zeros and non-finite numbers of each leaf of a tree or a file.

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
            to within 0.8 percent, which reads the numbers a second time.

    Raises:
        FileError: there is no file that ptree reads.
        OSError: there is nothing at the path, or it cannot be read.
        PathError: two leaves of a plain tree have one path, or it has more than 256 levels.
        PatternError: the selector is malformed, or a part of it matches nothing.
        StructureError: it is no tree; no leaf has numbers, as in a spec; none has a counterpart in `relative_to`.
        ValueError: a quantile is not between 0 and 1.
    """
    wrong = [share for share in quantiles if not 0 <= share <= 1]
    if wrong:
        raise ValueError(f"expected quantiles between 0 and 1, got {quoted(wrong)}")
    with ExitStack() as opened:
        source = _opened(thing, opened)
        other = None if relative_to is None else _opened(relative_to, opened)
        paths = selected(source, selector)
        _refuse_without_numbers(source, paths)
        with np.errstate(all="ignore"):  # numbers that are not finite, or that overflow, are in the result
            return _Reader(source, other, tuple(quantiles)).stats(paths)


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
            return [_unread(leaf, str(error))]

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
