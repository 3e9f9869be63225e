"""Quantiles of any amount of numbers in bounded memory: a count of the upper 16 bits of each, as f32 has them; numbers that
f32 cannot hold are counted by their upper bits in f64."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_BINS = 1 << 16
_EXPONENT = 0x7F80
"""The upper bits of f32 that are all set in NaN and inf, and all zero in 0 and numbers too small for f32's precision."""
_SPECIAL = (slice(0x80), slice(0x7F80, 0x8080), slice(0xFF80, None))
"""The bins of such numbers."""
_LOWER = 45
"""The lower bits of f64 that do not count: as many upper ones of its fraction are left as of f32's."""


class Bins(NamedTuple):
    """Ranges of numbers that do not overlap, in order, and how many numbers lie in each."""

    low: np.ndarray
    high: np.ndarray
    counts: np.ndarray


class BitCounts:
    """How often each pattern of the upper 16 bits is there: the bfloat16 values, cut and not rounded.

    >>> counts = BitCounts()
    >>> counts.add(np.arange(1001, dtype=np.float32))
    >>> [round(value) for value in counts.quantiles([0, 0.1, 0.5, 0.9, 1])]
    [0, 100, 500, 900, 1000]

    A quantile is one of the numbers where bf16 holds them all, as it holds whole numbers up to 256; of others it lies
    within 0.8 percent of one. The least and the largest number are exact.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS, np.int64)
        self._zeros = 0
        self._far: Counter[int] = Counter()
        """The upper bits in f64 of numbers that are too large or too small for f32 -> how many."""
        self._is_exact = True
        """Whether all lower bits of f32 are zero."""
        self._least, self._largest = math.inf, -math.inf
        self._upper = np.empty(0, np.intp)
        """Memory for upper bits: where it is new for each chunk, the system often takes four times as long."""

    def add(self, numbers: np.ndarray) -> None:
        """Count the numbers of a flat array; of complex numbers their sizes."""
        if not numbers.size:
            return
        if numbers.dtype.kind == "c":
            numbers = np.abs(numbers)
        upper = self._upper_bits(numbers)
        counts = np.bincount(upper, minlength=_BINS)
        if any(counts[bins].any() for bins in _SPECIAL):
            for bins in _SPECIAL:
                counts[bins] = 0
            exponent = upper & _EXPONENT
            is_special = (exponent == 0) | (exponent == _EXPONENT)
            self._add_special(numbers[is_special].astype(np.float64))
            numbers = numbers[~is_special]
        self._counts += counts
        self._extend(numbers)

    def _upper_bits(self, numbers: np.ndarray) -> np.ndarray:
        if numbers.dtype.name == "bfloat16":
            return numbers.view(np.uint16)
        with np.errstate(all="ignore"):  # what is too large for f32 is counted as a number of f64
            bits = np.ascontiguousarray(numbers.astype(np.float32, copy=False)).view(np.uint32)
        if self._is_exact:
            self._is_exact = not np.bitwise_and(bits, 0xFFFF).any()
        if self._upper.size < bits.size:
            self._upper = np.empty(bits.size, np.intp)
        return np.right_shift(bits, 16, out=self._upper[: bits.size])

    def _add_special(self, numbers: np.ndarray) -> None:
        """Count zeros, and finite numbers that are too large or too small for f32."""
        far = numbers[np.isfinite(numbers) & (numbers != 0)]
        zeros = int(np.count_nonzero(numbers == 0))
        self._zeros += zeros
        upper, counts = np.unique(far.view(np.uint64) >> _LOWER, return_counts=True)
        self._far.update(dict(zip(upper.tolist(), counts.tolist())))
        self._extend(far)
        if zeros:
            self._extend(np.zeros(1))

    def _extend(self, numbers: np.ndarray) -> None:
        if numbers.size:
            if numbers.dtype.kind not in "biuf":  # of the small dtypes of ml_dtypes NumPy is slow to find the least
                numbers = numbers.astype(np.float32)
            self._least = min(self._least, float(numbers.min()))
            self._largest = max(self._largest, float(numbers.max()))

    def bins(self) -> Bins:
        """The ranges that hold numbers, from the least to the largest; a range is one number where it is known."""
        upper = np.flatnonzero(self._counts).astype(np.uint32)
        inner = (upper << 16).view(np.float32).astype(np.float64)
        outer = inner if self._is_exact else (upper << 16 | 0xFFFF).view(np.float32).astype(np.float64)
        far = np.array([*self._far], np.uint64)
        far_inner, far_outer = (far << _LOWER).view(np.float64), (far << _LOWER | (1 << _LOWER) - 1).view(np.float64)
        zero = np.zeros(1 if self._zeros else 0)
        ends = np.concatenate([zero, inner, far_inner]), np.concatenate([zero, outer, far_outer])
        counts = np.concatenate([zero + self._zeros, self._counts[upper], [*self._far.values()]]).astype(np.int64)
        low, high = np.minimum(*ends), np.maximum(*ends)
        order = np.lexsort((high, low))
        low, high = (np.clip(side[order], self._least, self._largest) for side in (low, high))
        return Bins(low, high, counts[order])

    def quantiles(self, shares: Sequence[float]) -> list[float]:
        """The number below which each share of the finite numbers lies; NaN where there is none."""
        low, high, counts = self.bins()
        total = np.cumsum(counts)
        if not total.size:
            return [math.nan for _ in shares]
        found: list[float] = []
        for share in shares:
            if share in (0, 1):
                found.append(self._largest if share else self._least)
                continue
            rank = share * (int(total[-1]) - 1)
            bin_ = int(np.searchsorted(total, rank, side="right"))
            inside = min((rank - (total[bin_] - counts[bin_]) + 0.5) / counts[bin_], 1.0)
            found.append(float((1 - inside) * low[bin_] + inside * high[bin_]))
        return found
