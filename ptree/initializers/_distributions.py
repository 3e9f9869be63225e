"""Initialisers with a distribution of their own: normal, truncated, uniform, mixture, sparse."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._errors import InitError
from .._words import name_of
from ._initializer import Initializer, called, drawn_in, number


def normal(stddev: float = 0.01, mean: float = 0.0) -> Initializer:
    """Gaussian with this standard deviation and mean.

    >>> normal(0.02)
    normal(0.02)

    Raises:
        InitError: a `stddev` that is negative or not finite.
    """
    stddev, mean = number("stddev", stddev, 0), number("mean", mean)
    return Initializer(called("normal", stddev, mean=(mean, 0.0)), draw_normal, (stddev, mean))


def draw_normal(key: Any, shape: Any, dtype: Any, stddev: Any, mean: Any = 0.0) -> Any:
    """The draw of `normal`, also for what scales it by the shape."""
    drawn = jax.nn.initializers.normal(stddev)(key, shape, drawn_in(dtype))
    return _moved(drawn, mean).astype(dtype)


def truncated_normal(stddev: float = 0.01, mean: float = 0.0, lower: float = -2.0, upper: float = 2.0) -> Initializer:
    """Gaussian cut at `lower` and `upper` standard deviations from the mean.

    `stddev` is that of the Gaussian *before* the cut, as in Flax and in PyTorch's `trunc_normal_` (whose
    `a` and `b` are absolute); after a cut at 2 the spread is 0.88 of it. `trunc_normal` takes the spread after.

    >>> truncated_normal(0.02)
    truncated_normal(0.02)

    Raises:
        InitError: a `stddev` that is negative or not finite, or a cut that leaves less than a millionth.
    """
    return _cut_normal("truncated_normal", stddev, mean, lower, upper, lambda stddev, mean, *_: (stddev, mean))


def trunc_normal(stddev: float = 0.01, mean: float = 0.0, lower: float = -2.0, upper: float = 2.0) -> Initializer:
    """Cut Gaussian whose true spread and mean, *after* the cut, are `stddev` and `mean`.

    `lower` and `upper` are in standard deviations of the Gaussian before the cut, which is widened by
    1 / 0.88 for a cut at 2.

    >>> trunc_normal(0.02)
    trunc_normal(0.02)

    Raises:
        InitError: a `stddev` that is negative or not finite, or a cut that leaves less than a millionth.
    """

    def before(stddev: Any, mean: Any, moved: float, spread: float) -> Any:
        return stddev / spread, mean - moved * stddev / spread

    return _cut_normal("trunc_normal", stddev, mean, lower, upper, before)


def _cut_normal(
    name: str, stddev: Any, mean: Any, lower: float, upper: float, before: Callable[..., Any]
) -> Initializer:
    if not lower < upper:
        raise InitError(f"lower must be below upper, got {lower} and {upper}")
    moments = _moments(float(lower), float(upper))
    stddev, mean = number("stddev", stddev, 0), number("mean", mean)
    text = called(name, stddev, mean=(mean, 0.0), lower=(lower, -2.0), upper=(upper, 2.0))
    return Initializer(text, _truncated_normal, (*before(stddev, mean, *moments), float(lower), float(upper)))


def _moments(low: float, high: float) -> tuple[float, float]:
    """Mean and standard deviation of a unit Gaussian between two cuts (Johnson, Kotz and Balakrishnan 1994, 13.10)."""

    def density(x: float) -> float:
        return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)

    share = (math.erf(high / math.sqrt(2)) - math.erf(low / math.sqrt(2))) / 2
    if not share > 1e-6:
        raise InitError(f"between {low} and {high} standard deviations lies less than a millionth of a Gaussian")
    mean = (density(low) - density(high)) / share
    edges = [x * density(x) if math.isfinite(x) else 0.0 for x in (low, high)]
    return mean, math.sqrt(1 + (edges[0] - edges[1]) / share - mean**2)


def _truncated_normal(key: Any, shape: Any, dtype: Any, stddev: Any, mean: Any, lower: Any, upper: Any) -> Any:
    draw = jax.nn.initializers.truncated_normal(stddev, lower=lower, upper=upper)
    return _moved(draw(key, shape, drawn_in(dtype)), mean).astype(dtype)


def _moved(draw: Any, mean: Any) -> Any:
    return draw if isinstance(mean, (int, float)) and mean == 0 else draw + jnp.asarray(mean, draw.dtype)


def uniform(low: float = 0.0, high: float = 1.0) -> Initializer:
    """Uniform in [low, high).

    >>> uniform(-0.1, 0.1)
    uniform(-0.1, 0.1)

    Raises:
        InitError: a `low` above `high`, or one that is not finite.
    """
    low, high = number("low", low), number("high", high)
    if isinstance(low, (int, float)) and isinstance(high, (int, float)) and low > high:
        raise InitError(f"low must be at most high, got {low} and {high}")
    return Initializer(called("uniform", low, high), draw_uniform, (low, high))


def draw_uniform(key: Any, shape: Any, dtype: Any, low: Any, high: Any) -> Any:
    """The draw of `uniform`, also for what scales it by the shape."""
    return jax.random.uniform(key, shape, drawn_in(dtype), low, high).astype(dtype)


def mixture(*parts: tuple[float, Callable[..., Any]]) -> Initializer:
    """For each element one of several initialisers, each with its share: (share, initialiser) pairs.

    >>> mixture((0.25, uniform(5, 10)), (0.75, uniform(-10, -5)))
    mixture((0.25, uniform(5, 10)), (0.75, uniform(-10, -5)))

    Each part draws the whole shape, with a key of its own.

    Raises:
        InitError: shares that are negative or do not add up to 1, or a part that is no function.
    """
    if not parts or not all(isinstance(pair, tuple) and len(pair) == 2 and callable(pair[1]) for pair in parts):
        raise InitError("mixture takes (share, initialiser) pairs, such as (0.5, zeros)")
    shares = [share for share, _ in parts]
    if not min(shares) >= 0 or not math.isclose(sum(shares), 1):
        raise InitError(f"the shares of a mixture must be at least 0 and add up to 1, got {shares}")
    text = f"mixture({', '.join(f'({share}, {name_of(part)})' for share, part in parts)})"
    return Initializer(
        text, _mixture, tuple(option for pair in parts for option in pair), parts=tuple(part for _, part in parts)
    )


def _mixture(key: Any, shape: Any, dtype: Any, *options: Any) -> Any:
    shares, parts = options[::2], options[1::2]
    chance, *own = jax.random.split(key, len(parts) + 1)
    at = jax.random.uniform(chance, shape, jnp.float32)
    values = [part(k, shape, dtype) for part, k in zip(parts, own, strict=True)]
    bounds = np.cumsum(shares)[:-1].astype(np.float32)
    return jnp.select([at < bound for bound in bounds], values[:-1], values[-1])


def sparse(sparsity: float, stddev: float = 0.01) -> Initializer:
    """Gaussian (in, out) kernel in which each input has this share of its weights set to 0 (Martens 2010).

    >>> sparse(0.5)(jax.random.key(0), (3, 4)).astype(bool).sum(1).tolist()
    [2, 2, 2]

    Like `torch.nn.init.sparse_`, whose weight is (out, in).

    Raises:
        InitError: a `sparsity` outside of 0 to 1; other than 2 axes, when it draws.
    """
    if not 0 <= sparsity <= 1:
        raise InitError(f"sparsity must be from 0 to 1, got {sparsity}")
    stddev = number("stddev", stddev, 0)
    return Initializer(called("sparse", sparsity, stddev=(stddev, 0.01)), _sparse, (sparsity, stddev))


def _sparse(key: Any, shape: Any, dtype: Any, sparsity: Any, stddev: Any) -> Any:
    if len(shape) != 2:
        raise InitError(f"sparse needs 2 axes, (in, out); the shape has {len(shape)}")
    values, places = jax.random.split(key)
    rank = jnp.argsort(jax.random.uniform(places, shape, jnp.float32), axis=1)  # for each input a permutation
    kept = rank >= math.ceil(sparsity * shape[1])
    return jnp.where(kept, draw_normal(values, shape, dtype, stddev), jnp.zeros((), dtype))
