"""The table of statistics as text: layers folded into one row, standard deviation by layer as a sparkline, lines of what is not finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from ..._words import SHOWN, columns, padded, printable, printable_path, shortened
from .._layers import group_by_layer, sparkline
from .._sources.source import UNKNOWN_DTYPE
from .._wrapping import wrapped
from .moments import Moments, together
from .rows import LeafStats, StatsData

_RED, _PLAIN = "\x1b[31m", "\x1b[0m"
_LONGEST_NAME = 1000  # columns: of a longer one so many are left, without its middle:
_SHORTENED = 100
_PATH_SHARE = 0.45
"""Of the width: so much is left for long paths, which then go on in the next line, before columns are left out."""


@dataclass(frozen=True)
class _Fold:
    """One row of the table: leaves that have one name in each layer, or a leaf that stands alone."""

    name: str
    rows: tuple[LeafStats, ...]

    @cached_property
    def moments(self) -> Moments:
        return together([_moments_of_row(row) for row in self.rows])


def _moments_of_row(row: LeafStats) -> Moments:
    count = row.count - row.nonfinite
    scale = row.largest if row.largest > 0 else 1.0  # False of NaN
    share = row.std / scale
    return Moments(count, row.mean, share * share * count, scale, row.largest, row.zeros, row.nonfinite, -1)


class _Column(NamedTuple):
    title: str
    cell: Callable[[_Fold], str]
    is_text: bool = False


def stats_text(stats: StatsData, width: int, *, color: bool) -> str:
    """The table of statistics, at most `width` characters wide from 40 on."""
    read = {row.path: row for row in stats.rows if not row.problem}
    folds = [_Fold(group.name, tuple(read[path] for path in group.paths)) for group in group_by_layer(read)]
    found = list(_table(folds, width)) if folds else []
    for warning in _warnings(stats, folds):
        marked = wrapped(warning, width)
        found += [f"{_RED}{line}{_PLAIN}" for line in marked] if color else marked
    if stats.unmatched:
        leaves = "1 leaf has" if stats.unmatched == 1 else f"{stats.unmatched:,} leaves have"
        found += wrapped(f"{leaves} no counterpart of the same shape to compare with", width)
    return "\n".join(found) or f"{printable(stats.title)}: no leaves"


# --------------------------------------------------------------------------------- the table


def _table(folds: Sequence[_Fold], width: int) -> Iterator[str]:
    names = [_name(fold) for fold in folds]
    longest = max(map(columns, names))
    needed = min(longest, int(width * _PATH_SHARE))
    for chosen in _choices(folds):
        cells = [[column.title, *(column.cell(fold) for fold in folds)] for column in chosen]
        widths = [max(map(len, column)) for column in cells]
        left = width - sum(widths) - len(widths)
        if left >= needed:
            break
    left = max(min(left, max(longest, len("path"))), 1)
    for at, name in enumerate(["path", *names]):
        first, *others = wrapped(name, left)
        row = [_aligned(column[at], size, kind) for column, size, kind in zip(cells, widths, chosen)]
        yield " ".join([padded(first, left), *row]).rstrip()
        yield from others


def _name(fold: _Fold) -> str:
    name = printable_path(fold.name)
    return name if columns(name) <= _LONGEST_NAME else shortened(name, _SHORTENED)


def _aligned(cell: str, width: int, column: _Column) -> str:
    return cell.ljust(width) if column.is_text else cell.rjust(width)


def _choices(folds: Sequence[_Fold]) -> Iterator[list[_Column]]:
    """The columns, then fewer and fewer of them for narrow tables."""
    mean = _Column("mean", lambda fold: _number_of(fold, fold.moments.mean))
    std = _Column("std", lambda fold: _number_of(fold, fold.moments.std))
    largest = _Column("|max|", lambda fold: _number_of(fold, _largest(fold)))
    zeros = [_Column("zeros", _zeros)] if any(row.zeros for fold in folds for row in fold.rows) else []
    quantiles = _quantile_columns(folds)
    by_layer = _by_layer_columns(folds)
    for numbers in ([mean, std, largest, *zeros, *quantiles], [std, largest, *quantiles]):
        for column in by_layer:
            yield [*numbers, column]
        if not _has_changes(folds):  # else the change is what was looked for
            yield numbers
    last = by_layer[-1:] if _has_changes(folds) else []
    yield [*quantiles, *last]
    yield [std, largest, *last]
    yield [std, *last]


def _by_layer_columns(folds: Sequence[_Fold]) -> list[_Column]:
    """The last column in its forms, from the widest on: the relative change by layer where it is there, else the std."""
    if _has_changes(folds):
        forms = [_LayerCells(_changes, bars, has_range=True) for bars in (24, 12, 0)]
        return [_Column("relative", form.cell, is_text=True) for form in forms]
    if not any(len(fold.rows) > 1 for fold in folds):
        return []
    forms = [_LayerCells(_spreads, 24, True), _LayerCells(_spreads, 12, True), _LayerCells(_spreads, 12, False)]
    return [_Column("std by layer", form.cell, is_text=True) for form in forms]


def _has_changes(folds: Sequence[_Fold]) -> bool:
    return any(row.relative is not None for fold in folds for row in fold.rows)


def _changes(fold: _Fold) -> list[float | None]:
    return [row.relative for row in fold.rows]


def _spreads(fold: _Fold) -> list[float | None]:
    """The standard deviation of each layer; of a leaf that stands alone nothing, as it has a column."""
    return [_spread(row) for row in fold.rows] if len(fold.rows) > 1 else []


def _spread(row: LeafStats) -> float:
    return math.nan if row.nonfinite else row.std  # so that the sparkline marks the layer


@dataclass(frozen=True)
class _LayerCells:
    """Writes one number for each layer as a sparkline and its range."""

    values: Callable[[_Fold], list[float | None]]
    bars: int
    has_range: bool

    def cell(self, fold: _Fold) -> str:
        values = self.values(fold)
        there = [value for value in values if value is not None]
        if not there:
            return ""
        line = sparkline(values, self.bars) if self.bars and len(values) > 1 else ""
        if not self.has_range:
            return line
        return f"{line} {_range(there)}" if line else _range(there)


def _range(values: Sequence[float]) -> str:
    finite = [value for value in values if not math.isnan(value)]
    if not finite:
        return "nan"
    low, high = _number(min(finite)), _number(max(finite))
    return low if low == high else f"{low}..{high}"


def _quantile_columns(folds: Sequence[_Fold]) -> list[_Column]:
    shares = dict.fromkeys(share for fold in folds for row in fold.rows for share in row.quantiles)
    return [_Column(f"{share:.4g}", lambda fold, share=share: _quantile(fold, share)) for share in shares]


def _number_of(fold: _Fold, value: complex) -> str:
    """A statistic of a row; a dash where the leaf has no numbers, which is not NaN."""
    return _number(value) if any(row.count for row in fold.rows) else "-"


def _quantile(fold: _Fold, share: float) -> str:
    if not any(row.count for row in fold.rows):
        return "-"
    return _range([row.quantiles[share] for row in fold.rows])


def _largest(fold: _Fold) -> float:
    return fold.moments.largest if fold.moments.finite else math.nan


def _zeros(fold: _Fold) -> str:
    zeros, count = sum(row.zeros for row in fold.rows), sum(row.count for row in fold.rows)
    if not zeros:
        return ""
    return _percent(zeros / count)


def _percent(share: float) -> str:
    """A share that is neither none nor all is written as neither 0% nor 100%."""
    if share < 0.01:
        return "<1%"
    if 0.99 < share < 1:
        return ">99%"
    return f"{share:.0%}"


def _number(value: complex) -> str:
    """Three digits, as people read them: 0.0655, 1.49, -2.8e-04."""
    if isinstance(value, complex):
        return f"{_number(value.real)}{'' if value.imag < 0 else '+'}{_number(value.imag)}j"
    if value == 0:
        return "0"
    if math.isfinite(value) and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.1e}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


# ------------------------------------------------------------------------- lines below the table


def _warnings(stats: StatsData, folds: Sequence[_Fold]) -> list[str]:
    found = [_not_finite(fold) for fold in folds if any(row.nonfinite for row in fold.rows)]
    # a text or a function has no numbers; of a damaged leaf of an archive nothing is known
    unread = [row for row in stats.rows if row.problem and (row.count or row.dtype == UNKNOWN_DTYPE)]
    found += [f"! {printable_path(row.path)}: not read: {row.problem}" for row in unread]
    more = len(found) - SHOWN
    return [*found[:SHOWN], f"! and {more:,} more"] if more > 0 else found


def _not_finite(fold: _Fold) -> str:
    bad = [row for row in fold.rows if row.nonfinite]
    count = f"{sum(row.nonfinite for row in bad):,} non-finite"
    if len(bad) == 1:
        return f"! {printable_path(bad[0].path)}: {count}, first at {bad[0].first}"
    layers = f"{len(bad)} of {len(fold.rows)} layers"
    return (
        f"! {printable_path(fold.name)}: {count} in {layers}, first in {printable_path(bad[0].path)} at {bad[0].first}"
    )
