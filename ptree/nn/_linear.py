"""Layers that multiply by a table of weights: Dense and Embedding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from .. import initializers
from .._errors import LayerError
from .._leaf import describe
from .._params import Param
from .._tree import Tree
from ._layer import Layer, floating, need, unfit

_LECUN = initializers.lecun_normal()


@dataclass(frozen=True, repr=False)
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
        shape = (floating(self, x).shape[-1], self.features)
        leaves = {"kernel": Param(shape, self.param_dtype, self.kernel_init)}
        if self.use_bias:
            leaves["bias"] = Param(shape[1:], self.param_dtype, self.bias_init)
        return Tree(leaves)

    def __call__(self, params: Any, x: Any) -> Any:
        kernel = need(params, "kernel", self)
        if floating(self, x).shape[-1] != kernel.shape[0]:
            raise unfit(
                self, f"{kernel.shape[0]} features for the kernel {describe(kernel)}", f"the input {describe(x)}"
            )
        if kernel.shape != (x.shape[-1], self.features):
            raise unfit(self, f"a kernel of the shape ({x.shape[-1]}, {self.features})", describe(kernel))
        if not self.use_bias:
            return x @ kernel
        bias = need(params, "bias", self)
        if bias.shape != (self.features,):
            raise unfit(self, f"a bias of the shape ({self.features},)", describe(bias))
        return x @ kernel + bias

    def __post_init__(self) -> None:
        if self.features < 1:
            raise LayerError(f"Dense: expected a number of features of at least 1, got {self.features}")


@dataclass(frozen=True, repr=False)
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
        if not jnp.issubdtype(getattr(x, "dtype", float), jnp.integer):
            raise unfit(self, "whole numbers that say which rows", f"the input {describe(x)}")
        return (
            self._table(params).at[x].get(mode="fill", wrap_negative_indices=False)
        )  # -1 is a mistake, not the last row

    def attend(self, params: Any, x: Any) -> Any:
        """How well each row of the table fits: `x @ table.T`, f32[..., features] -> f32[..., num_embeddings].

        The output of a language model that is tied to its embedding, without a layer for it.

        Raises:
            LayerError: an input with another number of features, or of whole numbers.
        """
        table = self._table(params)
        if floating(self, x).shape[-1] != self.features:
            raise unfit(self, f"{self.features} features to attend with", f"the input {describe(x)}")
        return x @ table.T

    def _table(self, params: Any) -> Any:
        table = need(params, "table", self)
        if table.shape != (self.num_embeddings, self.features):
            raise unfit(self, f"a table of the shape ({self.num_embeddings}, {self.features})", describe(table))
        return table
