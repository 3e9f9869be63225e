"""Initialisers that draw from one distribution for every shape: Gaussian (normal), cut (truncated), uniform, mixture of
shares, sparse; shift noise."""

from __future__ import annotations

import math
from numbers import Real
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr, ndtri
from jax.typing import DTypeLike

from .._errors import InitError
from .._words import describe, name_of
from ._dtypes import Bounds, Scalar, closed, drawn_in, half_open, real_drawn_in, refuse_overflow, scalar
from ._options import Number, RealNumber, called, factory, is_array, number, real, real_part, refuse_factory, scale
from ._recipe import Draw, Initializer, Recipe, draw_of


def _furthest(wide: np.dtype) -> float:
    """How many standard deviations a Gaussian number drawn in this dtype is from 0 at most, rounded up."""
    return 5.5 if wide.itemsize == 4 or wide == jnp.complex64 else 8.5


@factory
def normal(stddev: Number = 0.01, mean: Number = 0.0) -> Recipe:
    """Gaussian with this standard deviation and mean.

    >>> normal(0.02)
    normal(0.02)

    A complex leaf gets complex numbers whose real and imaginary parts share the variance.

    Args:
        stddev: the standard deviation, a number or an array that broadcasts to the shape.
        mean: the mean.

    Raises:
        InitError: a `stddev` that is negative or not finite; a dtype that overflows, when it draws.
    """
    stddev, mean = number("stddev", stddev, 0), scale("mean", mean)
    return Recipe(called("normal", stddev, mean=(mean, 0.0)), plan_normal, (stddev, mean))


def plan_normal(shape: tuple[int, ...], dtype: DTypeLike, stddev: RealNumber, mean: Number = 0.0) -> Draw:
    """Plan to draw Gaussian numbers with this standard deviation and mean."""
    wide = drawn_in(dtype)
    centre, furthest = real_part(mean), _furthest(wide) * stddev
    refuse_overflow(centre - furthest, centre + furthest, dtype)
    return Draw(_draw_normal, (scalar(stddev, wide), _shift(mean, wide)))


def _draw_normal(
    key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike, stddev: Scalar, mean: Scalar | None
) -> jax.Array:
    noise = jax.random.normal(key, shape, drawn_in(dtype)) * stddev
    return _shifted(noise, mean).astype(dtype)


def _shift(mean: Number, wide: np.dtype) -> Scalar | None:
    """The mean to add to noise; None for 0, as an addition would turn -0.0 into 0.0."""
    return None if not is_array(mean) and mean == 0 else scalar(mean, wide)


def _shifted(noise: jax.Array, mean: Scalar | None) -> jax.Array:
    """Shift noise to this mean."""
    return noise if mean is None else noise + mean


# --------------------------------------------------------------------- cut Gaussians


@factory
def truncated_normal(stddev: Number = 0.01, mean: Number = 0.0, lower: float = -2.0, upper: float = 2.0) -> Recipe:
    """Gaussian cut at `lower` and `upper` standard deviations from the mean; `stddev` is that *before* the cut.

    >>> truncated_normal(0.02)
    truncated_normal(0.02)

    So it is in JAX, Flax, Keras and PyTorch, whose `trunc_normal_` takes absolute `a` and `b` in place of `lower` and
    `upper`. After a cut at 2 the standard deviation is 0.88 of `stddev`; of `rescaled_truncated_normal` it is `stddev` after the cut.

    Args:
        stddev: the standard deviation before the cut.
        mean: the mean.
        lower: the lower cut, in standard deviations from the mean.
        upper: the upper cut.

    Raises:
        InitError: a `stddev` that is negative or not finite, or a cut that leaves less than a millionth.
    """
    _cut_moments(lower, upper)  # raises for cuts that make no sense
    stddev, mean = number("stddev", stddev, 0), number("mean", mean)
    text = called("truncated_normal", stddev, mean=(mean, 0.0), lower=(lower, -2.0), upper=(upper, 2.0))
    return Recipe(text, plan_truncated, (stddev, mean, float(lower), float(upper)))


@factory
def rescaled_truncated_normal(
    stddev: Number = 0.01, mean: Number = 0.0, lower: float = -2.0, upper: float = 2.0
) -> Recipe:
    """Cut Gaussian whose standard deviation and mean *after* the cut are `stddev` and `mean`.

    >>> rescaled_truncated_normal(0.02)
    rescaled_truncated_normal(0.02)

    `lower` and `upper` are in standard deviations of the Gaussian before the cut, which is widened by
    1 / 0.88 for a cut at 2: so do the `lecun_normal` and `he_normal` of JAX and Keras.

    Args:
        stddev: the standard deviation after the cut.
        mean: the mean after the cut.
        lower: the lower cut, in standard deviations from the mean.
        upper: the upper cut.

    Raises:
        InitError: a `stddev` that is negative or not finite, or a cut that leaves less than a millionth.
    """
    cut_mean, cut_stddev = _cut_moments(lower, upper)
    stddev, mean = number("stddev", stddev, 0), number("mean", mean)
    text = called("rescaled_truncated_normal", stddev, mean=(mean, 0.0), lower=(lower, -2.0), upper=(upper, 2.0))
    before_cut = stddev / cut_stddev, mean - cut_mean * stddev / cut_stddev
    return Recipe(text, plan_truncated, (*before_cut, float(lower), float(upper)))


def _cut_moments(lower: float, upper: float) -> tuple[float, float]:
    """Mean and standard deviation of a unit Gaussian that is cut at both ends (Johnson, Kotz and Balakrishnan 1994, 13.10).

    Raises:
        InitError: cuts that are no numbers, not in order, or with nearly nothing between them.
    """
    # arrays are refused: the share between the cuts is computed now, on the host
    if not (_is_cut(lower) and _is_cut(upper)):
        raise InitError(f"lower and upper must be numbers, got {describe(lower)} and {describe(upper)}")
    if not lower < upper:
        raise InitError(f"lower must be below upper, got {lower} and {upper}; the order is stddev, mean, lower, upper")
    share = _share(lower, upper)
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


def _is_cut(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _share(lower: float, upper: float) -> float:
    """The share of a unit Gaussian that lies between two cuts."""
    return (math.erf(upper / math.sqrt(2)) - math.erf(lower / math.sqrt(2))) / 2


def _density(x: float) -> float:
    """The density of a unit Gaussian."""
    return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


_SHARE_IN_TAIL = 1 / 512
"""Between cuts with a smaller share, erf in float32 has fewer than 65,536 values."""

_FURTHEST_IN_TAIL = 9.0
"""How many standard deviations a number beyond the farthest cut that is allowed is from 0 at most, rounded up."""


def plan_truncated(
    shape: tuple[int, ...], dtype: DTypeLike, stddev: RealNumber, mean: RealNumber, lower: float, upper: float
) -> Draw:
    """Plan to draw Gaussian numbers cut at this many standard deviations before the cut."""
    wide = real_drawn_in(dtype)
    in_tail = _share(lower, upper) < _SHARE_IN_TAIL and lower * upper > 0
    furthest = _FURTHEST_IN_TAIL if in_tail else _furthest(wide)
    # finite: infinity times a stddev of 0 is NaN
    low = mean + stddev * max(lower, -furthest)
    high = mean + stddev * min(upper, furthest)
    refuse_overflow(low, high, dtype)
    cuts = _Cuts.of(lower, upper, wide)
    draw = _draw_tail if in_tail else _draw_truncated
    return Draw(draw, (scalar(stddev, wide), _shift(mean, wide), cuts, closed(low, high, dtype)))


class _Cuts(NamedTuple):
    """Where a Gaussian is cut, and the uniform numbers that erf makes of the cuts, in the dtype that is drawn in."""

    lower: Scalar
    upper: Scalar
    erf_of_lower: Scalar
    erf_of_upper: Scalar

    @classmethod
    def of(cls, lower: float, upper: float, wide: np.dtype) -> _Cuts:
        """Compute them on the host: erf of a device is off by some last bits, and that would change every draw."""
        cuts = np.asarray([lower, upper], wide)
        erfs = [math.erf(cut) for cut in cuts / np.sqrt(2).astype(wide)]
        return cls(*cuts, *np.asarray(erfs, wide))


def _draw_truncated(
    key: jax.Array,
    shape: tuple[int, ...],
    dtype: DTypeLike,
    stddev: Scalar,
    mean: Scalar | None,
    cuts: _Cuts,
    bounds: Bounds,
) -> jax.Array:
    # as `jax.random.truncated_normal`, bit by bit, but for the ends of erf
    wide = drawn_in(dtype)
    uniform = jax.random.uniform(key, shape, wide, cuts.erf_of_lower, cuts.erf_of_upper)
    # erf is 1 from 5.5 on, and the inverse of 1 is infinite: it would be drawn as the cut, however far that is
    end = np.asarray(1 - jnp.finfo(wide).epsneg, wide)
    noise = np.sqrt(2).astype(wide) * jax.lax.erf_inv(jnp.clip(uniform, -end, end))
    infinity = np.asarray(np.inf, wide)
    inside = jnp.clip(noise, jax.lax.nextafter(cuts.lower, infinity), jax.lax.nextafter(cuts.upper, -infinity))
    return bounds.round(_shifted(inside * stddev, mean), dtype)


def _draw_tail(
    key: jax.Array,
    shape: tuple[int, ...],
    dtype: DTypeLike,
    stddev: Scalar,
    mean: Scalar | None,
    cuts: _Cuts,
    bounds: Bounds,
) -> jax.Array:
    """Draw between two cuts far out on one side, where float32 has more numbers for 1 - erf than for erf."""
    side = jnp.sign(cuts.lower + cuts.upper)
    near = jnp.minimum(abs(cuts.lower), abs(cuts.upper))
    far = jnp.maximum(abs(cuts.lower), abs(cuts.upper))
    share = jax.random.uniform(key, shape, drawn_in(dtype), ndtr(-far), ndtr(-near))
    noise = -side * ndtri(share)
    return bounds.round(_shifted(noise * stddev, mean), dtype)


# --------------------------------------------------------------------------- uniform


@factory
def uniform(low: Number | None = None, high: Number | None = None) -> Recipe:
    """Uniform in [low, high); in [0, 1) without arguments.

    >>> uniform(-0.1, 0.1), uniform(high=0.1)
    (uniform(-0.1, 0.1), uniform(0.0, 0.1))

    `high` is never drawn, also where rounding to the dtype of the leaf would give it. One number alone is refused:
    JAX's `uniform(0.1)` is [0, 0.1), Keras' `RandomUniform(0.1)` starts at 0.1.

    Args:
        low: the least number that is drawn.
        high: the bound that no number reaches.

    Raises:
        InitError: `low` alone; a `low` above `high`, or one that is not finite.
    """
    if low is not None and high is None:
        raise InitError(
            f"uniform takes both ends, and got low={describe(low)} alone: uniform(0, {describe(low)}) is JAX's"
            f" uniform({describe(low)}); uniform({describe(low)}, 1) goes up to 1"
        )
    least, end = number("low", 0.0 if low is None else low), number("high", 1.0 if high is None else high)
    # arrays may be tracers, whose value is unknown
    if not is_array(least) and not is_array(end) and least > end:
        raise InitError(f"low must be at most high, got {least} and {end}")
    return Recipe(called("uniform", least, end), plan_uniform, (least, end))


def plan_uniform(shape: tuple[int, ...], dtype: DTypeLike, low: RealNumber, high: RealNumber) -> Draw:
    """Plan to draw numbers uniform in [low, high)."""
    wide = real_drawn_in(dtype)
    return Draw(_draw_uniform, (scalar(low, wide), scalar(high, wide), half_open(low, high, dtype)))


def _draw_uniform(
    key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike, low: Scalar, high: Scalar, bounds: Bounds
) -> jax.Array:
    return bounds.round(jax.random.uniform(key, shape, drawn_in(dtype), low, high), dtype)


# ---------------------------------------------------------------- mixtures, sparse kernels


@factory
def mixture(*parts: tuple[float, Initializer]) -> Recipe:
    """For each element one of several initialisers, each with its share: (share, initialiser) pairs.

    >>> mixture((0.25, uniform(5, 10)), (0.75, uniform(-10, -5)))
    mixture((0.25, uniform(5, 10)), (0.75, uniform(-10, -5)))

    Each part draws the whole shape, with a key of its own.

    Args:
        *parts: pairs (share, initialiser); the shares add up to 1.

    Raises:
        InitError: shares that are negative or do not add up to 1, or a part that is no function.
    """
    if not parts or not all(map(_is_share, parts)):
        raise InitError("mixture takes (share, initialiser) pairs, such as (0.5, zeros)")
    shares = [real("the share of a mixture", share) for share, _ in parts]
    # `isclose`: 0.7 + 0.2 + 0.1 is not just 1 in floats; `not >=` also catches NaN
    if not min(shares) >= 0 or not math.isclose(sum(shares), 1):
        raise InitError(f"the shares of a mixture must be at least 0 and add up to 1, got {shares}")
    text = ", ".join(f"({share}, {name_of(part)})" for share, part in parts)
    initializers = tuple(initializer for _, initializer in parts)
    for initializer in initializers:
        refuse_factory(initializer)
    return Recipe(f"mixture({text})", _plan_mixture, (tuple(shares), initializers), parts=initializers)


def _is_share(pair: object) -> bool:
    """Whether this is a part of a mixture, a (share, initialiser) pair."""
    if not isinstance(pair, tuple) or len(pair) != 2:
        return False
    share, initializer = pair
    return isinstance(share, Real) and callable(initializer)


def _plan_mixture(
    shape: tuple[int, ...], dtype: DTypeLike, shares: tuple[float, ...], initializers: tuple[Initializer, ...]
) -> Draw:
    # the last part takes what is left, so that rounding of the sum leaves no gap
    bounds = np.cumsum(shares)[:-1].astype(np.float32)
    draws = tuple(draw_of(initializer, shape, dtype) for initializer in initializers)
    return Draw(_draw_mixture, (tuple(bounds), draws))


def _draw_mixture(
    key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike, bounds: tuple[Scalar, ...], draws: tuple[Draw, ...]
) -> jax.Array:
    choice_key, *keys = jax.random.split(key, len(draws) + 1)
    # in float32 whatever the leaf is: bfloat16 has too few numbers for small shares
    choice = jax.random.uniform(choice_key, shape, jnp.float32)
    values = [draw(own_key, shape, dtype) for draw, own_key in zip(draws, keys, strict=True)]
    return jnp.select([choice < bound for bound in bounds], values[:-1], values[-1])


@factory
def sparse(sparsity: float, stddev: Number = 0.01) -> Recipe:
    """Gaussian (in, out) kernel in which each input has this share of its weights set to 0 (Martens 2010).

    >>> sparse(0.5)(jax.random.key(0), (3, 4)).astype(bool).sum(1).tolist()
    [2, 2, 2]

    Like `torch.nn.init.sparse_`, whose weight is (out, in).

    Args:
        sparsity: the share of weights that are 0, from 0 to 1.
        stddev: the standard deviation of the others.

    Raises:
        InitError: a `sparsity` outside of 0 to 1; other than 2 axes, when it draws.
    """
    if isinstance(sparsity, bool) or not isinstance(sparsity, Real) or not 0 <= sparsity <= 1:
        raise InitError(f"sparsity must be a number from 0 to 1, got {describe(sparsity)}")
    stddev = number("stddev", stddev, 0)
    return Recipe(called("sparse", sparsity, stddev=(stddev, 0.01)), _plan_sparse, (sparsity, stddev))


def _plan_sparse(shape: tuple[int, ...], dtype: DTypeLike, sparsity: float, stddev: RealNumber) -> Draw:
    if len(shape) != 2:
        raise InitError(f"sparse needs 2 axes, (in, out); the shape has {len(shape)}")
    zeros_per_input = np.int32(math.ceil(sparsity * shape[1]))
    return Draw(_draw_sparse, (zeros_per_input, plan_normal(shape, dtype, stddev)))


def _draw_sparse(
    key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike, zeros_per_input: Scalar, gaussian: Draw
) -> jax.Array:
    value_key, order_key = jax.random.split(key)
    # a permutation for each input, so that just this share is 0; a mask of chance would only be near it
    random_order = jnp.argsort(jax.random.uniform(order_key, shape, jnp.float32), axis=1)
    kept = random_order >= zeros_per_input.astype(random_order.dtype)
    return jnp.where(kept, gaussian(value_key, shape, dtype), jnp.zeros((), dtype))
