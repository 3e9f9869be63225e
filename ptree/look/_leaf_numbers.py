"""Numbers of one leaf for a report: mean, standard deviation, range, zeros, non-finite numbers, and a histogram of 41 bins."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from ._sources import Source

BINS = 41
_SPREADS = 5
"""The histogram ends so many standard deviations from the mean: one outlier does not press all others into one bin."""
_BY_ANOTHER_LIBRARY = 2  # as NumPy counts dtypes, such as bfloat16 and int4 of ml_dtypes
_HELD = 1 << 23
"""Bytes: a leaf up to this size is read once, a larger one twice, in chunks."""


@dataclass(frozen=True)
class Histogram:
    """How many numbers of a leaf lie in each of equally wide bins; of complex numbers their magnitudes."""

    low: float
    high: float
    counts: tuple[int, ...]
    below: int = 0
    """How many finite numbers are less than `low`."""
    above: int = 0


@dataclass(frozen=True)
class LeafNumbers:
    """Statistics of the finite numbers of a leaf."""

    mean: float
    std: float
    least: float
    largest: float
    zeros: int
    not_finite: int
    first_not_finite: tuple[int, ...] | None
    histogram: Histogram | None
    """None where no number is finite, or the range is wider than a float64 holds."""


def leaf_numbers(source: Source, path: str) -> LeafNumbers | None:
    """Read a leaf and count its numbers; None of a leaf without numbers: a spec's, a text, PRNG keys, one of size 0.

    Raises:
        FileError: the leaf cannot be read.
    """
    info = source.leaves[path]
    if info.problem or info.shape is None or info.count == 0 or info.dtype.startswith("key<"):
        return None
    read = _reader(source, path, info.nbytes)
    if read is None:
        return None
    moments = _Moments()
    for chunk in read():
        moments.add(chunk)
    first = moments.first_not_finite
    index = None if first is None else tuple(map(int, np.unravel_index(first, info.shape)))
    return LeafNumbers(
        moments.mean,
        moments.std,
        moments.least,
        moments.largest,
        moments.zeros,
        moments.not_finite,
        index,
        _histogram(moments, read),
    )


def _reader(source: Source, path: str, nbytes: int) -> Callable[[], Iterator[np.ndarray]] | None:
    """A function that gives the chunks of a leaf as real numbers, once or twice; None of texts, dates and records."""
    first = next(source.chunks(path, _HELD))
    if not (first.dtype.kind in "biufc" or first.dtype.isbuiltin == _BY_ANOTHER_LIBRARY):
        return None
    if nbytes > _HELD:
        return lambda: map(_as_real, source.chunks(path))
    held = [_as_real(first)]
    return lambda: iter(held)


def _as_real(chunk: np.ndarray) -> np.ndarray:
    """A chunk as float64; of complex numbers their magnitudes."""
    if chunk.dtype.kind == "c":
        with np.errstate(all="ignore"):
            return np.abs(chunk).astype(np.float64)
    return chunk.astype(np.float64)


@dataclass
class _Moments:
    """Sums over the chunks of a leaf, of the distances from its first finite number, so that a large mean does not cancel."""

    count: int = 0
    zeros: int = 0
    not_finite: int = 0
    first_not_finite: int | None = None
    least: float = math.nan
    largest: float = math.nan
    origin: float | None = None
    total: float = 0.0
    squares: float = 0.0
    _read: int = field(default=0, repr=False)

    def add(self, chunk: np.ndarray) -> None:
        finite = self._finite(chunk)
        self._read += chunk.size
        if finite.size == 0:
            return
        self.zeros += finite.size - int(np.count_nonzero(finite))
        self.least = float(np.fmin(self.least, finite.min()))
        self.largest = float(np.fmax(self.largest, finite.max()))
        if self.origin is None:
            self.origin = float(finite[0])
        with np.errstate(over="ignore"):
            distances = finite - self.origin
            self.total += float(distances.sum())
            self.squares += float(np.dot(distances, distances))
        self.count += finite.size

    def _finite(self, chunk: np.ndarray) -> np.ndarray:
        is_finite = np.isfinite(chunk)
        if is_finite.all():
            return chunk
        if self.first_not_finite is None:
            self.first_not_finite = self._read + int(np.argmin(is_finite))
        finite = chunk[is_finite]
        self.not_finite += chunk.size - finite.size
        return finite

    @property
    def mean(self) -> float:
        if self.origin is None or not math.isfinite(self.total):
            return math.nan
        return self.origin + self.total / self.count

    @property
    def std(self) -> float:
        if self.origin is None:
            return math.nan
        shift = self.total / self.count
        return math.sqrt(max(0.0, self.squares / self.count - shift * shift)) if math.isfinite(shift) else math.inf


def _histogram(moments: _Moments, read: Callable[[], Iterator[np.ndarray]]) -> Histogram | None:
    low, high = _ends(moments)
    width = high - low
    if not math.isfinite(width):
        return None
    if width == 0:
        return Histogram(low, high, (moments.count,))
    # two bins more than are shown: for what is below, together with all that is not finite, and for what is above
    counts = np.zeros(BINS + 2, np.int64)
    for chunk in read():
        counts += _binned(chunk, low, high)
    below, above = int(counts[0]) - moments.not_finite, int(counts[-1])
    return Histogram(low, high, tuple(counts[1:-1].tolist()), below, above)


def _ends(moments: _Moments) -> tuple[float, float]:
    mean, reach = moments.mean, _SPREADS * moments.std
    if not math.isfinite(reach):
        return moments.least, moments.largest
    return max(moments.least, mean - reach), min(moments.largest, mean + reach)


def _binned(chunk: np.ndarray, low: float, high: float) -> np.ndarray:
    with np.errstate(all="ignore"):
        place = (chunk - low) / (high - low) * BINS
        # the last bin holds its upper end
        bins = np.clip(place, 0, BINS - 1, out=place).astype(np.int64) + 1
    bins[chunk > high] = BINS + 1
    bins[(chunk < low) | ~np.isfinite(chunk)] = 0
    return np.bincount(bins, minlength=BINS + 2)
