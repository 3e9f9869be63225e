"""The data of a report's page, as JSON: columns of names, shapes and sizes, ties, statistics, histograms, changes, layers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from ..._paths import Selector
from ..._words import in_bytes, printable
from .._layers import group_by_layer
from .._sources.selection import selected
from .._sources.source import Source
from .changes import Change, changes_of
from .leaf_numbers import Histogram, LeafNumbers
from .rows import ReportRow, damage_before, numbers_before, removed_rows, rows_by_selector, rows_of

if TYPE_CHECKING:
    from .devices import Placement

Json: TypeAlias = Any
"""What JSON can hold."""

_DIGITS = 6
_MOST_DTYPES = 4


class PageData(NamedTuple):
    columns: dict[str, Json]
    """All that a page shows."""
    damaged: tuple[str, ...]
    """Path and problem of each damaged leaf."""


def page_data(source: Source, selector: Selector | None, placement: Placement | None = None) -> PageData:
    """All that the page of one source shows."""
    rows = rows_of(source, selected(source, selector))
    return PageData(_columns(rows, source, placement), _damaged(rows))


def _damaged(rows: Sequence[ReportRow]) -> tuple[str, ...]:
    return tuple(row.damage for row in rows if row.is_damaged)


def diff_page_data(
    before: Source, after: Source, selector: Selector | None, placement: Placement | None = None
) -> PageData:
    """All that the page of two sources shows: the one after, and what was removed, with the changes of each leaf."""
    changes = changes_of(before, after, selector)
    rows = rows_by_selector(after, selector)
    totals = _totals(rows)
    rows += removed_rows(before, changes.by_path.items())
    change_of_row = [changes.by_path.get(row.path) for row in rows]
    abouts = [printable(source.about) for source in (before, after) if source.about]
    found_before = [damage_before(before, change) for change in changes.by_path.values()]
    columns = _columns(rows, after, placement) | {
        "title": printable(before.title),
        "other": printable(after.title),
        "about": " → ".join(abouts),
        "notes": [printable(rule) for rule in changes.rules],
        "totals": totals,
        "changes": [_change(row, change) for row, change in zip(rows, change_of_row)],
        "before": [_numbers(numbers_before(before, change)) for change in change_of_row],
    }
    return PageData(columns, (*filter(None, found_before), *_damaged(rows)))


# --------------------------------------------------------------------------------- columns


def _columns(rows: Sequence[ReportRow], source: Source, placement: Placement | None) -> dict[str, Json]:
    shapes, dtypes = _Texts(), _Texts()
    return {
        "title": printable(source.title),
        "other": None,
        "about": printable(source.about),
        "notes": [],
        "totals": _totals(rows),
        "path": [printable(row.path) for row in rows],
        "shape": [shapes.place(_shape(row)) for row in rows],
        "dtype": [dtypes.place(row.info.dtype) for row in rows],
        "count": [row.info.count for row in rows],
        "bytes": [row.info.nbytes for row in rows],
        "frozen": [int(row.info.trainable is False) for row in rows],
        "numbers": [_numbers(row.numbers) for row in rows],
        "problems": [[at, printable(row.problem)] for at, row in enumerate(rows) if row.problem],
        "ties": _ties(rows),
        "layers": _layers(rows),
        "placed": None if placement is None else _placed(rows, placement),
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


def _shape(row: ReportRow) -> str:
    return "" if row.shape is None else f"[{', '.join(map(str, row.shape))}]"


def _placed(rows: Sequence[ReportRow], placement: Placement) -> Json:
    """Where each row's leaf lives: its kind, what divides it, what a device holds of it; None of what has no place."""
    specs, parts, whys = _Texts(), _Texts(), _Texts()
    shown: list[Json] = []
    for row in rows:
        leaf = placement.leaves.get(row.source or row.path)
        if leaf is None:
            shown.append(None)
            continue
        part = f"[{', '.join(map(str, leaf.part))}]"
        places = specs.place(leaf.divided_by), parts.place(part), whys.place(leaf.why)
        shown.append([leaf.kind, leaf.bytes, *places])
    texts = {"specs": specs.texts, "parts": parts.texts, "whys": whys.texts}
    return {"totals": printable(placement.totals), "rows": shown, **texts}


def _ties(rows: Sequence[ReportRow]) -> Json:
    """For each alias its row, the row of its leaf, and the source as people write it."""
    place = _places(rows)
    return [[place[row.path], place[row.source], printable(row.shown)] for row in rows if row.source is not None]


def _layers(rows: Sequence[ReportRow]) -> Json:
    """For each leaf that is there once a layer the name of all, such as `h/{0..11}/kernel`, and their rows."""
    place = _places(rows)
    groups = group_by_layer(row.path for row in rows if not row.is_alias)
    return [[printable(group.name), [place[path] for path in group.paths]] for group in groups if len(group.paths) > 1]


def _places(rows: Sequence[ReportRow]) -> dict[str, int]:
    return {row.path: at for at, row in enumerate(rows)}


def _totals(rows: Sequence[ReportRow]) -> str:
    """The totals of all leaves, and the shares of their dtypes."""
    infos = [row.info for row in rows if not row.is_alias]
    count, nbytes = sum(info.count for info in infos), sum(info.nbytes for info in infos)
    by_dtype: Counter[str] = Counter()
    for info in infos:
        by_dtype[info.dtype] += info.count
    words = [f"{count:,} parameters", in_bytes(nbytes), f"{len(infos):,} {'leaf' if len(infos) == 1 else 'leaves'}"]
    for dtype, part in (+by_dtype).most_common(_MOST_DTYPES):
        words.append(f"{printable(dtype)} {_share(part, count)}".strip())
    more = len(+by_dtype) - _MOST_DTYPES
    if more > 0:
        words.append(f"{more} more {'dtype' if more == 1 else 'dtypes'}")
    return " · ".join(words)


def _share(part: int, whole: int) -> str:
    """A share in percent; "" of all there is."""
    if part == whole:
        return ""
    return f"{part / whole:.1%}" if part >= whole / 2000 else "<0.1%"


# ---------------------------------------------------------------------------------- values


def _numbers(numbers: LeafNumbers | None) -> Json:
    """The statistics of a leaf, in the order in which details.js reads them."""
    if numbers is None:
        return None
    row: list[Json] = [_short(value) for value in (numbers.mean, numbers.std, numbers.least, numbers.largest)]
    row += [numbers.zeros, numbers.nonfinite, numbers.first]
    row += _histogram(numbers.histogram)
    if numbers.layer_stds:
        row.append([_short(std) for std in numbers.layer_stds])
    return row


def _histogram(histogram: Histogram | None) -> list[Json]:
    if histogram is None:
        return [None, None, 0, 0, ""]
    # a text, which is parsed only when the histogram is drawn
    counts = ",".join(map(str, histogram.counts))
    return [_short(histogram.low), _short(histogram.high), histogram.below, histogram.above, counts]


def _short(value: float) -> float | str:
    """A number in six digits; NaN and infinities as texts."""
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else str(value)


def _change(row: ReportRow, change: Change | None) -> Json:
    """What became of a row; None where it is the same."""
    if change is None:
        return None
    shown: dict[str, Json] = {"kinds": list(change.kinds)}
    if change.before is not None and change.before != row.path:
        shown["from"] = printable(change.before)
    if change.note:
        shown["note"] = printable(change.note)
    return shown | _sizes(change.sizes or {})


def _sizes(sizes: Mapping[str, float | str]) -> dict[str, Json]:
    return {name: _short(float(size)) for name, size in sizes.items()}
