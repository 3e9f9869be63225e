"""Find that two arrays hold the same numbers in another order: transposed, flipped, another order along one axis, reshaped."""

from __future__ import annotations

from itertools import permutations

import numpy as np

_MOST_AXES = 6
_LONGEST_AXIS = 65536
_LONGEST_SHIFT = 8


def shape_pattern(source: np.ndarray, ours: np.ndarray, tolerance: float) -> str:
    """Say what two arrays of different shapes have to do with each other."""
    order = _transposed(source, ours, tolerance)
    if order:
        return f"ours is the source with its axes in the order {order}: channel order, or a transpose that is missing"
    if source.size == ours.size:
        return _reshaped(source, ours, tolerance)
    if source.ndim != ours.ndim:
        return f"{source.ndim} axes in the source, {ours.ndim} in ours: an axis that is squeezed, pooled or summed on one side"
    parts = [
        f"axis {axis} has {size} in the source and {size_ours} in ours"
        for axis, (size, size_ours) in enumerate(zip(source.shape, ours.shape))
        if size != size_ours
    ]
    return f"{', '.join(parts)}: padding, stride or dilation of a window, or the number of units"


def _reshaped(source: np.ndarray, ours: np.ndarray, tolerance: float) -> str:
    if _close(source.reshape(ours.shape), ours, tolerance):
        return "the same numbers in the same order, in another shape: a reshape or squeeze is missing"
    if _close(np.sort(source, axis=None), np.sort(ours, axis=None), tolerance):
        return "the same numbers in another order and shape: channel order before a flatten or reshape"
    return "as many numbers in another shape, and other values"


def order_pattern(source: np.ndarray, ours: np.ndarray, tolerance: float) -> str:
    """Say in which order of the source's numbers ours are, for arrays of one shape; "" if in none."""
    order = _transposed(source, ours, tolerance)
    if order:
        return f"ours is the source with its axes in the order {order}: a transpose that is missing or too many"
    for axis in range(source.ndim):
        found = _along(source, ours, axis, tolerance)
        if found:
            return found
    if source.size > 2 and _close(np.sort(source, axis=None), np.sort(ours, axis=None), tolerance):
        return "the same numbers in another order: a reshape of axes in another order (heads, flatten, channel order)"
    return ""


def _close(a: np.ndarray, b: np.ndarray, tolerance: float) -> bool:
    return bool(np.all(np.abs(a - b) <= tolerance))


def _transposed(source: np.ndarray, ours: np.ndarray, tolerance: float) -> tuple[int, ...]:
    """The order of axes in which the source is ours; () if it is in none but its own."""
    if source.ndim != ours.ndim or source.ndim > _MOST_AXES or sorted(source.shape) != sorted(ours.shape):
        return ()
    own = tuple(range(source.ndim))
    for order in permutations(own):
        seen = source.transpose(order)
        if order != own and seen.shape == ours.shape and _close(seen, ours, tolerance):
            return order
    return ()


def _along(source: np.ndarray, ours: np.ndarray, axis: int, tolerance: float) -> str:
    """Say in which other order along one axis the numbers are."""
    size = source.shape[axis]
    if size < 2:
        return ""
    shift = _shift(np.moveaxis(source, axis, 0), np.moveaxis(ours, axis, 0), tolerance)
    if shift:
        return f"ours is the source shifted by {shift} along axis {axis}: padding at one end rather than the other, or a causal mask"
    if _close(np.flip(source, axis), ours, tolerance):
        return (
            f"ours is the source in reverse along axis {axis}: a kernel that is not flipped, or a sequence in reverse"
        )
    if size > _LONGEST_AXIS:
        return ""
    a = np.moveaxis(source, axis, 0).reshape(size, -1)
    b = np.moveaxis(ours, axis, 0).reshape(size, -1)
    order = _row_order(a, b)
    if not _close(a[order], b, tolerance):
        return ""
    parts = _equal_parts(order)
    if parts:
        return f"ours is the source with {len(parts)} equal parts of axis {axis} in the order {parts}: gates, or fused kernels"
    shown = f"{order[:8].tolist()}{'...' if size > 8 else ''}"
    return f"ours is the source in another order along axis {axis}, {shown}: heads, channels or groups in another order"


def _shift(a: np.ndarray, b: np.ndarray, tolerance: float) -> int:
    """By how many positions of the first axis `b` is behind `a`; 0 if it is not `a` shifted."""
    for step in range(1, min(_LONGEST_SHIFT, len(a) // 2) + 1):
        if _close(a[:-step], b[step:], tolerance):
            return step
        if _close(a[step:], b[:-step], tolerance):
            return -step
    return 0


def _row_order(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The order of rows in which `a` is nearest to `b`, by their projections on one direction."""
    direction = np.random.default_rng(0).normal(size=a.shape[1])
    order = np.empty(len(a), int)
    order[np.argsort(b @ direction)] = np.argsort(a @ direction)
    return order


def _equal_parts(order: np.ndarray) -> tuple[int, ...]:
    """The order of equal parts, where a row order moves 2 to 8 parts as they are."""
    for count in range(2, min(8, len(order) // 2) + 1):
        if len(order) % count:
            continue
        parts = order.reshape(count, -1)
        size = parts.shape[1]
        if np.all(parts == parts[:, :1] + np.arange(size)) and np.all(parts[:, 0] % size == 0):
            return tuple(int(first) // size for first in parts[:, 0])
    return ()
