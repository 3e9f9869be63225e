"""Layers that multiply by a table of weights: Dense and Embedding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from .. import initializers
from .._leaf import describe
from .._params import Param
from .._tree import Tree
from ._layer import Layer, need, unfit

_LECUN = initializers.lecun_normal()


@dataclass(frozen=True)
class Dense(Layer):
    """`x @ kernel + bias` over the last axis: f32[..., in] -> f32[..., features].

    >>> import jax
    >>> layer = Dense(8)
    >>> layer.init(jax.random.key(0), jnp.ones((2, 4)))
    Tree(
      kernel  f32[4,8]
      bias    f32[8]
    )

    The kernel is (in, features), drawn by LeCun's normal; the bias starts at 0.

    Raises:
        LayerError: an input with another number of features than the kernel, or of whole numbers.
    """

    features: int
    use_bias: bool = True
    kernel_init: Callable[..., Any] = _LECUN
    bias_init: Callable[..., Any] = initializers.zeros
    param_dtype: Any = jnp.float32

    def spec(self, x: Any) -> Tree:
        if not x.shape:
            raise unfit(self, "an input with at least one axis", describe(x))
        shape = (x.shape[-1], self.features)
        leaves = {"kernel": Param(shape, self.param_dtype, self.kernel_init)}
        if self.use_bias:
            leaves["bias"] = Param(shape[1:], self.param_dtype, self.bias_init)
        return Tree(leaves)

    def __call__(self, params: Any, x: Any) -> Any:
        kernel = need(params, "kernel", self)
        if x.ndim == 0 or x.shape[-1] != kernel.shape[0]:
            raise unfit(
                self, f"{kernel.shape[0]} features for the kernel {describe(kernel)}", f"the input {describe(x)}"
            )
        y = x @ kernel
        return y + need(params, "bias", self) if self.use_bias else y

    def __repr__(self) -> str:
        return f"Dense({self.features}{'' if self.use_bias else ', use_bias=False'})"


@dataclass(frozen=True)
class Embedding(Layer):
    """A table of vectors, looked up by whole numbers: i32[...] -> f32[..., features].

    >>> import jax
    >>> layer = Embedding(50, 8)
    >>> params = layer.init(jax.random.key(0), jnp.zeros((2, 3), int))
    >>> layer(params, jnp.array([[1, 2, 3]])).shape
    (1, 3, 8)

    The table is (num_embeddings, features), drawn from a Gaussian with the variance 1 / features. A
    number outside of the table reads NaN, which shows, where clamping would not.

    Raises:
        LayerError: an input that is not of whole numbers.
    """

    num_embeddings: int
    features: int
    table_init: Callable[..., Any] | None = None
    param_dtype: Any = jnp.float32

    def spec(self, x: Any) -> Tree:
        draw = self.table_init or initializers.normal(self.features**-0.5)
        return Tree({"table": Param((self.num_embeddings, self.features), self.param_dtype, draw)})

    def __call__(self, params: Any, x: Any) -> Any:
        if not jnp.issubdtype(x.dtype, jnp.integer):
            raise unfit(self, "whole numbers that say which rows", f"the input {describe(x)}")
        return jnp.take(need(params, "table", self), x, axis=0, mode="fill")

    def __repr__(self) -> str:
        return f"Embedding({self.num_embeddings}, {self.features})"
