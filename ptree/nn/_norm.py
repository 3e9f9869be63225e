"""Normalisation: LayerNorm, RMSNorm, GroupNorm and BatchNorm, with mean and variance in float32 at least."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass, field

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from .. import initializers
from .._draw import Param
from .._edit import update
from .._tree import PyTree
from .._words import describe
from ._inputs import cast, common_dtype, floats_or_complex, misfit, parameter
from ._layer import Layer, P, Params


@dataclass(frozen=True, eq=False, repr=False)
class _Norm(Layer):
    """Base of the normalisation layers: a scale and a bias for each feature, and their checks."""

    _: KW_ONLY
    epsilon: float = 1e-5
    use_bias: bool = True
    param_dtype: DTypeLike = jnp.float32
    dtype: DTypeLike | None = None

    def declare(self, x: PyTree) -> dict[str, Param]:
        features = floats_or_complex(self, x).shape[-1]
        leaves = {"scale": Param((features,), self.param_dtype, initializers.ones)}
        if self.use_bias:
            leaves["bias"] = Param((features,), self.param_dtype, initializers.zeros)
        return leaves

    def _check(self, params: Params, x: PyTree) -> None:
        """Raise unless the scale, bias and statistics have the size of the input's last axis."""
        features = floats_or_complex(self, x).shape[-1]
        scale = parameter(params, "scale", self)
        # The usual mistake, another number of features in, gets a message that names both numbers.
        if scale.ndim == 1 and features != scale.shape[0]:
            expected = f"{scale.shape[0]} features for the scale {describe(scale)}"
            raise misfit(self, expected, f"the input {describe(x)}")
        names = ["scale", "bias"] if self.use_bias else ["scale"]
        for name in [*names, *self.statistics]:
            parameter(params, name, self, (features,))

    def _scaled(self, params: Params, normed: jax.Array, x: jax.Array) -> jax.Array:
        """Scale and shift a normalised input, in the dtype of the output."""
        # From the input, not from `normed`, which is in float32: a bfloat16 network stays in bfloat16.
        dtype = common_dtype(self, self.dtype, x, params["scale"])
        normed, scale = cast(self, dtype, normed, params["scale"])
        return self._shifted(params, normed * scale)

    def _shifted(self, params: Params, y: jax.Array) -> jax.Array:
        if not self.use_bias:
            return y
        return y + params["bias"].astype(y.dtype)


@dataclass(frozen=True, eq=False, repr=False)
class LayerNorm(_Norm):
    """Normalise to zero mean and unit variance over the last axis, then scale and shift (Ba et al. 2016).

    >>> layer = LayerNorm()
    >>> x = jnp.array([[1.0, 3.0]])
    >>> layer(layer.init(jax.random.key(0), x), x).round(3).tolist()
    [[-1.0, 1.0]]

    The variance is the biased one, to which `epsilon` is added, as in PyTorch.

    Raises:
        LayerError: an input with another number of features than the scale.
    """

    def apply(self, params: Params, x: PyTree) -> jax.Array:
        self._check(params, x)
        centred, variance = _moments(_wide(x), -1)
        return self._scaled(params, centred * jax.lax.rsqrt(variance + self.epsilon), x)


@dataclass(frozen=True, eq=False, repr=False)
class RMSNorm(_Norm):
    """Normalise by the root mean square over the last axis, then scale (Zhang and Sennrich 2019).

    >>> layer = RMSNorm()
    >>> x = jnp.array([[4.0, 4.0]])
    >>> layer(layer.init(jax.random.key(0), x), x).round(3).tolist()
    [[1.0, 1.0]]

    Raises:
        LayerError: an input with another number of features than the scale.
    """

    _: KW_ONLY
    epsilon: float = 1e-6
    use_bias: bool = field(default=False, init=False)  # no option: it has no bias

    def apply(self, params: Params, x: PyTree) -> jax.Array:
        self._check(params, x)
        wide = _wide(x)
        mean_square = (wide * wide).mean(-1, keepdims=True)
        return self._scaled(params, wide * jax.lax.rsqrt(mean_square + self.epsilon), x)


@dataclass(frozen=True, eq=False, repr=False)
class GroupNorm(_Norm):
    """Normalise each example over a group of features and all places, then scale and shift (Wu and He 2018).

    >>> layer = GroupNorm(2)
    >>> x = jnp.ones((1, 8, 8, 4))
    >>> layer(layer.init(jax.random.key(0), x), x).shape
    (1, 8, 8, 4)

    The input is f32[batch, ..., features]. With as many groups as features it is instance norm.

    Raises:
        LayerError: groups that do not divide the features, or another number of features than the scale.
    """

    groups: int

    def declare(self, x: PyTree) -> dict[str, Param]:
        features = floats_or_complex(self, x).shape[-1]
        if features % self.groups:
            raise misfit(self, f"features that {self.groups} groups divide", f"the input {describe(x)}")
        return super().declare(x)

    def apply(self, params: Params, x: PyTree) -> jax.Array:
        self._check(params, x)
        # Again, since parameters from elsewhere may be used without `declare`.
        if x.ndim < 2 or x.shape[-1] % self.groups:
            raise misfit(self, f"examples whose features {self.groups} groups divide", f"the input {describe(x)}")
        batch, *places, features = x.shape
        grouped = _wide(x).reshape(batch, math.prod(places), self.groups, features // self.groups)
        centred, variance = _moments(grouped, (1, 3))
        normed = centred * jax.lax.rsqrt(variance + self.epsilon)
        return self._scaled(params, normed.reshape(x.shape), x)


@dataclass(frozen=True, eq=False, repr=False)
class BatchNorm(_Norm):
    """Normalise over all axes but the last: in training by the batch's mean and variance, else by running statistics.

    >>> layer = BatchNorm()
    >>> x = jnp.array([[1.0], [3.0]])
    >>> params = layer.init(jax.random.key(0), x)
    >>> layer(params, x, train=True).round(3).tolist()
    [[-1.0], [1.0]]
    >>> y, params = layer.updated(params, x)               # the same, and the parameters with new statistics
    >>> params["mean"].round(3), params["var"].round(3)
    (Array([0.2], dtype=float32), Array([1.1], dtype=float32))

    The leaves `mean` and `var` are not trainable. Any layer or container has `updated`, which returns the parameters
    with new statistics, `new = momentum * old + (1 - momentum) * batch`, with the unbiased variance, as in PyTorch
    (whose momentum is 1 minus this one). In a train step return them beside the loss:

        def loss(params): y, new = net.updated(params, x); return objective(y), new
        grads, new = jax.grad(loss, has_aux=True)(params)

    and keep `mean` and `var` of `new`. Under `jit` with a sharded batch the statistics are those of all devices
    (Ioffe and Szegedy 2015).

    Raises:
        LayerError: another number of features than the scale, or in training one value for each feature.
    """

    statistics = ("mean", "var")
    _: KW_ONLY
    momentum: float = 0.9

    def declare(self, x: PyTree) -> dict[str, Param]:
        features = floats_or_complex(self, x).shape[-1]
        # In float32 even if parameters are bfloat16, whose rounding would stop 0.9 * old + 0.1 * new from changing.
        wide = jnp.promote_types(self.param_dtype, jnp.float32)
        mean = Param((features,), wide, initializers.zeros, trainable=False)
        var = Param((features,), wide, initializers.ones, trainable=False)
        return {**super().declare(x), "mean": mean, "var": var}

    def apply(self, params: Params, x: PyTree, *, train: bool = False) -> jax.Array:
        self._check(params, x)
        mean, var = self._of_batch(x) if train else (params["mean"], params["var"])
        return self._normed(params, x, mean, var)

    def updated(self, params: P, x: PyTree, *, key: jax.Array | None = None) -> tuple[jax.Array, P]:  # pyright: ignore[reportIncompatibleMethodOverride]
        self._check(params, x)
        mean, var = self._of_batch(x)
        y = self._normed(params, x, mean, var)
        count = math.prod(x.shape[:-1])
        unbiased = var * (count / (count - 1))  # `_of_batch` refuses a count of 1
        params = self._moved(params, "mean", mean)
        return y, self._moved(params, "var", unbiased)

    def _moved(self, params: P, name: str, value: jax.Array) -> P:
        """Move a running statistic, the mean or the variance, towards that of a batch."""
        value = jax.lax.stop_gradient(value)  # the loss does not depend on new statistics

        def moved(old: jax.Array) -> jax.Array:
            return (self.momentum * old + (1 - self.momentum) * value).astype(old.dtype)

        return update(params, name, moved)

    def _normed(self, params: Params, x: jax.Array, mean: jax.Array, var: jax.Array) -> jax.Array:
        dtype = common_dtype(self, self.dtype, x, params["scale"])
        factor = (
            jax.lax.rsqrt(var + self.epsilon) * params["scale"]
        )  # one per feature, so that each place costs one product
        return self._shifted(params, ((_wide(x) - mean) * factor).astype(dtype))

    def _of_batch(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The mean and biased variance of each feature in a batch."""
        # One value has the variance 0, and the unbiased one is 0 / 0.
        if math.prod(x.shape[:-1]) < 2:
            raise misfit(self, "more than one value for each feature in training", f"the input {describe(x)}")
        wide = _wide(x)
        axes = tuple(range(x.ndim - 1))
        mean = wide.mean(axes)
        centred = wide - mean  # mean(x * x) - mean ** 2 would lose digits where the mean is large
        return mean, (centred * centred).mean(axes)


def _wide(x: jax.Array) -> jax.Array:
    """Cast an input to float32 at least: mean and variance of many numbers in bfloat16 would be wrong."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _moments(x: jax.Array, axes: int | tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """The input minus its mean over these axes, and its biased variance, for normalisation."""
    centred = x - x.mean(axes, keepdims=True)
    return centred, (centred * centred).mean(axes, keepdims=True)
