"""Layers that normalise: LayerNorm, RMSNorm, GroupNorm, BatchNorm. Statistics are in float32 at least."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from .. import initializers
from .._draw import Param
from .._edit import update
from .._errors import LayerError
from .._tree import Tree
from .._words import describe
from ._call import floating, need, unfit
from ._layer import Layer


def _declared(features: int, dtype: Any, use_bias: bool) -> dict[str, Param]:
    leaves = {"scale": Param((features,), dtype, initializers.ones)}
    return {**leaves, "bias": Param((features,), dtype, initializers.zeros)} if use_bias else leaves


def _features(layer: Any, params: Any, x: Any) -> int:
    """The size of the last axis, which all parameters must have."""
    scale, features = need(params, "scale", layer), floating(layer, x).shape[-1]
    if len(scale.shape) == 1 and features != scale.shape[0]:
        raise unfit(layer, f"{scale.shape[0]} features for the scale {describe(scale)}", f"the input {describe(x)}")
    for name in ("scale", *(("bias",) if layer.use_bias else ()), *layer.statistics):
        need(params, name, layer, (features,))
    return features


def _wide(x: Any) -> Any:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _scaled(layer: Any, params: Any, y: Any, x: Any) -> Any:
    """What was normalised, in the input's dtype, times the scale, plus the bias."""
    dtype = layer.dtype or jnp.result_type(x, params["scale"])
    y = y.astype(dtype) * params["scale"].astype(dtype)
    return y + params["bias"].astype(dtype) if layer.use_bias else y


@dataclass(frozen=True, repr=False)
class LayerNorm(Layer):
    """Zero mean and unit variance over the last axis, then a scale and a bias (Ba et al. 2016).

    >>> layer = LayerNorm()
    >>> x = jnp.array([[1.0, 3.0]])
    >>> layer(layer.init(jax.random.key(0), x), x).round(3).tolist()
    [[-1.0, 1.0]]

    The variance is the biased one, `epsilon` is added to it, as in PyTorch.

    Raises:
        LayerError: an input with another number of features than the scale.
    """

    epsilon: float = 1e-5
    use_bias: bool = True
    param_dtype: Any = jnp.float32
    dtype: Any = None

    def spec(self, x: Any) -> Tree:
        return Tree(_declared(floating(self, x).shape[-1], self.param_dtype, self.use_bias))

    def __call__(self, params: Any, x: Any) -> Any:
        _features(self, params, x)
        wide = _wide(x)
        centred = wide - wide.mean(-1, keepdims=True)
        variance = (centred * centred).mean(-1, keepdims=True)
        return _scaled(self, params, centred * jax.lax.rsqrt(variance + self.epsilon), x)


@dataclass(frozen=True, repr=False)
class RMSNorm(Layer):
    """Divides by the root of the mean square over the last axis, then a scale (Zhang and Sennrich 2019).

    >>> layer = RMSNorm()
    >>> x = jnp.array([[4.0, 4.0]])
    >>> layer(layer.init(jax.random.key(0), x), x).round(3).tolist()
    [[1.0, 1.0]]

    Raises:
        LayerError: an input with another number of features than the scale.
    """

    epsilon: float = 1e-6
    param_dtype: Any = jnp.float32
    dtype: Any = None
    use_bias = False

    def spec(self, x: Any) -> Tree:
        return Tree(_declared(floating(self, x).shape[-1], self.param_dtype, False))

    def __call__(self, params: Any, x: Any) -> Any:
        _features(self, params, x)
        wide = _wide(x)
        return _scaled(self, params, wide * jax.lax.rsqrt((wide * wide).mean(-1, keepdims=True) + self.epsilon), x)


@dataclass(frozen=True, repr=False)
class GroupNorm(Layer):
    """Zero mean and unit variance over each group of features and all places, for each example (Wu and He 2018).

    >>> layer = GroupNorm(2)
    >>> x = jnp.ones((1, 8, 8, 4))
    >>> layer(layer.init(jax.random.key(0), x), x).shape
    (1, 8, 8, 4)

    f32[batch, ..., features]; the features are the last axis. As many groups as features is instance norm.

    Raises:
        LayerError: groups that do not divide the features, or another number of features than the scale.
    """

    groups: int
    epsilon: float = 1e-5
    use_bias: bool = True
    param_dtype: Any = jnp.float32
    dtype: Any = None

    def spec(self, x: Any) -> Tree:
        features = floating(self, x).shape[-1]
        if self.groups < 1 or features % self.groups:
            raise unfit(self, f"features that {self.groups} groups divide", f"the input {describe(x)}")
        return Tree(_declared(features, self.param_dtype, self.use_bias))

    def __call__(self, params: Any, x: Any) -> Any:
        features = _features(self, params, x)
        if len(x.shape) < 2 or features % self.groups:
            raise unfit(self, f"examples whose features {self.groups} groups divide", f"the input {describe(x)}")
        wide = _wide(x).reshape(x.shape[0], math.prod(x.shape[1:-1]), self.groups, features // self.groups)
        centred = wide - wide.mean((1, 3), keepdims=True)
        variance = (centred * centred).mean((1, 3), keepdims=True)
        return _scaled(self, params, (centred * jax.lax.rsqrt(variance + self.epsilon)).reshape(x.shape), x)


@dataclass(frozen=True, repr=False)
class BatchNorm(Layer):
    """Zero mean and unit variance over all axes but the last; in use, with the running statistics of training.

    >>> layer = BatchNorm()
    >>> x = jnp.array([[1.0], [3.0]])
    >>> params = layer.init(jax.random.key(0), x)
    >>> layer(params, x, train=True).round(3).tolist()
    [[-1.0], [1.0]]
    >>> y, params = layer.updated(params, x)               # the same, and the parameters with new statistics
    >>> params["mean"].round(3), params["var"].round(3)
    (Array([0.2], dtype=float32), Array([1.1], dtype=float32))

    The leaves `mean` and `var` are not trainable. Any layer or container has `updated`: the pure way to new
    statistics, `new = momentum * old + (1 - momentum) * batch`, with the unbiased variance, as in PyTorch (whose
    momentum is 1 minus this one). In a train step give them back beside the loss:

        def loss(params): y, new = net.updated(params, x); return objective(y), new
        grads, new = jax.grad(loss, has_aux=True)(params)

    and keep `mean` and `var` of `new`. Under `jit` with a sharded batch the statistics are those of all devices
    (Ioffe and Szegedy 2015).

    Raises:
        LayerError: another number of features than the scale, or in training one value for each feature.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    use_bias: bool = True
    param_dtype: Any = jnp.float32
    dtype: Any = None
    statistics = ("mean", "var")

    def spec(self, x: Any) -> Tree:
        features = floating(self, x).shape[-1]
        wide = jnp.promote_types(self.param_dtype, jnp.float32)
        mean = Param((features,), wide, initializers.zeros, trainable=False)
        var = Param((features,), wide, initializers.ones, trainable=False)
        return Tree({**_declared(features, self.param_dtype, self.use_bias), "mean": mean, "var": var})

    def __call__(self, params: Any, x: Any, *, train: bool = False) -> Any:
        _features(self, params, x)
        return self._normed(params, x, *(self._of_batch(x) if train else (params["mean"], params["var"])))

    def updated(self, params: Any, x: Any, *, key: Any = None) -> tuple[Any, Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        _features(self, params, x)
        mean, var = self._of_batch(x)
        y, count = self._normed(params, x, mean, var), math.prod(x.shape[:-1])
        new = jax.lax.stop_gradient({"mean": mean, "var": var * (count / (count - 1))})
        for name, value in new.items():
            params = update(
                params,
                name,
                lambda old, value=value: (self.momentum * old + (1 - self.momentum) * value).astype(old.dtype),
            )
        return y, params

    def _normed(self, params: Any, x: Any, mean: Any, var: Any) -> Any:
        dtype = self.dtype or jnp.result_type(x, params["scale"])
        factor = jax.lax.rsqrt(var + self.epsilon) * params["scale"]  # of the features alone: less to do for each place
        y = ((_wide(x) - mean) * factor).astype(dtype)
        return y + params["bias"].astype(dtype) if self.use_bias else y

    def _of_batch(self, x: Any) -> tuple[Any, Any]:
        if math.prod(x.shape[:-1]) < 2:
            raise unfit(self, "more than one value for each feature in training", f"the input {describe(x)}")
        wide = _wide(x)
        axes = tuple(range(len(x.shape) - 1))
        mean = wide.mean(axes)
        centred = wide - mean
        return mean, (centred * centred).mean(axes)

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1:
            raise LayerError(f"BatchNorm: expected a momentum of at least 0 and below 1, got {self.momentum}")
