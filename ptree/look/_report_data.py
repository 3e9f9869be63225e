"""The data of a report's page: columns of names, shapes and sizes, ties, statistics with histograms, changes, layers."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from .._errors import FileError, StructureError
from .._paths import Selector
from .._words import in_bytes, printable
from ._layers import group_by_layer
from ._leaf_numbers import LeafNumbers, leaf_numbers
from ._report_changes import Change, changes_of
from ._selection import selected
from ._sources import LeafInfo, Source

Numbers: TypeAlias = list[Any] | None
"""One leaf's statistics in the order that `details.js` reads them; None where there are none."""

_DIGITS = 6
_MOST_DTYPES = 4
_CHANGED = {"changed", "reshaped", "retyped", "transposed"}
_UNREADABLE = (FileError, StructureError, OSError, zipfile.BadZipFile, zlib.error, EOFError)
"""Errors of a leaf whose numbers cannot be read: the page names it and shows the others."""


def page_data(source: Source, after: Source | None, selector: Selector | None) -> dict[str, Any]:
    """All that a page shows, as JSON.

    Args:
        source: what is shown or, with `after`, the state before.
        after: the state after.
        selector: which leaves of each.
    """
    if after is None:
        return _data_of(_rows_of(source, selected(source, selector)), source)
    changes = changes_of(source, after)
    kept = _rows_of(after, selected(after, selector))
    rows = kept + _removed_rows(source, selector, changes)
    data = _data_of(rows, after)
    own = [None if row.is_alias else changes.get(row.path) for row in rows]
    return data | {
        "title": printable(source.title),
        "totals": _totals(kept),
        "other": {"title": printable(after.title)},
        "about": " → ".join(filter(None, [printable(source.about), printable(after.about)])),
        "changes": [None if change is None else _change(change) for change in own],
        "before": [_numbers_before(source, row, change) for row, change in zip(rows, own)],
    }


# ------------------------------------------------------------------------------------ rows


@dataclass(frozen=True)
class _Row:
    """A row of the page: a leaf, or an alias with the sizes of its source."""

    path: str
    info: LeafInfo
    shape: tuple[int, ...] | None
    numbers: Numbers = None
    source: str | None = None
    """Of an alias the path of its leaf."""
    shown: str = ""
    """Of an alias its source as people write it."""
    problem: str = ""

    @property
    def is_alias(self) -> bool:
        return self.source is not None


def _rows_of(source: Source, paths: Iterable[str]) -> list[_Row]:
    """The rows of leaves, and of all their aliases, in the order of the source."""
    chosen = set(paths)
    rows: list[_Row] = []
    for name in source.order:
        alias = source.aliases.get(name)
        if alias is None:
            if name in chosen:
                rows.append(_leaf_row(source, name))
        elif alias.source in chosen:
            rows.append(_Row(name, source.leaves[alias.source], alias.shape, None, alias.source, alias.shown))
    return rows


def _leaf_row(source: Source, path: str) -> _Row:
    info = source.leaves[path]
    try:
        numbers = _numbers(leaf_numbers(source, path))
    except _UNREADABLE as error:
        return _Row(path, info, info.shape, problem=str(error))
    return _Row(path, info, info.shape, numbers, problem=info.problem)


def _removed_rows(before: Source, selector: Selector | None, changes: Mapping[str, Change]) -> list[_Row]:
    removed = [path for path, change in changes.items() if "removed" in change.kinds]
    if not removed:
        return []
    chosen = set(selected(before, selector))
    return [_leaf_row(before, path) for path in removed if path in chosen]


# --------------------------------------------------------------------------------- columns


def _data_of(rows: Sequence[_Row], source: Source) -> dict[str, Any]:
    place = {row.path: at for at, row in enumerate(rows)}
    shapes, dtypes = _Texts(), _Texts()
    leaves = [row for row in rows if not row.is_alias]
    groups = group_by_layer(row.path for row in leaves)
    return {
        "title": printable(source.title),
        "about": printable(source.about),
        "totals": _totals(rows),
        "other": None,
        "path": [printable(row.path) for row in rows],
        "shape": [shapes.place(_shape_text(row)) for row in rows],
        "dtype": [dtypes.place(row.info.dtype) for row in rows],
        "count": [row.info.count for row in rows],
        "bytes": [row.info.nbytes for row in rows],
        "frozen": [int(row.info.trainable is False) for row in rows],
        "numbers": [row.numbers for row in rows],
        "ties": [
            [at, place.get(row.source or "", -1), printable(row.shown)] for at, row in enumerate(rows) if row.is_alias
        ],
        "problems": [[at, printable(row.problem)] for at, row in enumerate(rows) if row.problem],
        "layers": [
            [printable(group.name), [place[path] for path in group.paths]] for group in groups if len(group.paths) > 1
        ],
        "shapes": shapes.texts,
        "dtypes": dtypes.texts,
    }


class _Texts:
    """Different texts, each kept once: of 100,000 leaves few shapes differ."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._places: dict[str, int] = {}

    def place(self, text: str) -> int:
        if text not in self._places:
            self._places[text] = len(self.texts)
            self.texts.append(printable(text))
        return self._places[text]


def _shape_text(row: _Row) -> str:
    return "" if row.shape is None else f"[{', '.join(map(str, row.shape))}]"


def _totals(rows: Sequence[_Row]) -> str:
    leaves = [row for row in rows if not row.is_alias]
    count, nbytes = sum(row.info.count for row in leaves), sum(row.info.nbytes for row in leaves)
    by_dtype: Counter[str] = Counter()
    for row in leaves:
        by_dtype[row.info.dtype] += row.info.count
    words = [f"{count:,} parameters", in_bytes(nbytes), f"{len(leaves):,} leaves"]
    for dtype, part in by_dtype.most_common(_MOST_DTYPES):
        words.append(f"{printable(dtype)} {_share(part, count)}".strip())
    return " · ".join(words)


def _share(part: int, whole: int) -> str:
    """A share in percent; "" of all there is."""
    if part == whole:
        return ""
    return f"{part / whole:.1%}" if part >= whole / 2000 else "<0.1%"


# --------------------------------------------------------------------------------- numbers


def _numbers(numbers: LeafNumbers | None) -> Numbers:
    if numbers is None:
        return None
    row: list[Any] = [_short(value) for value in (numbers.mean, numbers.std, numbers.least, numbers.largest)]
    row += [numbers.zeros, numbers.not_finite, numbers.first_not_finite]
    histogram = numbers.histogram
    if histogram is None:
        return [*row, None, None, 0, 0, ""]
    # a text, which is read only when the histogram is drawn
    counts = ",".join(map(str, histogram.counts))
    return [*row, _short(histogram.low), _short(histogram.high), histogram.below, histogram.above, counts]


def _short(value: float | None) -> float | str | None:
    """A number as JSON keeps it: in six digits, NaN and infinities as texts."""
    if value is None:
        return None
    if not math.isfinite(value):
        return str(value)
    return float(f"{value:.{_DIGITS}g}")


def _change(change: Change) -> dict[str, Any]:
    texts = {"from": change.before, "note": change.note}
    sizes = {name: _short(getattr(change, name)) for name in ("relative", "largest", "cosine")}
    said = {name: printable(text) for name, text in texts.items() if text}
    return {"kinds": change.kinds} | said | {name: value for name, value in sizes.items() if value is not None}


def _numbers_before(before: Source, row: _Row, change: Change | None) -> Numbers:
    """The numbers that a leaf had, where they are others than now."""
    if change is None or not _CHANGED & {*change.kinds}:
        return None
    path = change.before or row.path
    try:
        return _numbers(leaf_numbers(before, path))
    except _UNREADABLE:
        return None
