"""Say what the error between two arrays of one shape looks like: a factor, an offset, one for each channel, a few positions, or
small everywhere."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

_UNEXPLAINED = 0.02
"""The share of the error that a pattern may leave unexplained."""
_LARGEST_ROOT = 4096
_FEW = 0.5
"""The share of differing numbers up to which where they are says more than how they differ."""
_MOST_SHOWN = 8


def size_pattern(source: np.ndarray, ours: np.ndarray, tolerance: float) -> str:
    """Describe the error; "" for a single number."""
    found = (
        _constant(source, ours)
        or _factor(source, ours, tolerance)
        or _offset(source, ours, tolerance)
        or _places(source, ours, tolerance)
        or _by_channel(source, ours, tolerance)
        or _by_position(source, ours, tolerance)
    )
    return found or _by_size(source, ours)


def _constant(source: np.ndarray, ours: np.ndarray) -> str:
    """Say that one side is the same number everywhere: a layer whose weights are not there yet."""
    if source.size < 2:
        return ""
    for side, array, other in (("ours", ours, source), ("the source", source, ours)):
        if np.ptp(array) == 0 != np.ptp(other):
            return f"{side} is {_number(array.flat[0])} everywhere: weights that are still zero, or an input that is not used"
    return ""


def _explains(fit: np.ndarray, source: np.ndarray, ours: np.ndarray, tolerance: float) -> bool:
    """Whether a fit leaves nearly nothing of the error."""
    left = np.abs(ours - fit).max()
    return bool(left <= max(tolerance, _UNEXPLAINED * np.abs(ours - source).max()))


def _factor(source: np.ndarray, ours: np.ndarray, tolerance: float) -> str:
    square = np.vdot(source, source)
    if source.size < 3 or not square:
        return ""
    factor = np.vdot(source, ours) / square
    if not factor or not _explains(factor * source, source, ours, tolerance):
        return ""
    if abs(factor - 1) < 0.01:
        return f"ours is the source times {_near_one(factor)}: an epsilon, or a rounded constant"
    causes = "attention's scale, an embedding's scale, dropout in training, or a mean in place of a sum"
    return f"ours is the source times {_number(factor)}{_as_root(factor)}: {causes}"


def _as_root(factor: complex) -> str:
    """Write a factor as a square root or a fraction, where it is one: scales of attention are."""
    if not isinstance(factor, float | np.floating):
        return ""
    size = abs(float(factor))
    square = size * size if size > 1 else 1 / (size * size)
    whole = round(square)
    if not 2 <= whole <= _LARGEST_ROOT or abs(square - whole) > 1e-3 * whole:
        return ""
    root = math.isqrt(whole)
    text = str(root) if root * root == whole else f"sqrt({whole})"
    sign = "-" if factor < 0 else ""
    if size > 1:
        return "" if root * root == whole else f" = {sign}{text}"
    return f" = {sign}1/{text}"


def _offset(source: np.ndarray, ours: np.ndarray, tolerance: float) -> str:
    if source.size < 3:
        return ""
    offset = (ours - source).mean()
    if not _explains(source + offset, source, ours, tolerance):
        return ""
    return (
        f"ours is the source plus {_number(offset)}: a bias, an offset of a norm's scale (1 + scale), or a gate's bias"
    )


# ---------------------------------------------------------------------------------- places


def _places(source: np.ndarray, ours: np.ndarray, tolerance: float) -> str:
    """Say where a few positions differ."""
    differs = np.abs(ours - source) > tolerance
    count = np.count_nonzero(differs)
    axes = [_on_axis(differs, axis) for axis in range(source.ndim)]
    parts = [part for part in axes if part]
    if count > _FEW * source.size and not any("border" in part for part in parts):
        return ""
    if not parts and count > 0.01 * source.size:
        return ""
    border = [part for part in parts if "border" in part]
    cause = "padding of a window" if border else "padded or masked positions, one channel or one gate"
    return f"{count:,} of {source.size:,} differ{''.join(f', {part}' for part in border or parts)}: {cause}"


def _on_axis(differs: np.ndarray, axis: int) -> str:
    """The positions along one axis at which anything differs; "" where something differs at all of them."""
    size = differs.shape[axis]
    others = tuple(other for other in range(differs.ndim) if other != axis)
    places = np.flatnonzero(differs.any(axis=others))
    if len(places) == size or size < 3:
        return ""
    low, high = _run(places), size - _run(size - 1 - places[::-1])
    has_windows = axis > 0 or differs.ndim == 1  # the first axis is that of a batch
    if has_windows and len(places) == low + size - high:
        return f"at the border of axis {axis} ({_counted(low, size - high)} of {size})"
    shown = ", ".join(map(str, places[:_MOST_SHOWN]))
    more = ", ..." if len(places) > _MOST_SHOWN else ""
    return f"at [{shown}{more}] of {size} along axis {axis}"


def _run(places: np.ndarray) -> int:
    """How many positions in a row there are from 0 on."""
    same = places == np.arange(len(places))
    return len(places) if same.all() else int(same.argmin())


def _counted(first: int, last: int) -> str:
    parts = []
    if first:
        parts.append(f"the first {first}")
    if last:
        parts.append(f"the last {last}")
    return " and ".join(parts)


# ------------------------------------------------------------------------ channels and positions


def _by_channel(source: np.ndarray, ours: np.ndarray, tolerance: float) -> str:
    """A factor and an offset for each channel along one axis, which is what norms and biases have."""
    if np.iscomplexobj(source):
        return ""
    for axis in _axes_of_channels(source.ndim):
        size = source.shape[axis]
        if size < 2 or source.size < 4 * size:  # with fewer than four numbers each, a line fits too well
            continue
        a = np.moveaxis(source, axis, 0).reshape(size, -1)
        b = np.moveaxis(ours, axis, 0).reshape(size, -1)
        found = _lines_of_channels(a, b, axis, tolerance)
        if found:
            return found
    return ""


def _axes_of_channels(ndim: int) -> Sequence[int]:
    """The last axis, and the second, where PyTorch has channels."""
    if ndim < 2:
        return ()
    return (ndim - 1, 1) if ndim > 2 else (1,)


def _lines_of_channels(a: np.ndarray, b: np.ndarray, axis: int, tolerance: float) -> str:
    mean_a, mean_b = a.mean(1, keepdims=True), b.mean(1, keepdims=True)
    if _explains(a + (mean_b - mean_a), a, b, tolerance):
        return f"an offset for each channel of axis {axis}: a bias that is missing or another one"
    centred = a - mean_a
    square = (centred**2).sum(1, keepdims=True)
    slope = np.divide(
        (centred * (b - mean_b)).sum(1, keepdims=True), square, out=np.ones_like(square), where=square > 0
    )
    if not _explains(slope * centred + mean_b, a, b, tolerance):
        return ""
    span = f"{_near_one(slope.min())} to {_near_one(slope.max())}"
    if _explains(slope * a, a, b, tolerance):
        return f"a factor for each channel of axis {axis}, {span}: a scale, or the epsilon of a norm"
    return (
        f"a factor ({span}) and an offset for each channel of axis {axis}: a norm's epsilon, its scale and bias, or running"
        " statistics in place of the batch's"
    )


def _by_position(source: np.ndarray, ours: np.ndarray, tolerance: float) -> str:
    """A factor for each position, the same for all of its channels."""
    if source.ndim < 2 or source.shape[-1] < 4:
        return ""
    square = np.sum(source * np.conj(source), -1, keepdims=True)
    product = np.sum(np.conj(source) * ours, -1, keepdims=True)
    factor = np.divide(product, square, out=np.ones_like(product), where=square != 0)
    if np.iscomplexobj(factor) or not _explains(factor * source, source, ours, tolerance):
        return ""
    span = f"{_near_one(factor.min())} to {_near_one(factor.max())}"
    return (
        f"a factor for each position, {span}: the epsilon of a norm over the last axis, or how weights are normalised"
    )


# ------------------------------------------------------------------------------------ size


def _by_size(source: np.ndarray, ours: np.ndarray) -> str:
    if source.size < 2:  # one number has no pattern
        return ""
    largest = np.abs(source).max()
    relative = np.abs(ours - source).max() / largest if largest else math.inf
    cosine = _cosine(source, ours)
    if relative < 1e-2 and cosine > 0.999:
        return (
            f"everywhere close, off by {relative:.1e} of the largest: an epsilon, gelu's form, or the precision of products"
            " (TF32 and bfloat16 are off by 1e-4 to 1e-2)"
        )
    if cosine > 0.9:
        return f"alike but not the same (cosine {cosine:.3f}): a part that is missing or applied twice, or another activation"
    return (
        f"unlike (cosine {cosine:.3f}): a kernel in another layout (transposed, heads, gates), other weights, another input,"
        " or the padding of a window with a stride"
    )


def _cosine(source: np.ndarray, ours: np.ndarray) -> float:
    lengths = np.linalg.norm(source.ravel()) * np.linalg.norm(ours.ravel())
    return float(np.real(np.vdot(source, ours)) / lengths) if lengths else 0.0


def _number(value: complex) -> str:
    return f"{value:.4g}"


def _near_one(value: float) -> str:
    """A factor, with all digits that tell it from 1."""
    if 0 < abs(value - 1) < 0.01:
        return f"1 {'+' if value > 1 else '-'} {abs(value - 1):.2g}"
    return f"{value:.4g}"
