"""Quantiles of any amount of numbers in bounded memory: a count of the upper 16 bits of each, as f32 has them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np

_BINS = 1 << 16
_EXPONENT = 0x7F80
"""The upper bits that are all set in NaN and inf."""


class BitCounts:
    """How often each pattern of the upper 16 bits is there: the bfloat16 values, cut and not rounded.

    >>> counts = BitCounts()
    >>> counts.add(np.arange(1001, dtype=np.float32))
    >>> [round(value) for value in counts.quantiles([0.1, 0.5, 0.9])]
    [100, 500, 900]

    A quantile is one of the numbers where bf16 holds them all, as it holds whole numbers up to 256; of others it lies
    within 0.8 percent of one.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(_BINS, np.int64)
        self.is_exact = True
        """Whether all lower bits are zero."""

    def add(self, numbers: np.ndarray) -> None:
        """Count the numbers of a flat array; of complex numbers their sizes."""
        bits = _bits(numbers)
        if self.is_exact:
            self.is_exact = bits.dtype == np.uint16 or not np.bitwise_and(bits, 0xFFFF).any()
        upper = bits if bits.dtype == np.uint16 else bits >> 16
        self.counts += np.bincount(upper, minlength=_BINS)

    def quantiles(self, shares: Sequence[float]) -> list[float]:
        """The number below which each share of the finite numbers lies; NaN where there is none."""
        order, low, high = _bins_in_order()
        counts = self.counts[order]
        total = np.cumsum(counts)
        count = int(total[-1])
        if not count:
            return [math.nan for _ in shares]
        if self.is_exact:
            high = low = _nearer_to_zero(low, high)
        found: list[float] = []
        for share in shares:
            rank = share * (count - 1)
            bin_ = int(np.searchsorted(total, rank, side="right"))
            inside = (rank - (total[bin_] - counts[bin_]) + 0.5) / counts[bin_]
            found.append(float(low[bin_] + min(inside, 1.0) * (high[bin_] - low[bin_])))
        return found


def _nearer_to_zero(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The edge of each bin whose lower 16 bits are zero."""
    return np.where(np.abs(low) < np.abs(high), low, high)


@cache
def _bins_in_order() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The bins of finite numbers from the least to the largest, with the least and the largest number of each."""
    bits = np.arange(_BINS, dtype=np.uint32)
    bits = bits[bits & _EXPONENT != _EXPONENT]
    negative, positive = bits[bits >= _BINS // 2][::-1], bits[bits < _BINS // 2]
    order = np.concatenate([negative, positive])
    inner = (order << 16).view(np.float32).astype(np.float64)
    outer = (order << 16 | 0xFFFF).view(np.float32).astype(np.float64)
    return order, np.minimum(inner, outer), np.maximum(inner, outer)


def _bits(numbers: np.ndarray) -> np.ndarray:
    """The bits of each number in f32, or the upper half of them where the others are zero."""
    if numbers.dtype.name == "bfloat16":
        return numbers.view(np.uint16)
    return _in_f32(numbers).view(np.uint32)


def _in_f32(numbers: np.ndarray) -> np.ndarray:
    if numbers.dtype.kind == "c":
        numbers = np.abs(numbers)
    if numbers.dtype.itemsize > 4 and numbers.dtype.kind == "f":
        most = np.finfo(np.float32).max  # larger finite numbers, which would be infinite in f32, count as this one
        is_finite = np.isfinite(numbers)
        numbers = np.where(is_finite, np.clip(numbers, -most, most), numbers)
    return np.ascontiguousarray(numbers.astype(np.float32, copy=False))
