"""Initialisers that draw from one distribution for every shape: Gaussian (normal), cut (truncated), uniform, mixture, sparse."""

from __future__ import annotations

import math
from numbers import Real

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from .._errors import InitError
from .._words import describe, name_of
from ._dtypes import drawn_in
from ._options import Number, called, number
from ._recipe import Initializer, Recipe


def normal(stddev: Number = 0.01, mean: Number = 0.0) -> Recipe:
    """Gaussian with this standard deviation and mean.

    >>> normal(0.02)
    normal(0.02)

    Raises:
        InitError: a `stddev` that is negative or not finite.
    """
    stddev, mean = number("stddev", stddev, 0), number("mean", mean)
    return Recipe(called("normal", stddev, mean=(mean, 0.0)), draw_normal, (stddev, mean))


def draw_normal(
    key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike, stddev: Number, mean: Number = 0.0
) -> jax.Array:
    """Draw Gaussian numbers with this standard deviation and mean."""
    noise = jax.nn.initializers.normal(stddev)(key, shape, drawn_in(dtype))
    return _shifted(noise, mean).astype(dtype)


def truncated_normal(stddev: Number = 0.01, mean: Number = 0.0, lower: float = -2.0, upper: float = 2.0) -> Recipe:
    """Gaussian cut at `lower` and `upper` standard deviations from the mean.

    `stddev` is that of the Gaussian *before* the cut, as in Flax and in PyTorch's `trunc_normal_` (whose
    `a` and `b` are absolute); after a cut at 2 the spread is 0.88 of it. `trunc_normal` takes the spread after.

    >>> truncated_normal(0.02)
    truncated_normal(0.02)

    Raises:
        InitError: a `stddev` that is negative or not finite, or a cut that leaves less than a millionth.
    """
    _cut_moments(lower, upper)  # raises for cuts that make no sense
    stddev, mean = number("stddev", stddev, 0), number("mean", mean)
    text = called("truncated_normal", stddev, mean=(mean, 0.0), lower=(lower, -2.0), upper=(upper, 2.0))
    return Recipe(text, _draw_truncated, (stddev, mean, float(lower), float(upper)))


def trunc_normal(stddev: Number = 0.01, mean: Number = 0.0, lower: float = -2.0, upper: float = 2.0) -> Recipe:
    """Cut Gaussian whose true spread and mean, *after* the cut, are `stddev` and `mean`.

    `lower` and `upper` are in standard deviations of the Gaussian before the cut, which is widened by
    1 / 0.88 for a cut at 2.

    >>> trunc_normal(0.02)
    trunc_normal(0.02)

    Raises:
        InitError: a `stddev` that is negative or not finite, or a cut that leaves less than a millionth.
    """
    cut_mean, cut_stddev = _cut_moments(lower, upper)
    stddev, mean = number("stddev", stddev, 0), number("mean", mean)
    text = called("trunc_normal", stddev, mean=(mean, 0.0), lower=(lower, -2.0), upper=(upper, 2.0))
    before_cut = stddev / cut_stddev, mean - cut_mean * stddev / cut_stddev
    return Recipe(text, _draw_truncated, (*before_cut, float(lower), float(upper)))


def _cut_moments(lower: float, upper: float) -> tuple[float, float]:
    """Mean and standard deviation of a unit Gaussian that is cut at both ends (Johnson, Kotz and Balakrishnan 1994, 13.10).

    Raises:
        InitError: cuts that are no numbers, not in order, or with nearly nothing between them.
    """
    # arrays are refused: the share between the cuts is computed now, on the host
    if not (isinstance(lower, Real) and isinstance(upper, Real)):
        raise InitError(f"lower and upper must be numbers, got {describe(lower)} and {describe(upper)}")
    if not lower < upper:
        raise InitError(f"lower must be below upper, got {lower} and {upper}")
    share = (math.erf(upper / math.sqrt(2)) - math.erf(lower / math.sqrt(2))) / 2
    # below a millionth, the difference of two values of `erf` has lost too many digits; `not` also catches NaN
    if not share > 1e-6:
        raise InitError(
            f"between {float(lower)} and {float(upper)} standard deviations lies less than a millionth of a Gaussian"
        )
    mean = (_density(lower) - _density(upper)) / share
    # at an infinite cut the product is 0, and inf * 0 would be NaN
    below = lower * _density(lower) if math.isfinite(lower) else 0.0
    above = upper * _density(upper) if math.isfinite(upper) else 0.0
    return mean, math.sqrt(1 + (below - above) / share - mean**2)


def _density(x: float) -> float:
    """The density of a unit Gaussian."""
    return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def _draw_truncated(
    key: jax.Array,
    shape: tuple[int, ...],
    dtype: DTypeLike,
    stddev: Number,
    mean: Number,
    lower: float,
    upper: float,
) -> jax.Array:
    noise = jax.nn.initializers.truncated_normal(stddev, lower=lower, upper=upper)(key, shape, drawn_in(dtype))
    return _shifted(noise, mean).astype(dtype)


def _shifted(noise: jax.Array, mean: Number) -> jax.Array:
    """Shift Gaussian noise to this mean."""
    # a mean of 0 adds nothing, as an addition would turn -0.0 into 0.0; arrays may be tracers, whose value is unknown
    if isinstance(mean, (int, float)) and mean == 0:
        return noise
    return noise + jnp.asarray(mean, noise.dtype)


def uniform(low: Number = 0.0, high: Number = 1.0) -> Recipe:
    """Uniform in [low, high).

    >>> uniform(-0.1, 0.1)
    uniform(-0.1, 0.1)

    Raises:
        InitError: a `low` above `high`, or one that is not finite.
    """
    low, high = number("low", low), number("high", high)
    # arrays may be tracers, whose value is unknown
    if isinstance(low, (int, float)) and isinstance(high, (int, float)) and low > high:
        raise InitError(f"low must be at most high, got {low} and {high}")
    return Recipe(called("uniform", low, high), draw_uniform, (low, high))


def draw_uniform(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike, low: Number, high: Number) -> jax.Array:
    """Draw numbers uniform in [low, high)."""
    return jax.random.uniform(key, shape, drawn_in(dtype), low, high).astype(dtype)


def mixture(*parts: tuple[float, Initializer]) -> Recipe:
    """For each element one of several initialisers, each with its share: (share, initialiser) pairs.

    >>> mixture((0.25, uniform(5, 10)), (0.75, uniform(-10, -5)))
    mixture((0.25, uniform(5, 10)), (0.75, uniform(-10, -5)))

    Each part draws the whole shape, with a key of its own.

    Raises:
        InitError: shares that are negative or do not add up to 1, or a part that is no function.
    """
    if not parts or not all(map(_is_share, parts)):
        raise InitError("mixture takes (share, initialiser) pairs, such as (0.5, zeros)")
    shares = [share for share, _ in parts]
    # `isclose`: 0.7 + 0.2 + 0.1 is not just 1 in floats; `not >=` also catches NaN
    if not min(shares) >= 0 or not math.isclose(sum(shares), 1):
        raise InitError(f"the shares of a mixture must be at least 0 and add up to 1, got {shares}")
    text = ", ".join(f"({share}, {name_of(part)})" for share, part in parts)
    initializers = tuple(initializer for _, initializer in parts)
    return Recipe(f"mixture({text})", _draw_mixture, (tuple(shares), initializers), parts=initializers)


def _is_share(pair: object) -> bool:
    """Whether this is a part of a mixture, a (share, initialiser) pair."""
    if not isinstance(pair, tuple) or len(pair) != 2:
        return False
    share, initializer = pair
    return isinstance(share, Real) and callable(initializer)


def _draw_mixture(
    key: jax.Array,
    shape: tuple[int, ...],
    dtype: DTypeLike,
    shares: tuple[float, ...],
    initializers: tuple[Initializer, ...],
) -> jax.Array:
    choice_key, *keys = jax.random.split(key, len(initializers) + 1)
    # in float32 whatever the leaf is: bfloat16 has too few numbers for small shares
    choice = jax.random.uniform(choice_key, shape, jnp.float32)
    values = [draw(own_key, shape, dtype) for draw, own_key in zip(initializers, keys, strict=True)]
    # the last part takes what is left, so that rounding of the sum leaves no gap
    bounds = np.cumsum(shares)[:-1].astype(np.float32)
    return jnp.select([choice < bound for bound in bounds], values[:-1], values[-1])


def sparse(sparsity: float, stddev: Number = 0.01) -> Recipe:
    """Gaussian (in, out) kernel in which each input has this share of its weights set to 0 (Martens 2010).

    >>> sparse(0.5)(jax.random.key(0), (3, 4)).astype(bool).sum(1).tolist()
    [2, 2, 2]

    Like `torch.nn.init.sparse_`, whose weight is (out, in).

    Raises:
        InitError: a `sparsity` outside of 0 to 1; other than 2 axes, when it draws.
    """
    if not isinstance(sparsity, Real) or not 0 <= sparsity <= 1:
        raise InitError(f"sparsity must be a number from 0 to 1, got {describe(sparsity)}")
    stddev = number("stddev", stddev, 0)
    return Recipe(called("sparse", sparsity, stddev=(stddev, 0.01)), _draw_sparse, (sparsity, stddev))


def _draw_sparse(
    key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike, sparsity: float, stddev: Number
) -> jax.Array:
    if len(shape) != 2:
        raise InitError(f"sparse needs 2 axes, (in, out); the shape has {len(shape)}")
    value_key, order_key = jax.random.split(key)
    # a permutation for each input, so that just this share is 0; a mask of chance would only be near it
    random_order = jnp.argsort(jax.random.uniform(order_key, shape, jnp.float32), axis=1)
    kept = random_order >= math.ceil(sparsity * shape[1])
    return jnp.where(kept, draw_normal(value_key, shape, dtype, stddev), jnp.zeros((), dtype))
