"""Moments of numbers: their count, mean, standard deviation, largest, zeros and what is not finite, in parts that are put together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_LEAST_SPREAD = 1e-3
"""Of a mean square in f32: with less of it left, the mean takes away digits that the standard deviation needs."""
_ROW = 1024
_LEAST_SQUARE = 1e-30
_LARGEST_SQUARE = 1e37
"""Between these a mean square in f32 has all its digits."""


class Moments(NamedTuple):
    """Moments of some numbers of a leaf. Mean, standard deviation and largest are those of the finite numbers."""

    finite: int
    """How many are."""
    mean: complex
    squares: float
    """The squared distances from the mean, added up, in units of `scale ** 2`: squares of large numbers would overflow."""
    scale: float
    largest: float
    zeros: int
    nonfinite: int
    first: int
    """Where the first number stands that is not finite; -1 if there is none."""

    @property
    def std(self) -> float:
        """The standard deviation of all numbers, not of a sample of them; NaN where no number is finite."""
        return self.scale * math.sqrt(self.squares / self.finite) if self.finite else math.nan

    @property
    def norm(self) -> float:
        """The square root of the sum of squares."""
        share = abs(self.mean) / self.scale
        return self.scale * math.sqrt(self.squares + self.finite * share * share)


NONE = Moments(0, math.nan, 0.0, 1.0, 0.0, 0, 0, -1)
"""The moments of no numbers."""


@np.errstate(all="ignore")  # numbers that are not finite, or whose squares overflow, are counted
def moments_of(numbers: np.ndarray, start: int = 0) -> Moments:
    """The moments of a flat array of any dtype; `start` is the place of its first number in the leaf."""
    if not numbers.size:
        return NONE
    if numbers.dtype.itemsize == 1:
        return _of_bytes(numbers, start)
    if numbers.dtype == np.float32 or numbers.dtype.name in ("bfloat16", "float16"):
        fast = _of_floats(numbers.astype(np.float32, copy=False))
        if fast is not None:
            return fast
    return _of_any(numbers, start)


def _of_floats(numbers: np.ndarray) -> Moments | None:
    """Moments in f32, at a third of the time of f64; None where f32 is not enough, or where a number is not finite."""
    count = numbers.size
    square = _sum_of_squares(numbers) / count
    if square == 0 and not numbers.any():  # a bias before training, a leaf that did not change
        return Moments(count, 0.0, 0.0, 1.0, 0.0, count, 0, -1)
    if not _LEAST_SQUARE < square < _LARGEST_SQUARE:  # False of NaN
        return None
    mean = float(np.add.reduce(numbers)) / count
    spread = square - mean * mean
    if spread < _LEAST_SPREAD * square:
        return None
    largest = float(np.abs(numbers).max())
    zeros = int(np.count_nonzero(numbers == 0))
    return Moments(count, mean, spread * count, 1.0, largest, zeros, 0, -1)


def _sum_of_squares(numbers: np.ndarray) -> float:
    """The sum of squares, f32 in short rows only: in a long one equal numbers are all rounded the same way."""
    whole = numbers.size // _ROW * _ROW
    rows = numbers[:whole].reshape(-1, _ROW)
    rest = numbers[whole:]
    return float(np.vecdot(rows, rows).sum(dtype=np.float64)) + float(np.dot(rest, rest))


def _of_any(numbers: np.ndarray, start: int) -> Moments:
    """Moments in f64, or complex128, in units of the largest number: no square overflows."""
    numbers = numbers.astype(np.complex128 if numbers.dtype.kind == "c" else np.float64)
    is_finite = np.isfinite(numbers)
    count = int(np.count_nonzero(is_finite))
    nonfinite, first = numbers.size - count, -1
    if nonfinite:
        first = start + int(np.argmin(is_finite))
        numbers = numbers[is_finite]
    if not count:
        return NONE._replace(nonfinite=nonfinite, first=first)
    scale = _power_of_two(float(max(np.abs(np.real(numbers)).max(), np.abs(np.imag(numbers)).max())))
    numbers = numbers / scale
    share = numbers.mean()
    distances = numbers - share
    squares = float(np.square(np.real(distances)).sum() + np.square(np.imag(distances)).sum())
    largest = float(np.abs(numbers).max()) * scale
    zeros = int(np.count_nonzero(numbers == 0))
    return Moments(count, share.item() * scale, squares, scale, largest, zeros, nonfinite, first)


def _power_of_two(largest: float) -> float:
    """A power of two near to the largest number, by which division is exact; 1 for zero."""
    if largest == 0:
        return 1.0
    _, exponent = math.frexp(largest)
    return math.ldexp(1.0, max(min(exponent, 1023), -1022))


def _of_bytes(numbers: np.ndarray, start: int) -> Moments:
    """Moments from how often each of the 256 values is there: exact, and one pass for bools, i8, i4 and fp8."""
    counts = np.bincount(numbers.view(np.uint8), minlength=256)
    values = np.arange(256, dtype=np.uint8).view(numbers.dtype).astype(np.float64)
    is_finite = np.isfinite(values)
    first = -1
    if counts[~is_finite].any():
        first = start + int(np.argmin(is_finite[numbers.view(np.uint8)]))
    values, finite_counts = values[is_finite], counts[is_finite]
    count = int(finite_counts.sum())
    nonfinite = numbers.size - count
    if not count:
        return NONE._replace(nonfinite=nonfinite, first=first)
    mean = float(np.dot(finite_counts, values)) / count
    squares = float(np.dot(finite_counts, np.square(values - mean)))
    largest = float(np.abs(values[finite_counts > 0]).max())
    zeros = int(finite_counts[values == 0].sum())
    return Moments(count, mean, squares, 1.0, largest, zeros, nonfinite, first)


def together(parts: Sequence[Moments]) -> Moments:
    """The moments of all parts as one, as Chan, Golub and LeVeque (1979) put them together."""
    if len(parts) == 1:
        return parts[0]
    nonfinite = sum(part.nonfinite for part in parts)
    first = min((part.first for part in parts if part.first >= 0), default=-1)
    parts = [part for part in parts if part.finite]
    if not parts:
        return NONE._replace(nonfinite=nonfinite, first=first)
    count = sum(part.finite for part in parts)
    scale = max(part.scale for part in parts)
    mean = _mean(parts, count, scale)
    squares = math.fsum(_squares_about(mean, part, scale) for part in parts)
    largest = max(part.largest for part in parts)
    zeros = sum(part.zeros for part in parts)
    return Moments(count, mean, squares, scale, largest, zeros, nonfinite, first)


def _mean(parts: Sequence[Moments], count: int, scale: float) -> complex:
    """The mean of all parts; their means are added in units of the scale, as their sum may be too large for a float."""
    real = scale * (math.fsum(part.mean.real / scale * part.finite for part in parts) / count)
    imaginary = scale * (math.fsum(part.mean.imag / scale * part.finite for part in parts) / count)
    return complex(real, imaginary) if imaginary else real


def _squares_about(mean: complex, part: Moments, scale: float) -> float:
    """The squared distances of a part from another mean, in units of another scale."""
    ratio = part.scale / scale
    moved = abs(part.mean / scale - mean / scale)
    return part.squares * ratio * ratio + part.finite * moved * moved
