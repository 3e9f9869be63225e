"""Embedding, a table of vectors looked up by token ids, and the product with its rows for tied language models."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from operator import matmul

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike

from .. import initializers
from .._draw import Param
from .._tree import PyTree, entries_of
from .._words import describe
from ._explicit_axes import entries_at, split_along, splits_output
from ._inputs import cast, described, floats_or_complex, is_of_dtype, misfit, parameter
from ._layer import Initializer, Layer, Params
from ._products import DerivedKernel, product


@dataclass(frozen=True, eq=False, repr=False)
class Embedding(Layer):
    """A table of vectors, looked up by whole numbers: i32[...] -> f32[..., features].

    >>> layer = Embedding(50, 8)
    >>> params = layer.init(jax.random.key(0), jnp.zeros((2, 3), int))
    >>> layer(params, jnp.array([[1, 2, 3]])).shape
    (1, 3, 8)

    The table is (num_embeddings, features), drawn from a Gaussian with the variance 1 / features. A
    number outside of the table, also a negative one, reads NaN, which is noticed, unlike the last row that clamping would
    read; no gradient comes from it. This holds for every dtype of whole numbers, inside of `jit` too. (Without
    `jax_enable_x64` JAX itself makes int32 of an int64 array that is passed to a jitted function, so that 2**32 is 0
    before the layer sees it.)

    Args:
        num_embeddings: how many rows the table has.
        features: the size of each vector.
        padding_idx: the number of padding. Its row starts at 0 and gets no gradient from the lookup, as in PyTorch, so
            that it stays what it is; in `attend` it is a row like the others. A rule of `init` for the whole table draws this
            row too. Below 0 it counts from the end.
        table_init: initialiser of the table; by default Gaussian with the variance 1 / features.
        param_dtype: the dtype of the parameters.
        dtype: the dtype of the vectors; by default that of the table.

    Raises:
        LayerError: an input that is not of whole numbers, or a `padding_idx` outside of the table.
    """

    num_embeddings: int
    features: int
    _: KW_ONLY
    padding_idx: int | None = None
    table_init: Initializer | None = None
    param_dtype: DTypeLike = jnp.float32
    dtype: DTypeLike | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.padding_idx is None:
            return
        last = self.num_embeddings - 1
        if not -last - 1 <= self.padding_idx <= last:
            raise misfit(self, f"a padding_idx from {-last - 1} to {last}", str(self.padding_idx))
        object.__setattr__(self, "padding_idx", self.padding_idx % self.num_embeddings)

    def declare(self, x: PyTree) -> dict[str, Param]:
        # With rows of norm 1 on average, the logits of `attend` are about as large as its input.
        draw = self.table_init or initializers.normal(math.sqrt(1 / self.features))
        if self.padding_idx is not None:
            draw = _WithZeroRow(draw, self.padding_idx)
        return {"table": Param((self.num_embeddings, self.features), self.param_dtype, draw)}

    def _split(self, params: Params, x: PyTree) -> PartitionSpec:
        return split_along(entries_of(x), entries_at(params, "table")[1:])

    def _split_by_rows(self, params: Params, x: PyTree) -> PartitionSpec:
        return split_along(entries_of(x)[:-1], entries_at(params, "table")[:1])

    @splits_output(_split)
    def apply(self, params: Params, x: PyTree) -> jax.Array:
        if not is_of_dtype(x, jnp.integer):
            raise misfit(self, "whole numbers that say which rows", f"the input {described(x)}")
        (table,) = cast(self, self.dtype, self._table(params))
        ids = _in_32_bits(x, self.num_embeddings)
        rows = product(self, ids, table, _rows)
        if self.padding_idx is None:
            return rows
        if isinstance(table, DerivedKernel):  # its row for padding would not stay what it is
            raise misfit(self, "an array as the table, whose row for padding stays", repr(table))
        is_padding = ids.astype(jnp.int32) == self.padding_idx  # an int8 cannot be compared with 300
        return jnp.where(is_padding[..., None], jax.lax.stop_gradient(rows), rows)

    @splits_output(_split_by_rows)
    def attend(self, params: Params, x: PyTree) -> jax.Array:
        """The product with each row of the table: `x @ table.T`, f32[..., features] -> f32[..., num_embeddings].

        The output of a language model that is tied to its embedding, without a layer for it.

        Args:
            params: the layer's parameters.
            x: f32[..., features].

        Raises:
            LayerError: an input with another number of features, or of whole numbers.
        """
        if floats_or_complex(self, x).shape[-1] != self.features:
            raise misfit(self, f"{self.features} features to attend with", f"the input {describe(x)}")
        x, table = cast(self, self.dtype, x, self._table(params))
        return product(self, x, table.T, matmul)

    def _table(self, params: Params) -> jax.Array:
        return parameter(params, "table", self, (self.num_embeddings, self.features))


def _rows(ids: jax.Array | np.ndarray, table: jax.Array) -> jax.Array:
    """The rows of a table; NaN for a number outside of it."""
    # JAX would by default read the last row for -1, and clamp ids that are too large; NaN shows the mistake.
    return jnp.asarray(table).at[ids].get(mode="fill", wrap_negative_indices=False)


def _in_32_bits(ids: jax.Array, count: int) -> jax.Array | np.ndarray:
    """Ids of 64 bits in 32, with -1 for those that are not below `count`."""
    if ids.dtype.itemsize < 8:
        return ids
    # JAX indexes in 32 bits, in which 2**32 would be 0.
    is_inside = (ids >= 0) & (ids < count)
    if isinstance(ids, (np.ndarray, np.generic)):  # without x64 an array of JAX would have 32 bits already
        return np.where(is_inside, ids.astype(np.int32), np.int32(-1))  # -1 does not fit into a uint64
    return jnp.where(is_inside, ids, -1).astype(jnp.int32)


@dataclass(frozen=True)
class _WithZeroRow:
    """An initialiser of a table, of which one row is 0. Equal for equal initialisers, which share one compiled draw."""

    initializer: Initializer
    row: int

    def __call__(self, key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> jax.Array:
        return self.initializer(key, shape, dtype).at[self.row].set(0)

    def __repr__(self) -> str:
        return f"{self.initializer!r}, row {self.row} is 0"
