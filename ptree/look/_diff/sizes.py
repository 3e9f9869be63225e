"""Sizes of the change between two arrays, chunk by chunk: relative size, largest difference, cosine, differing numbers, NaN
and inf. NumPy only."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

LEAST_COSINE = 0.5
"""Of leaves that are paired by their names in part: fine-tuned weights are above 0.9, unrelated ones near 0."""
_LEAST_SQUARE, _LARGEST_SQUARE = 1e-28, 1e34
"""Sums of squares between these are exact enough in float32; others may have lost squares that are too small or too large."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of the change between two arrays. Norms and the largest are over the numbers that are finite in both."""

    norm_before: float = 0.0
    norm_after: float = 0.0
    norm_change: float = 0.0
    largest: float = 0.0
    differing: int = 0
    """How many numbers differ; two NaN are the same, and so are 0.0 and -0.0."""
    nonfinite_before: int = 0
    nonfinite_after: int = 0
    is_broken: bool = False
    """Whether a number differs that is NaN or inf before or after."""
    is_rounding: bool = True
    """Whether the numbers after are those before, converted to the dtype after."""

    def __add__(self, other: Sizes) -> Sizes:
        # by hypot, since the sum of squares of large or tiny numbers is inf or 0
        return Sizes(
            math.hypot(self.norm_before, other.norm_before),
            math.hypot(self.norm_after, other.norm_after),
            math.hypot(self.norm_change, other.norm_change),
            max(self.largest, other.largest),
            self.differing + other.differing,
            self.nonfinite_before + other.nonfinite_before,
            self.nonfinite_after + other.nonfinite_after,
            self.is_broken or other.is_broken,
            self.is_rounding and other.is_rounding,
        )

    @property
    def relative(self) -> float:
        """|after - before| / |before|; inf where all before is 0 and something differs."""
        if self.norm_change == 0:
            return 0.0
        if not self.norm_before or math.isinf(self.norm_change):
            return math.inf
        return self.norm_change / self.norm_before

    @property
    def cosine(self) -> float:
        """The cosine of the angle between the two; NaN where one is all zeros."""
        if not self.norm_before or not self.norm_after or math.isinf(self.norm_change):
            return math.nan
        # 1 - cosine = (|change|^2 - (|after| - |before|)^2) / (2 |before| |after|): exact for small angles, where a dot
        # product has lost all its digits
        change = self.norm_change / self.norm_before
        ratio = self.norm_after / self.norm_before
        cosine = 1 - (change**2 - (ratio - 1) ** 2) / (2 * ratio)
        return min(1.0, max(-1.0, cosine))

    def is_within(self, tolerance: float) -> bool:
        """Whether the change counts as none: nothing differs, or the relative size is at most the tolerance."""
        if self.is_broken:
            return False
        return self.differing == 0 or self.relative <= tolerance


def have_equal_bytes(before: np.ndarray, after: np.ndarray) -> bool:
    """Whether two flat arrays of as many numbers have one dtype and are equal byte by byte."""
    if before.dtype != after.dtype:
        return False
    return bool((_words(before) == _words(after)).all())


def _words(flat: np.ndarray) -> np.ndarray:
    """The bytes of a flat array, eight at a time where they can be."""
    if not flat.flags.c_contiguous:
        flat = np.ascontiguousarray(flat)
    return flat.view(np.uint64 if flat.nbytes % 8 == 0 else np.uint8)


def sizes_of(before: np.ndarray, after: np.ndarray) -> Sizes:
    """The sizes of the change between two flat arrays of as many numbers."""
    with np.errstate(all="ignore"):  # NaN, inf and what is too large for a dtype are counted, not warned of
        if before.dtype != after.dtype:
            return _sizes_across_dtypes(before, after)
        return _sizes_within_dtype(before, after)


def _sizes_within_dtype(before: np.ndarray, after: np.ndarray) -> Sizes:
    dtype = before.dtype
    if dtype.kind in "SUMmV" and not _is_narrow(dtype):
        return _sizes_of_texts(before, after)
    if dtype.kind == "b":
        return _sizes_of_whole_numbers(before.view(np.uint8), after.view(np.uint8))
    if dtype.kind in "iu":
        return _sizes_of_whole_numbers(before, after)
    return _sizes_of_floats(before, after)


def _sizes_of_floats(before: np.ndarray, after: np.ndarray) -> Sizes:
    """The sizes of floats or complex numbers: in float32 where it holds both exactly and nothing is lost."""
    if _is_narrow(before.dtype):
        before = before.astype(np.float32)
    if _is_narrow(after.dtype):
        after = after.astype(np.float32)
    dtype = np.result_type(before, after)
    before, after = before.astype(dtype, copy=False), after.astype(dtype, copy=False)
    if dtype in (np.float32, np.float64):
        quick = _quick_sizes(before, after)
        if quick is not None:
            return quick
    return _careful_sizes(_wide(before), _wide(after))


def _is_narrow(dtype: np.dtype) -> bool:
    """Whether it is a dtype that float32 holds exactly: float16, and the dtypes of ml_dtypes."""
    return dtype == np.float16 or dtype.type.__module__ == "ml_dtypes"


def _sizes_of_texts(before: np.ndarray, after: np.ndarray) -> Sizes:
    """The sizes of texts, times and records, which differ or do not."""
    differing = int(np.count_nonzero(before != after))
    return Sizes(differing=differing, norm_change=float(differing > 0))


def _sizes_of_whole_numbers(before: np.ndarray, after: np.ndarray) -> Sizes:
    low, high = np.minimum(before, after), np.maximum(before, after)
    # modulo 2^n the difference is exact, also where it is too large for a signed number
    change = (high - low).view(f"u{before.dtype.itemsize}")
    differing = int(np.count_nonzero(change))
    if not differing:
        norm = _norm(_wide(before))
        return Sizes(norm, norm)
    wide = change.astype(np.float64)
    return Sizes(_norm(_wide(before)), _norm(_wide(after)), _norm(wide), float(wide.max()), differing)


def _quick_sizes(before: np.ndarray, after: np.ndarray) -> Sizes | None:
    """The sizes of two arrays of floats; None if a number is not finite, or if squares are too large or too small."""
    change = after - before
    square_before, square_after, square_change = (float(np.dot(flat, flat)) for flat in (before, after, change))
    if not (_is_exact(square_before) and _is_exact(square_after)):
        return None
    if square_change == 0 and not change.any():  # a part that is the same, of a leaf that has changed
        return Sizes(math.sqrt(square_before), math.sqrt(square_after))
    if not _is_exact(square_change):
        return None
    np.abs(change, out=change)
    # as whole numbers, which NumPy counts eight times as fast; without a sign only 0.0 is 0
    differing = int(np.count_nonzero(change.view(f"i{change.itemsize}")))
    largest = float(change.max())
    return Sizes(math.sqrt(square_before), math.sqrt(square_after), math.sqrt(square_change), largest, differing)


def _is_exact(square: float) -> bool:
    return _LEAST_SQUARE < square < _LARGEST_SQUARE  # which NaN is not


def _careful_sizes(before: np.ndarray, after: np.ndarray) -> Sizes:
    """The sizes of two arrays of float64 or complex128, of which numbers may be NaN, inf, huge or tiny."""
    finite_before, finite_after = np.isfinite(before), np.isfinite(after)
    is_same = (before == after) | (np.isnan(before) & np.isnan(after))
    both_finite = finite_before & finite_after
    zero = before.dtype.type(0)
    before, after = np.where(both_finite, before, zero), np.where(both_finite, after, zero)
    change = after - before
    return Sizes(
        _norm(before),
        _norm(after),
        _norm(change),
        float(np.abs(change).max(initial=0.0)),
        int(np.count_nonzero(~is_same)),
        int(np.count_nonzero(~finite_before)),
        int(np.count_nonzero(~finite_after)),
        bool((~is_same & ~both_finite).any()),
    )


def _sizes_across_dtypes(before: np.ndarray, after: np.ndarray) -> Sizes:
    """The sizes of a change of dtype, and whether it is the rounding alone."""
    if not (_has_numbers(before.dtype) and _has_numbers(after.dtype)):
        return Sizes(differing=before.size, norm_change=1.0, is_broken=True, is_rounding=False)
    sizes = _sizes_of_floats(_as_floats(before), _as_floats(after))
    return replace(sizes, is_rounding=_is_rounding(before, after))


def _is_rounding(before: np.ndarray, after: np.ndarray) -> bool:
    rounded = _converted(before, after.dtype)
    # NaN of other bits and -0.0 need the second look
    return have_equal_bytes(rounded, after) or _sizes_within_dtype(rounded, after).differing == 0


def _as_floats(flat: np.ndarray) -> np.ndarray:
    """Whole numbers and bools as float64."""
    return flat.astype(np.float64) if flat.dtype.kind in "biu" else flat


def _has_numbers(dtype: np.dtype) -> bool:
    return dtype.kind in "biufc" or _is_narrow(dtype)


def _converted(flat: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if flat.dtype.kind == "c" and dtype.kind != "c":
        return np.real(flat).astype(dtype)  # NumPy warns where a conversion drops the imaginary parts
    return flat.astype(dtype)


def _wide(flat: np.ndarray) -> np.ndarray:
    return flat.astype(np.complex128 if flat.dtype.kind == "c" else np.float64, copy=False)


def _norm(wide: np.ndarray) -> float:
    """The norm of an array of float64 or complex128, scaled so that no square is inf or 0."""
    largest = float(np.abs(wide).max(initial=0.0))
    if largest == 0 or not math.isfinite(largest):
        return largest
    scaled = wide / largest
    return largest * math.sqrt(float(np.vdot(scaled, scaled).real))
