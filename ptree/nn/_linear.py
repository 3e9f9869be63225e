"""Layers that multiply by a table of weights: Dense and Embedding."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from .. import initializers
from .._draw import Param
from .._errors import LayerError
from .._tree import Tree
from .._words import describe
from ._call import cast, floating, need, unfit
from ._layer import Layer

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
    >>> heads = Dense((4, 16))                                # several axes out, as for the heads of attention
    >>> heads.init(jax.random.key(0), jnp.ones((2, 64)))["kernel"].shape
    (64, 4, 16)
    >>> Dense(64, axis=(-2, -1)).init(jax.random.key(0), jnp.ones((2, 4, 16)))["kernel"].shape
    (4, 16, 64)

    The kernel is (in..., features...), drawn by LeCun's normal; the bias starts at 0.

    Args:
        features: the size of the axis that comes out, or of several.
        axis: the axes that are summed over, as they stand at the end of the input.
        dtype: what it computes in; by default what JAX promotes input and parameters to.

    Raises:
        LayerError: an input of another shape than the kernel, or of whole numbers.
    """

    features: int | tuple[int, ...]
    use_bias: bool = True
    kernel_init: Callable[..., Any] | None = None
    bias_init: Callable[..., Any] = initializers.zeros
    param_dtype: Any = jnp.float32
    dtype: Any = None
    axis: int | tuple[int, ...] = -1

    def spec(self, x: Any) -> Tree:
        taken, given = self._taken(x), self._given
        draw = self.kernel_init
        if draw is None and len(taken) == len(given) == 1:
            draw = _LECUN
        elif draw is None:
            axes = tuple(range(len(taken) + len(given)))
            draw = initializers.lecun_normal(in_axis=axes[: len(taken)], out_axis=axes[len(taken) :])
        leaves = {"kernel": Param((*taken, *given), self.param_dtype, draw)}
        if self.use_bias:
            leaves["bias"] = Param(given, self.param_dtype, self.bias_init)
        return Tree(leaves)

    def __call__(self, params: Any, x: Any) -> Any:
        kernel, given = need(params, "kernel", self), self._given
        taken = kernel.shape[: -len(given)] if len(kernel.shape) > len(given) else ()
        if len(taken) == 1 and floating(self, x).shape[-1] != taken[0]:
            raise unfit(self, f"{taken[0]} features for the kernel {describe(kernel)}", f"the input {describe(x)}")
        if kernel.shape != (*self._taken(x), *given):
            raise unfit(self, f"a kernel of the shape {(*self._taken(x), *given)}", describe(kernel))
        bias = [need(params, "bias", self, given)] if self.use_bias else []
        x, kernel, *bias = cast(self.dtype, x, kernel, *bias)
        lead = x.shape[: len(x.shape) - len(taken)]
        flat = (math.prod(taken), math.prod(given))  # a product of matrices: XLA then copies and compiles less
        y = x.reshape(*lead, flat[0]) @ kernel.reshape(flat)
        y = y + bias[0].reshape(-1) if bias else y
        return y.reshape(*lead, *given)

    @property
    def _given(self) -> tuple[int, ...]:
        return self.features if isinstance(self.features, tuple) else (self.features,)

    def _taken(self, x: Any) -> tuple[int, ...]:
        axes = self.axis if isinstance(self.axis, tuple) else (self.axis,)
        if len(floating(self, x).shape) < len(axes):
            raise unfit(self, f"an input of at least {len(axes)} axes", describe(x))
        return tuple(x.shape[len(x.shape) - len(axes) :])

    def __post_init__(self) -> None:
        if isinstance(self.features, list):
            object.__setattr__(self, "features", tuple(self.features))
        if not self._given or min(self._given) < 1:
            raise LayerError(f"Dense: expected a number of features of at least 1, got {self.features}")
        axes = self.axis if isinstance(self.axis, tuple) else (self.axis,)
        if axes != tuple(range(-len(axes), 0)):
            raise LayerError(f"Dense: expected the last axes, such as -1 or (-2, -1), got axis={self.axis}")


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
    dtype: Any = None

    def spec(self, x: Any) -> Tree:
        draw = self.table_init or initializers.normal(math.sqrt(1 / self.features))
        return Tree({"table": Param((self.num_embeddings, self.features), self.param_dtype, draw)})

    def __call__(self, params: Any, x: Any) -> Any:
        if not jnp.issubdtype(getattr(x, "dtype", float), jnp.integer):
            raise unfit(self, "whole numbers that say which rows", f"the input {describe(x)}")
        (table,) = cast(self.dtype, jnp.asarray(self._table(params)))
        return table.at[x].get(mode="fill", wrap_negative_indices=False)  # -1 is a mistake, not the last row

    def attend(self, params: Any, x: Any) -> Any:
        """How well each row of the table fits: `x @ table.T`, f32[..., features] -> f32[..., num_embeddings].

        The output of a language model that is tied to its embedding, without a layer for it.

        Raises:
            LayerError: an input with another number of features, or of whole numbers.
        """
        if floating(self, x).shape[-1] != self.features:
            raise unfit(self, f"{self.features} features to attend with", f"the input {describe(x)}")
        x, table = cast(self.dtype, x, self._table(params))
        return x @ table.T

    def _table(self, params: Any) -> Any:
        return need(params, "table", self, (self.num_embeddings, self.features))
