"""Name the cause of a difference where the input of the layer is at hand: another form of an activation, a square kernel that is
transposed, another epsilon of a norm."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from .comparison import as_double

_Function = Callable[[np.ndarray], np.ndarray]
_EPSILONS = (1e-12, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
_MOST_ROWS = 4096
_MOST_NUMBERS = 1 << 22
_ORTHOGONAL = 1e-3
_LOG_LEAST_CHANCE = np.log(1e-4)


def cause(inputs: Sequence[np.ndarray], source: np.ndarray, ours: np.ndarray, tolerance: float) -> str:
    """Find what explains a difference; "" if nothing does.

    Args:
        inputs: values that were equal on both sides before, the latest last.
        source, ours: the first value that differs.
        tolerance: the largest error that is allowed.
    """
    if np.iscomplexobj(source) or not source.size or source.size > _MOST_NUMBERS:
        return ""
    for array in reversed(inputs):
        if array.shape != source.shape or np.iscomplexobj(array) or not np.isfinite(as_double(array)).all():
            continue
        x = as_double(array)
        found = (
            _activations(x, source, ours, tolerance)
            or _transposed_kernel(x, source, ours, tolerance)
            or _epsilons(x, source, ours, tolerance)
        )
        if found:
            return found
    return ""


# ------------------------------------------------------------------------------ activations


def _gelu(x: np.ndarray, approximate: bool) -> np.ndarray:
    return np.asarray(jax.nn.gelu(x.astype(np.float32), approximate=approximate), np.float64)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))


_ACTIVATIONS: dict[str, _Function] = {
    "exact gelu (erf)": lambda x: _gelu(x, approximate=False),
    "tanh-approximated gelu": lambda x: _gelu(x, approximate=True),
    "sigmoid-approximated gelu (quick_gelu)": lambda x: x * _sigmoid(1.702 * x),
    "silu (swish)": lambda x: x * _sigmoid(x),
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "leaky relu of slope 0.01": lambda x: np.where(x < 0, 0.01 * x, x),
    "leaky relu of slope 0.2": lambda x: np.where(x < 0, 0.2 * x, x),
    "leaky relu of slope 0.3": lambda x: np.where(x < 0, 0.3 * x, x),
    "elu": lambda x: np.where(x < 0, np.expm1(np.minimum(x, 0)), x),
    "softplus": lambda x: np.logaddexp(x, 0),
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
    "hard sigmoid, relu6(x + 3) / 6": lambda x: np.clip(x + 3, 0, 6) / 6,
    "hard sigmoid, clip(0.2 x + 0.5)": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    "hard swish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "no activation": lambda x: x,
}


def _activations(x: np.ndarray, source: np.ndarray, ours: np.ndarray, tolerance: float) -> str:
    name, name_ours = _activation(x, source, tolerance), _activation(x, ours, tolerance)
    if not name or not name_ours or name == name_ours:
        return ""
    return f"the source is the {name} of a value before it, ours the {name_ours}"


def _activation(x: np.ndarray, y: np.ndarray, tolerance: float) -> str:
    """The name of the nearest activation that gives these numbers; "" if none does."""
    errors = {name: np.abs(function(x) - y).max() for name, function in _ACTIVATIONS.items()}
    name = min(errors, key=lambda name: errors[name])
    return name if errors[name] <= tolerance else ""


# ------------------------------------------------------------------------ transposed kernels


def _transposed_kernel(x: np.ndarray, source: np.ndarray, ours: np.ndarray, tolerance: float) -> str:
    """A square kernel that is transposed: x (W - W^T) is orthogonal to x for every x, whatever W and the bias are."""
    for axis in dict.fromkeys((x.ndim - 1, min(1, x.ndim - 1))):  # channels last, or second
        size = x.shape[axis]
        if size < 2 or x.size < 3 * size:  # one or two rows may be orthogonal by chance
            continue
        rows = np.moveaxis(x, axis, -1).reshape(-1, size)
        error = np.moveaxis(ours - source, axis, -1).reshape(-1, size)
        product = np.abs((rows * error).sum(1))
        lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(error, axis=1)
        rounding = np.linalg.norm(rows, axis=1) * tolerance
        bound = _ORTHOGONAL * lengths + rounding
        has_error = lengths > rounding
        if np.count_nonzero(has_error) < 3 or np.any(product > bound):
            continue
        if _log_chance(bound[has_error], lengths[has_error], size) < _LOG_LEAST_CHANCE:
            return (
                f"a square kernel of {size}x{size} is transposed on one side, or a rotation goes the other way: the error is"
                " orthogonal to the input everywhere"
            )
    return ""


def _log_chance(bound: np.ndarray, lengths: np.ndarray, size: int) -> float:
    """The logarithm of the probability that products of vectors in random directions are all below their bounds.

    The cosine of two random directions has the standard deviation 1 / sqrt(size). An error of the order of the tolerance is
    below its bound in every direction, and proves nothing.
    """
    deviations = bound / lengths * np.sqrt(size)
    return float(np.log(np.minimum(1.0, np.sqrt(2 / np.pi) * deviations)).sum())


# -------------------------------------------------------------------------------- epsilons


def _epsilons(x: np.ndarray, source: np.ndarray, ours: np.ndarray, tolerance: float) -> str:
    """The epsilons of a norm over the last axis, for which scale and bias of each channel explain all numbers."""
    size = x.shape[-1]
    rows = x.reshape(-1, size)[:_MOST_ROWS]
    if x.ndim < 2 or len(rows) < 4 or size < 2:
        return ""
    pairs = (source.reshape(-1, size)[:_MOST_ROWS], ours.reshape(-1, size)[:_MOST_ROWS])
    for name, normal in _norms(rows):
        found = [_epsilon(normal, y, tolerance) for y in pairs]
        if all(found) and found[0] != found[1]:
            return f"a {name} of epsilon {found[0]:g} in the source and {found[1]:g} in ours"
    return ""


def _norms(rows: np.ndarray) -> Iterator[tuple[str, _Norm]]:
    centred = rows - rows.mean(1, keepdims=True)
    yield "LayerNorm", _Norm(centred, (centred**2).mean(1, keepdims=True), has_bias=True)
    yield "RMSNorm", _Norm(rows, (rows**2).mean(1, keepdims=True), has_bias=False)


class _Norm:
    """Rows and the squares that they are divided by, before scale and bias."""

    def __init__(self, rows: np.ndarray, squares: np.ndarray, has_bias: bool):
        self.rows, self.squares, self.has_bias = rows, squares, has_bias

    def residual(self, y: np.ndarray, epsilon: float) -> float:
        """The largest error that is left by the best scale and bias of each channel."""
        x = self.rows / np.sqrt(self.squares + epsilon)
        if self.has_bias:
            x, y = x - x.mean(0), y - y.mean(0)
        square = (x**2).sum(0)
        scale = np.divide((x * y).sum(0), square, out=np.zeros_like(square), where=square > 0)
        return float(np.abs(y - scale * x).max())


def _epsilon(norm: _Norm, y: np.ndarray, tolerance: float) -> float:
    """The epsilon that explains the numbers clearly better than any other; 0.0 if none does."""
    residuals = {epsilon: norm.residual(y, epsilon) for epsilon in _EPSILONS}
    best = min(residuals, key=lambda epsilon: residuals[epsilon])
    others = [residual for epsilon, residual in residuals.items() if epsilon != best]
    if residuals[best] > tolerance or min(others) < 2 * residuals[best]:
        return 0.0
    return best
