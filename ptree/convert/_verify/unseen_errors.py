"""Count errors within a tolerance for the largest number that are large for the numbers that have them, such as probabilities
beside coordinates."""

from __future__ import annotations

import numpy as np

_MOST_OF_USUAL = 0.1
_LEAST_ROWS = 8
"""A channel has a usual size if it has at least so many numbers: a single one may be near 0 by chance."""
_MOST_ROWS = 4096
"""Of more rows some are looked at for the usual size."""


def unseen_errors(a: np.ndarray, b: np.ndarray, eps: float) -> int:
    """How many numbers differ by more than a tenth of the usual size of the source there.

    Usual is the lower quartile of all numbers, and the median of each channel along the last axis or the second.
    Zeros of the source do not count.

    Args:
        a, b: the source and ours in double precision.
        eps: of the coarser dtype; large numbers of 8-bit formats differ by as much when they are rounded.
    """
    if not eps or not a.size:
        return 0
    a, b = np.atleast_1d(a, b)
    error = np.abs(b - a)
    error[error <= eps * np.maximum(np.abs(a), np.abs(b))] = 0
    if not error.any():
        return 0
    sizes = np.abs(a)
    counts = [_count_large(error, _usual(sizes.reshape(-1, 1), 0.25))]
    for axis in {a.ndim - 1, min(1, a.ndim - 1)}:
        rows = np.moveaxis(sizes, axis, -1).reshape(-1, a.shape[axis])
        if len(rows) >= _LEAST_ROWS:
            usual = _usual(rows[:: len(rows) // _MOST_ROWS + 1], 0.5)
            counts.append(_count_large(np.moveaxis(error, axis, -1), usual))
    return max(counts)


def _count_large(error: np.ndarray, usual: np.ndarray) -> int:
    return int(np.count_nonzero((error > _MOST_OF_USUAL * usual) & (usual > 0)))


def _usual(rows: np.ndarray, quantile: float) -> np.ndarray:
    """The quantile of each column without its zeros; 0 for a column of zeros."""
    rows = np.sort(rows, axis=0)
    zeros = np.count_nonzero(rows == 0, axis=0)
    at = zeros + ((len(rows) - zeros - 1) * quantile).astype(int)  # of two numbers the smaller
    return np.take_along_axis(rows, np.minimum(at, len(rows) - 1)[None], axis=0)[0]
