"""Initialisers: functions `(key, shape, dtype) -> array`, those of `jax.nn.initializers` under the field's names.

`zeros` and `ones` are initialisers as they stand; the others are called with their options first. Each
says by its `repr` what it will do, and two with equal options are equal, so they share one compiled draw.

Kernels are `(in, out)` or `(spatial..., in, out)`: fan_in is the second last axis, and fan_out the last,
each times the product of the axes before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ._leaf import describe

__all__ = [
    "constant", "glorot_normal", "glorot_uniform", "he_normal", "he_uniform", "identity", "kaiming_normal",
    "kaiming_uniform", "lecun_normal", "lecun_uniform", "normal", "ones", "orthogonal", "truncated_normal",
    "uniform", "xavier_normal", "xavier_uniform", "zeros",
]  # fmt: skip


@dataclass(frozen=True, repr=False, eq=False)
class Initializer:
    """An initialiser that says what it does; two with the same function and options are equal."""

    text: str
    draw: Callable[..., Any]
    options: tuple[Any, ...] = ()

    def __call__(self, key: Any, shape: Sequence[int], dtype: Any = jnp.float32) -> Any:
        return self.draw(key, tuple(shape), dtype, *self.options)

    @property
    def holds_array(self) -> bool:
        """Whether an option is an array, which should not become a constant of a compiled program."""
        return any(hasattr(option, "shape") for option in self.options)

    def __repr__(self) -> str:
        return self.text

    def __eq__(self, other: object) -> bool:
        if self is other or not isinstance(other, Initializer):
            return self is other
        if self.holds_array or other.holds_array:
            return False
        return (self.draw, self.text, self.options) == (other.draw, other.text, other.options)

    def __hash__(self) -> int:
        return id(self) if self.holds_array else hash((self.draw, self.text, self.options))


# ------------------------------------------------------------------------- fixed values


def _constant(key: Any, shape: Any, dtype: Any, value: Any) -> Any:
    return jnp.broadcast_to(jnp.asarray(value, dtype), shape)


zeros = Initializer("zeros", _constant, (0,))
"""All 0, as it stands: `{"**/bias": zeros}`."""

ones = Initializer("ones", _constant, (1,))
"""All 1, as it stands: `{"**/scale": ones}`."""


def constant(value: Any) -> Initializer:
    """Every element is the value; an array is broadcast to the shape.

    >>> constant(42)
    constant(42)
    """
    scalar = isinstance(value, (bool, int, float, complex))
    return Initializer(f"constant({value if scalar else describe(value)})", _constant, (value,))


def identity(gain: float = 1.0) -> Initializer:
    """`gain` on the diagonal of an (in, out) kernel, else 0; raises ValueError for other than 2 axes.

    >>> identity()(jax.random.key(0), (2, 3)).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """
    return Initializer(f"identity({'' if gain == 1 else gain})", _identity, (gain,))


def _identity(key: Any, shape: Any, dtype: Any, gain: Any) -> Any:
    if len(shape) != 2:
        raise ValueError(f"identity needs 2 axes, (in, out); the shape has {len(shape)}")
    return jnp.asarray(gain, dtype) * jnp.eye(*shape, dtype=dtype)


# ------------------------------------------------------------------------ distributions


def normal(stddev: float = 0.01, mean: float = 0.0) -> Initializer:
    """Gaussian with this standard deviation and mean.

    >>> normal(0.02)
    normal(0.02)
    """
    return Initializer(f"normal({_shown(stddev, mean=mean)})", _normal, (stddev, mean))


def _normal(key: Any, shape: Any, dtype: Any, stddev: Any, mean: Any) -> Any:
    return _moved(jax.nn.initializers.normal(stddev)(key, shape, dtype), mean)


def truncated_normal(stddev: float = 0.01, mean: float = 0.0, lower: float = -2.0, upper: float = 2.0) -> Initializer:
    """Gaussian cut at `lower` and `upper` standard deviations from the mean.

    `stddev` is that of the Gaussian before the cut, as in Flax and in PyTorch's `trunc_normal_` (whose
    `a` and `b` are absolute); after a cut at 2 the spread is 0.88 of it.

    >>> truncated_normal(0.02)
    truncated_normal(0.02)
    """
    cut = "" if (lower, upper) == (-2.0, 2.0) else f", lower={lower}, upper={upper}"
    text = f"truncated_normal({_shown(stddev, mean=mean)}{cut})"
    return Initializer(text, _truncated_normal, (stddev, mean, lower, upper))


def _truncated_normal(key: Any, shape: Any, dtype: Any, stddev: Any, mean: Any, lower: Any, upper: Any) -> Any:
    return _moved(jax.nn.initializers.truncated_normal(stddev, lower=lower, upper=upper)(key, shape, dtype), mean)


def _moved(draw: Any, mean: Any) -> Any:
    return draw + jnp.asarray(mean, draw.dtype) if mean else draw


def _shown(first: Any, mean: Any) -> str:
    return f"{first}, mean={mean}" if mean else str(first)


def uniform(low: float = 0.0, high: float = 1.0) -> Initializer:
    """Uniform in [low, high).

    >>> uniform(-0.1, 0.1)
    uniform(-0.1, 0.1)
    """
    return Initializer(f"uniform({low}, {high})", _uniform, (low, high))


def _uniform(key: Any, shape: Any, dtype: Any, low: Any, high: Any) -> Any:
    return jax.random.uniform(key, shape, dtype, low, high)


def orthogonal(gain: float = 1.0) -> Initializer:
    """`gain` times a matrix with orthonormal rows or columns, over the last axis and all others (Saxe et al. 2013)."""
    return Initializer(f"orthogonal({'' if gain == 1 else gain})", _orthogonal, (gain,))


def _orthogonal(key: Any, shape: Any, dtype: Any, gain: Any) -> Any:
    return jax.nn.initializers.orthogonal(gain)(key, shape, dtype)


# --------------------------------------------------------------- scaled by fan_in, fan_out


def _scaled(key: Any, shape: Any, dtype: Any, scale: Any, mode: Any, distribution: Any) -> Any:
    return jax.nn.initializers.variance_scaling(scale, mode, distribution)(key, shape, dtype)


def xavier_uniform() -> Initializer:
    """Uniform in +-sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010); also `glorot_uniform`."""
    return Initializer("xavier_uniform()", _scaled, (1.0, "fan_avg", "uniform"))


def xavier_normal() -> Initializer:
    """Gaussian with the variance 2 / (fan_in + fan_out) (Glorot and Bengio 2010); also `glorot_normal`.

    Like jax's and Flax's it is cut at two standard deviations and then widened to just that variance.
    """
    return Initializer("xavier_normal()", _scaled, (1.0, "fan_avg", "truncated_normal"))


def kaiming_uniform() -> Initializer:
    """Uniform in +-sqrt(6 / fan_in), for layers before a ReLU (He et al. 2015); also `he_uniform`."""
    return Initializer("kaiming_uniform()", _scaled, (2.0, "fan_in", "uniform"))


def kaiming_normal() -> Initializer:
    """Gaussian with the variance 2 / fan_in, for layers before a ReLU (He et al. 2015); also `he_normal`.

    Like jax's and Flax's it is cut at two standard deviations and then widened to just that variance.
    """
    return Initializer("kaiming_normal()", _scaled, (2.0, "fan_in", "truncated_normal"))


def lecun_uniform() -> Initializer:
    """Uniform in +-sqrt(3 / fan_in) (LeCun et al. 1998)."""
    return Initializer("lecun_uniform()", _scaled, (1.0, "fan_in", "uniform"))


def lecun_normal() -> Initializer:
    """Gaussian with the variance 1 / fan_in (LeCun et al. 1998), cut at two standard deviations and widened to that."""
    return Initializer("lecun_normal()", _scaled, (1.0, "fan_in", "truncated_normal"))


glorot_uniform, glorot_normal = xavier_uniform, xavier_normal
he_uniform, he_normal = kaiming_uniform, kaiming_normal
