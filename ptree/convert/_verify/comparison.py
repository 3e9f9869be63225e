"""Compare two arrays: largest absolute and relative error and where, cosine, NaN, and whether it is within a tolerance."""

from __future__ import annotations

from dataclasses import dataclass, replace

import ml_dtypes
import numpy as np

from ..._words import short_dtype

_FACTOR = 256
_FACTOR_OF_SHORT = 4
_SHORT = 1e-5  # epsilons of a format from float16 on are larger
_MOST_OF_USUAL = 0.1

Number = float | int | complex | bool


@dataclass(frozen=True)
class Comparison:
    """One value of the source beside ours, for one batch."""

    name: str
    name_ours: str
    batch: int
    is_output: bool
    """Whether it is an output rather than an intermediate value."""
    shape: tuple[int, ...] | None = None
    """In the source; None where the value is not there."""
    shape_ours: tuple[int, ...] | None = None
    dtype: str = ""
    dtype_ours: str = ""
    tolerance: float = 0.0
    """The largest absolute error that is allowed."""
    absolute: float | None = None
    """The largest absolute error, of the finite numbers."""
    relative: float | None = None
    """The largest absolute error divided by the largest absolute value of the source."""
    cosine: float | None = None
    """Of the angle between both arrays as vectors."""
    at: tuple[int, ...] | None = None
    """Where the largest error is."""
    value: Number | None = None
    """The source's number there."""
    value_ours: Number | None = None
    differing: int = 0
    """How many numbers differ by more than the tolerance, those that are NaN or infinite on one side too."""
    nonfinite: int = 0
    nonfinite_ours: int = 0
    unseen: int = 0
    """How many numbers differ by more than a tenth of a usual number of the source and still agree, as the default tolerance
    is that of the largest number."""
    problem: str = ""
    """Why the numbers could not be compared, or what else is wrong."""
    hints: tuple[str, ...] = ()
    """What the error looks like."""

    __module__ = "ptree.convert"

    @property
    def ok(self) -> bool:
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
    described = {
        "name": base.name,
        "name_ours": base.name_ours,
        "batch": base.batch,
        "is_output": base.is_output,
        "shape": source.shape,
        "shape_ours": ours.shape,
        "dtype": short_dtype(source.dtype),
        "dtype_ours": short_dtype(ours.dtype),
        "nonfinite": _count_nonfinite(source),
        "nonfinite_ours": _count_nonfinite(ours),
    }
    allowed = default_tolerance(source, ours) if tolerance is None else tolerance
    kind, kind_ours = _kind(source.dtype), _kind(ours.dtype)
    if kind != "floats":
        allowed = 0.0 if tolerance is None else allowed
    a, b = as_double(source), as_double(ours)
    if source.shape != ours.shape:
        return Comparison(**described, tolerance=allowed, problem="other shape"), a, b
    if kind != kind_ours:
        return Comparison(**described, tolerance=allowed, problem=f"{kind} in the source, {kind_ours} in ours"), a, b
    measured, a, b = _measured(described, source, ours, a, b, allowed)
    if tolerance is None and kind == "floats" and measured.ok:
        measured = replace(measured, unseen=_unseen(a, b, max(_eps(source.dtype), _eps(ours.dtype))))
    return measured, a, b


def _unseen(a: np.ndarray, b: np.ndarray, eps: float) -> int:
    """How many numbers differ by more than a tenth of the median of the source, whose zeros do not count.

    Large numbers of 8-bit formats differ by as much when they are rounded: by up to eps times their size.
    """
    sizes = np.abs(a)
    sizes = sizes[sizes > 0]
    if not sizes.size:
        return 0
    middle = (sizes.size - 1) // 2  # of two numbers the smaller
    usual = np.partition(sizes, middle)[middle]
    rounding = eps * np.maximum(np.abs(a), np.abs(b))
    return int(np.count_nonzero(np.abs(b - a) > np.maximum(_MOST_OF_USUAL * usual, rounding)))


def _count_nonfinite(array: np.ndarray) -> int:
    return int(np.count_nonzero(~np.isfinite(as_double(array))))


def _measured(
    described: dict, source: np.ndarray, ours: np.ndarray, a: np.ndarray, b: np.ndarray, allowed: float
) -> tuple[Comparison, np.ndarray, np.ndarray]:
    finite = np.isfinite(a) & np.isfinite(b)
    same_nonfinite = ~finite & ((a == b) | (np.isnan(a) & np.isnan(b)))
    one_sided = ~finite & ~same_nonfinite
    a, b = np.where(finite, a, 0), np.where(finite, b, 0)
    error = np.abs(b - a)
    if source.dtype.kind in "iub":  # 64-bit integers do not fit into doubles
        error = np.where(source == ours, 0.0, np.maximum(error, np.finfo(float).tiny))
    differing = int(np.count_nonzero(error > allowed)) + int(np.count_nonzero(one_sided))
    problem = ""
    at: tuple[int, ...] | None = None
    if one_sided.any():
        at = tuple(int(axis) for axis in np.argwhere(one_sided)[0])
        shown = f"{source[at]} in the source and {ours[at]} in ours"
        count = int(np.count_nonzero(one_sided))
        verb = "is" if count == 1 else "are"
        problem = f"{count} of {a.size} {verb} NaN or infinite on one side, first at {at}: {shown}"
    elif a.size and not finite.any():
        problem = "NaN or infinite everywhere on both sides, so nothing is proven"
    elif error.size:
        at = tuple(int(axis) for axis in np.unravel_index(int(error.argmax()), error.shape))
    largest = float(error.max()) if error.size else 0.0
    size = _largest(a)
    comparison = Comparison(
        **described,
        tolerance=allowed,
        absolute=largest,
        relative=largest / size if size else (np.inf if largest else 0.0),
        cosine=_cosine(a, b),
        at=at,
        value=None if at is None else source[at].item(),
        value_ours=None if at is None else ours[at].item(),
        differing=differing,
        problem=problem,
    )
    return comparison, a, b


def _cosine(a: np.ndarray, b: np.ndarray) -> float | None:
    """The cosine of the angle between two arrays; None where one has no direction."""
    size, size_ours = _largest(a), _largest(b)
    if not size or not size_ours:
        return None
    a, b = a / size, b / size_ours  # squares of large numbers would overflow
    return float(np.real(np.vdot(a, b)) / (np.linalg.norm(a.ravel()) * np.linalg.norm(b.ravel())))
