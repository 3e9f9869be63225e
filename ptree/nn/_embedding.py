"""Embedding, a table of vectors looked up by token ids, and the product with its rows for tied language models."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from .. import initializers
from .._draw import Param
from .._tree import PyTree
from .._words import describe
from ._inputs import cast, floats_or_complex, misfit, parameter
from ._layer import Initializer, Layer, Params


@dataclass(frozen=True, eq=False, repr=False)
class Embedding(Layer):
    """A table of vectors, looked up by whole numbers: i32[...] -> f32[..., features].

    >>> layer = Embedding(50, 8)
    >>> params = layer.init(jax.random.key(0), jnp.zeros((2, 3), int))
    >>> layer(params, jnp.array([[1, 2, 3]])).shape
    (1, 3, 8)

    The table is (num_embeddings, features), drawn from a Gaussian with the variance 1 / features. A
    number outside of the table reads NaN, which is noticed, unlike the last row that clamping would read.

    Raises:
        LayerError: an input that is not of whole numbers.
    """

    num_embeddings: int
    features: int
    _: KW_ONLY
    table_init: Initializer | None = None
    param_dtype: DTypeLike = jnp.float32
    dtype: DTypeLike | None = None

    def declare(self, x: PyTree) -> dict[str, Param]:
        # With rows of norm 1 on average, the logits of `attend` are about as large as its input.
        draw = self.table_init or initializers.normal(math.sqrt(1 / self.features))
        return {"table": Param((self.num_embeddings, self.features), self.param_dtype, draw)}

    def apply(self, params: Params, x: PyTree) -> jax.Array:
        if not jnp.issubdtype(getattr(x, "dtype", float), jnp.integer):
            raise misfit(self, "whole numbers that say which rows", f"the input {describe(x)}")
        (table,) = cast(self, self.dtype, jnp.asarray(self._table(params)))
        # JAX would by default read the last row for -1, and clamp ids that are too large; NaN shows the mistake.
        return table.at[x].get(mode="fill", wrap_negative_indices=False)

    def attend(self, params: Params, x: PyTree) -> jax.Array:
        """The product with each row of the table: `x @ table.T`, f32[..., features] -> f32[..., num_embeddings].

        The output of a language model that is tied to its embedding, without a layer for it.

        Raises:
            LayerError: an input with another number of features, or of whole numbers.
        """
        if floats_or_complex(self, x).shape[-1] != self.features:
            raise misfit(self, f"{self.features} features to attend with", f"the input {describe(x)}")
        x, table = cast(self, self.dtype, x, self._table(params))
        return x @ table.T

    def _table(self, params: Params) -> jax.Array:
        return parameter(params, "table", self, (self.num_embeddings, self.features))
