"""Numbers of one leaf for a report: mean, standard deviation, range, zeros, non-finite numbers, and a histogram of 41 bins."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .._sources.source import Source
from .._stats.layer_moments import problem_of_numbers, start_moments
from .._stats.moments import Moments, moments_of, together
from .._stats.stack_layers import layers_of

BINS = 41
_MOST_LAYERS = 1000
_SPREADS = 5
"""The histogram ends so many standard deviations from the mean: one outlier does not press all others into one bin."""
_BELOW_ONE = 1 - 1e-12  # keeps the largest number in the last bin, whatever the rounding
_BY_ANOTHER_LIBRARY = 2  # as NumPy counts dtypes, such as bfloat16 and int4 of ml_dtypes
_HELD = 1 << 20
"""Bytes: a leaf up to this size is read once, a larger one twice, in chunks."""


class _Chunks(NamedTuple):
    """The numbers of a leaf, in two passes."""

    checked: Callable[[], Iterator[np.ndarray]]
    """The first pass, compared with the checksum after the last chunk."""
    again: Callable[[], Iterator[np.ndarray]]


@dataclass(frozen=True)
class Histogram:
    """How many numbers of a leaf lie in each of equally wide bins."""

    low: float
    high: float
    counts: tuple[int, ...]
    below: int = 0
    """How many finite numbers are less than `low`."""
    above: int = 0


@dataclass(frozen=True)
class LeafNumbers:
    """Statistics of the finite numbers of a leaf; of complex numbers those of their sizes."""

    mean: float
    std: float
    least: float
    largest: float
    zeros: int
    nonfinite: int
    first: tuple[int, ...] | None
    """The index of the first number that is not finite."""
    histogram: Histogram | None
    """None where no number is finite, or the range is wider than a float64 holds."""
    layer_stds: tuple[float, ...] = ()
    """Of a stack of layers the standard deviation in each."""


def leaf_numbers(source: Source, path: str) -> LeafNumbers | None:
    """Read a leaf and count its numbers; None of a leaf without numbers: a spec's, a text, PRNG keys, one of size 0.

    Raises:
        FileError: the leaf cannot be read, or its bytes are not what its checksum says.
    """
    info = source.leaves[path]
    if problem_of_numbers(info) or info.shape is None or info.count == 0:
        return None
    chunks = _chunks_of(source, path, info.nbytes)
    if chunks is None:
        return None
    moments, least, largest = _moments_and_range(chunks.checked())
    first = None if moments.first < 0 else tuple(map(int, np.unravel_index(moments.first, info.shape)))
    ends = _ends(moments, least, largest)
    return LeafNumbers(
        mean=moments.mean.real,
        std=moments.std,
        least=least,
        largest=largest,
        zeros=moments.zeros,
        nonfinite=moments.nonfinite,
        first=first,
        histogram=None if ends is None else _histogram(chunks.again(), *ends),
        layer_stds=_layer_stds(source, path, info.shape),
    )


def _layer_stds(source: Source, path: str, shape: tuple[int, ...]) -> tuple[float, ...]:
    layers = layers_of(path, shape)
    if not 1 < len(layers.paths) <= _MOST_LAYERS:
        return ()
    return tuple(moments.std for moments in start_moments(source, path, layers)())


def _chunks_of(source: Source, path: str, nbytes: int) -> _Chunks | None:
    """The numbers of a leaf; None of texts, dates and records."""
    if nbytes > _HELD:
        if not _has_numbers(next(source.chunks(path)).dtype):
            return None
        return _Chunks(lambda: map(_real, source.checked_chunks(path)), lambda: map(_real, source.chunks(path)))
    [whole] = source.checked_chunks(path, _HELD)
    if not _has_numbers(whole.dtype):
        return None
    held = _real(whole)
    return _Chunks(lambda: iter([held]), lambda: iter([held]))


def _has_numbers(dtype: np.dtype) -> bool:
    return dtype.kind in "biufc" or dtype.isbuiltin == _BY_ANOTHER_LIBRARY


def _real(chunk: np.ndarray) -> np.ndarray:
    if chunk.dtype.kind != "c":
        return chunk
    with np.errstate(all="ignore"):  # the size of a number that is not finite
        return np.abs(chunk)


def _moments_and_range(chunks: Iterator[np.ndarray]) -> tuple[Moments, float, float]:
    parts: list[Moments] = []
    least, largest, start = math.nan, math.nan, 0
    for chunk in chunks:
        part = moments_of(chunk, start)
        parts.append(part)
        start += chunk.size
        if part.finite:
            finite = _finite(chunk) if part.nonfinite else chunk
            least = float(np.fmin(least, finite.min()))
            largest = float(np.fmax(largest, finite.max()))
    return together(parts), least, largest


def _finite(chunk: np.ndarray) -> np.ndarray:
    return chunk[np.isfinite(chunk)]


def _ends(moments: Moments, least: float, largest: float) -> tuple[float, float] | None:
    """The ends of the histogram; None where there is none."""
    if not math.isfinite(largest - least):
        return None
    middle, reach = moments.mean.real, _SPREADS * moments.std
    return max(least, middle - reach), min(largest, middle + reach)


def _histogram(chunks: Iterator[np.ndarray], low: float, high: float) -> Histogram:
    # two bins more than are shown, for what is below and what is above
    counts = np.zeros(BINS + 2, np.int64)
    for chunk in chunks:
        counts += _binned(chunk, low, high)
    below, *inside, above = counts.tolist()
    if low == high:
        inside = [sum(inside)]
    return Histogram(low, high, tuple(inside), below, above)


def _binned(chunk: np.ndarray, low: float, high: float) -> np.ndarray:
    """How many finite numbers of a chunk lie below, in each bin, and above."""
    numbers = chunk.astype(np.float64)
    is_finite = np.isfinite(numbers)
    if not is_finite.all():
        numbers = numbers[is_finite]
    # in place, which takes half the time: the distance in bins, counted from one bin before the first
    numbers -= low
    if high > low:
        numbers *= BINS / (high - low) * _BELOW_ONE
    numbers += 1
    np.clip(numbers, 0, BINS + 1, out=numbers)
    return np.bincount(numbers.astype(np.intp), minlength=BINS + 2)
