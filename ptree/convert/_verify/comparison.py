"""Compare two arrays: largest absolute and relative error and where, cosine, NaN, and whether it is within a tolerance."""

from __future__ import annotations

from dataclasses import dataclass, replace

import ml_dtypes
import numpy as np

from ..._words import short_dtype
from .unseen_errors import unseen_errors

_FACTOR = 256
_FACTOR_OF_SHORT = 4
_SHORT = 1e-5  # epsilons of a format from float16 on are larger

Number = float | int | complex | bool


@dataclass(frozen=True)
class Comparison:
    """One value of the source beside ours, for one batch.

    >>> import numpy as np
    >>> from ptree import convert
    >>> found = convert.verify(np.tanh, np.sin, np.linspace(-1, 1, 5))
    >>> found.rows[0].ok, found.rows[0].differing, round(found.rows[0].absolute, 3)
    (False, 4, 0.08)
    """

    name: str
    """The name in the source."""
    name_ours: str
    """The name in ours."""
    batch: int
    """The number of the batch, from 0."""
    is_output: bool
    """Whether it is an output rather than an intermediate value."""
    shape: tuple[int, ...] | None = None
    """The shape in the source; None where the value is not there."""
    shape_ours: tuple[int, ...] | None = None
    """The shape in ours; None where the value is not there."""
    dtype: str = ""
    """The dtype in the source, in short, such as f32."""
    dtype_ours: str = ""
    """The dtype in ours."""
    tolerance: float = 0.0
    """The largest absolute error that is allowed."""
    absolute: float | None = None
    """The largest absolute error, of the finite numbers."""
    relative: float | None = None
    """The largest absolute error divided by the largest absolute value of the source."""
    cosine: float | None = None
    """The cosine of the angle between both arrays, as vectors."""
    at: tuple[int, ...] | None = None
    """The index of the largest error."""
    value: Number | None = None
    """The source's number at this index."""
    value_ours: Number | None = None
    """Our number at this index."""
    differing: int = 0
    """How many numbers differ by more than the tolerance, those that are NaN or infinite on one side too."""
    nonfinite: int = 0
    """How many numbers of the source are NaN or infinite."""
    nonfinite_ours: int = 0
    """How many of ours are."""
    unseen: int = 0
    """How many errors within the default tolerance, which is for the largest number, exceed a tenth of the usual size there."""
    problem: str = ""
    """Why the numbers could not be compared, or what else is wrong."""
    hints: tuple[str, ...] = ()
    """What the error looks like."""

    __module__ = "ptree.convert"

    @property
    def ok(self) -> bool:
        """Whether both are the same, within the tolerance."""
        return not self.problem and not self.differing

    @property
    def count(self) -> int:
        """How many numbers were compared."""
        if self.absolute is None or self.shape is None:
            return 0
        return int(np.prod(self.shape))

    @property
    def badness(self) -> tuple[bool, float]:
        """By which the worst of several batches is found."""
        if self.absolute is None:
            return not self.ok, 0.0
        return not self.ok, self.absolute / (self.tolerance or np.finfo(float).tiny)


def default_tolerance(source: np.ndarray, ours: np.ndarray) -> float:
    """The largest absolute error that rounding explains: 256 eps times the largest absolute value; 0 for integers and bools.

    A product of length n is off by some sqrt(n) units of rounding, u = eps / 2 (Higham & Mary, A new approach to probabilistic
    rounding error analysis, 2019), and layers in sequence add up: 512 u are 16 layers of 1,024. 16 and 8-bit formats sum
    up in float32, and only what is stored is rounded: 4 eps. eps is that of the coarser dtype of the two.

    >>> x = np.array([-2.0, 1.0], np.float32)
    >>> default_tolerance(x, x) == 256 * 2**-23 * 2
    True
    """
    eps = max(_eps(source.dtype), _eps(ours.dtype))
    if eps == 0:
        return 0.0
    factor = _FACTOR_OF_SHORT if eps > _SHORT else _FACTOR
    return factor * eps * _largest(as_double(source))


def _eps(dtype: np.dtype) -> float:
    if dtype.kind in "iub":
        return 0.0
    try:
        return float(ml_dtypes.finfo(dtype).eps)
    except ValueError:  # integers of ml_dtypes, such as int4
        return 0.0


def _largest(array: np.ndarray) -> float:
    finite = np.abs(array[np.isfinite(array)])
    return float(finite.max()) if finite.size else 0.0


def as_double(array: np.ndarray) -> np.ndarray:
    """The numbers in float64, or in complex128."""
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def _kind(dtype: np.dtype) -> str:
    kinds = {"b": "bools", "i": "integers", "u": "integers", "c": "complex numbers"}
    if dtype.name in ("int2", "int4", "uint2", "uint4"):
        return "integers"
    return kinds.get(dtype.kind, "floats")


def compare(
    base: Comparison, source: np.ndarray, ours: np.ndarray, tolerance: float | None
) -> tuple[Comparison, np.ndarray, np.ndarray]:
    """Compare two arrays.

    Args:
        base: the names, the batch.
        source, ours: the arrays.
        tolerance: the largest absolute error; None for `default_tolerance`.

    Returns:
        The comparison, and both arrays in double precision with zeros where either is not finite.
    """
    base = replace(
        base,
        shape=source.shape,
        shape_ours=ours.shape,
        dtype=short_dtype(source.dtype),
        dtype_ours=short_dtype(ours.dtype),
        nonfinite=_count_nonfinite(source),
        nonfinite_ours=_count_nonfinite(ours),
        tolerance=default_tolerance(source, ours) if tolerance is None else tolerance,
    )
    a, b = as_double(source), as_double(ours)
    problem = _why_not_compared(source, ours)
    if problem:
        return replace(base, problem=problem), a, b
    errors = _errors(source, ours, a, b)
    a, b = np.where(errors.is_finite, a, 0), np.where(errors.is_finite, b, 0)
    measured = _measured(base, errors, a, b)
    if errors.sizes.size:
        measured = _with_place(measured, errors, source, ours)
    if tolerance is None and measured.ok:
        measured = replace(measured, unseen=unseen_errors(a, b, max(_eps(source.dtype), _eps(ours.dtype))))
    return measured, a, b


def _why_not_compared(source: np.ndarray, ours: np.ndarray) -> str:
    if source.shape != ours.shape:
        return "other shape"
    kind, kind_ours = _kind(source.dtype), _kind(ours.dtype)
    if kind != kind_ours:
        return f"{kind} in the source, {kind_ours} in ours"
    return ""


def _count_nonfinite(array: np.ndarray) -> int:
    return int(np.count_nonzero(~np.isfinite(as_double(array))))


@dataclass(frozen=True)
class _Errors:
    """The errors of an array, number by number."""

    sizes: np.ndarray
    """The absolute errors; 0 where either side is not finite."""
    is_finite: np.ndarray
    """Where both sides are finite."""
    is_one_sided: np.ndarray
    """Where a side is NaN or infinite and the other is not the same."""


def _errors(source: np.ndarray, ours: np.ndarray, a: np.ndarray, b: np.ndarray) -> _Errors:
    is_finite = np.isfinite(a) & np.isfinite(b)
    is_same = (a == b) | (np.isnan(a) & np.isnan(b))
    sizes = np.abs(np.where(is_finite, b, 0) - np.where(is_finite, a, 0))
    if source.dtype.kind in "iub":  # doubles hold no 64-bit integers, and integers that differ do so by 1 or more
        sizes = np.where(source == ours, 0.0, np.maximum(sizes, 1.0))
    return _Errors(sizes, is_finite, ~is_finite & ~is_same)


def _measured(base: Comparison, errors: _Errors, a: np.ndarray, b: np.ndarray) -> Comparison:
    """The comparison with its errors, and what is wrong with NaN and infinities."""
    largest = float(errors.sizes.max()) if errors.sizes.size else 0.0
    size = _largest(a)
    count_one_sided = int(np.count_nonzero(errors.is_one_sided))
    problem = ""
    if count_one_sided:
        verb = "is" if count_one_sided == 1 else "are"
        problem = f"{count_one_sided} of {a.size} {verb} NaN or infinite on one side"
    elif a.size and not errors.is_finite.any():
        problem = "NaN or infinite everywhere on both sides, so nothing is proven"
    return replace(
        base,
        absolute=largest,
        relative=largest / size if size else (np.inf if largest else 0.0),
        cosine=_cosine(a, b),
        differing=int(np.count_nonzero(errors.sizes > base.tolerance)) + count_one_sided,
        problem=problem,
    )


def _with_place(measured: Comparison, errors: _Errors, source: np.ndarray, ours: np.ndarray) -> Comparison:
    """The comparison with the place of the largest error, or of the first number that is NaN or infinite on one side."""
    is_one_sided = errors.is_one_sided.any()
    if measured.problem and not is_one_sided:
        return measured
    worst = int(errors.is_one_sided.argmax() if is_one_sided else errors.sizes.argmax())
    at = tuple(int(axis) for axis in np.unravel_index(worst, source.shape))
    problem = measured.problem
    if is_one_sided:
        problem += f", first at {at}: {source[at]} in the source and {ours[at]} in ours"
    return replace(measured, at=at, value=source[at].item(), value_ours=ours[at].item(), problem=problem)


def _cosine(a: np.ndarray, b: np.ndarray) -> float | None:
    """The cosine of the angle between two arrays; None where one has no direction."""
    size, size_ours = _largest(a), _largest(b)
    if not size or not size_ours:
        return None
    a, b = a / size, b / size_ours  # squares of large numbers would overflow
    return float(np.real(np.vdot(a, b)) / (np.linalg.norm(a.ravel()) * np.linalg.norm(b.ravel())))
