"""Layers that normalise: LayerNorm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from .. import initializers
from .._leaf import describe
from .._params import Param
from .._tree import Tree
from ._layer import Layer, floating, need, unfit


@dataclass(frozen=True, repr=False)
class LayerNorm(Layer):
    """Zero mean and unit variance over the last axis, then a scale and a bias (Ba et al. 2016).

    >>> layer = LayerNorm()
    >>> x = jnp.array([[1.0, 3.0]])
    >>> layer(layer.init(jax.random.key(0), x), x).round(3).tolist()
    [[-1.0, 1.0]]

    The variance is the biased one, `epsilon` is added to it, as in PyTorch. Statistics are in float32 at least.

    Raises:
        LayerError: an input with another number of features than the scale.
    """

    epsilon: float = 1e-5
    use_bias: bool = True
    param_dtype: Any = jnp.float32

    def spec(self, x: Any) -> Tree:
        leaves = {"scale": Param(floating(self, x).shape[-1:], self.param_dtype, initializers.ones)}
        if self.use_bias:
            leaves["bias"] = Param(x.shape[-1:], self.param_dtype, initializers.zeros)
        return Tree(leaves)

    def __call__(self, params: Any, x: Any) -> Any:
        scale = need(params, "scale", self)
        if floating(self, x).shape[-1] != scale.shape[0]:
            raise unfit(self, f"{scale.shape[0]} features for the scale {describe(scale)}", f"the input {describe(x)}")
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        centred = wide - wide.mean(-1, keepdims=True)
        variance = (centred * centred).mean(-1, keepdims=True)
        y = (centred * jax.lax.rsqrt(variance + self.epsilon)).astype(x.dtype) * scale
        return y + need(params, "bias", self) if self.use_bias else y
