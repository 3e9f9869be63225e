"""MultiHeadAttention with grouped queries, rotary positions, causal and other masks, and a cache of keys and values."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import KW_ONLY, dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike

from .. import initializers
from .._errors import LayerError
from .._tree import PyTree, Tree, entries_of
from .._words import describe
from ._attention_inputs import check_bias, check_cache, check_context, check_mask, check_positions
from ._container import as_layer, call_part, check_part
from ._decoding_cache import Cache, empty_cache, extended, filled_after, known_length, nan_after_the_end, next_places
from ._dense import Dense
from ._dot_product import attended_by_cudnn, capped, causal_order, dropped, scores_of, softmax_of_seen, weighted_sum
from ._explicit_axes import entries_at, split_along, splits_output
from ._inputs import cast, floats, misfit
from ._layer import Initializer, Layer, Params
from ._rotary import Rotary


@dataclass(frozen=True, eq=False, repr=False)
class MultiHeadAttention(Layer):
    """Attention of each place to all places, or to a context: f32[batch, time, features] -> the same shape.

    >>> layer = MultiHeadAttention(8, causal=True)
    >>> x = jnp.ones((2, 10, 64))
    >>> params = layer.init(jax.random.key(0), x)
    >>> params["q/kernel"].shape, params["o/kernel"].shape
    ((64, 8, 8), (8, 8, 64))
    >>> layer(params, x).shape
    (2, 10, 64)

    For decoding, a cache keeps the keys and values of earlier places: with `cache=` a call returns the output and the next cache.

    >>> cache = layer.cache(batch=2, length=32, head_dim=8)
    >>> y, cache = layer(params, x[:, :9], cache=cache)
    >>> z, cache = layer(params, x[:, 9:], cache=cache)
    >>> bool(jnp.allclose(z, layer(params, x)[:, 9:], atol=1e-5)), int(cache["length"])
    (True, 10)

    A sequence that is longer than the cache is an error. Inside of `jax.jit`, where the length is not known, the places
    that fit are right, those that do not are NaN, and the cache keeps what it holds. The lengths may differ from row to
    row, as after a padded prompt: `cache | {"length": lengths}` with i32[batch] goes on after each row's own length.

    A place that may see nothing gets zeros, as in PyTorch's `scaled_dot_product_attention`, and so the bias of `o`
    (`jax.nn.dot_product_attention`, Flax and Keras give it the mean of all places, hidden and future ones too). It
    has no gradient. Scores are summed, and their softmax taken, in float32 at least (Vaswani et al. 2017).

    Args:
        heads: how many heads.
        head_dim: the features of each head; by default the input's, divided by the heads.
        kv_heads: how many heads of keys and values, which divide the heads: grouped-query attention, with 1
            multi-query attention (Ainslie et al. 2023).
        causal: whether a place sees only itself and the places before.
        window: of a causal layer, how many places a place sees at most, itself included (Mistral's sliding window).
        rotary: a `Rotary`, or its base such as 10000.0, for rotary positions; None for none.
        qk_norm: a norm of each head's queries and keys, before they are rotated, such as `RMSNorm()` (Qwen 3, Gemma 3);
            its parameters are `q_norm` and `k_norm`.
        scale: the factor of the scores; by default `head_dim ** -0.5`.
        soft_cap: a bound of the scores, `soft_cap * tanh(scores / soft_cap)` (Gemma 2).
        dropout: the share of attention weights that are set to 0 in training, as in PyTorch's and Flax's layers.
        use_bias: whether the four projections have a bias.
        kernel_init: initialiser of the four kernels; by default LeCun's normal.
        bias_init: initialiser of the biases.
        param_dtype: the dtype of the parameters.
        dtype: the dtype it computes in; by default the one that JAX promotes input and parameters to.
        implementation: "cudnn" for cuDNN's flash attention through `jax.nn.dot_product_attention`; None and "xla" for XLA.

    Raises:
        LayerError: heads that do not divide the features, a sequence that is longer than the cache, an odd number of
            features to rotate, training with `dropout` and without a key, or an input, context, mask, bias or positions
            that do not fit.
    """

    heads: int
    _: KW_ONLY
    head_dim: int | None = None
    kv_heads: int | None = None
    causal: bool = False
    window: int | None = None
    rotary: float | Rotary | None = None
    qk_norm: PyTree = None
    scale: float | None = None
    soft_cap: float | None = None
    dropout: float = 0.0
    use_bias: bool = True
    kernel_init: Initializer | None = None
    bias_init: Initializer = initializers.zeros
    param_dtype: DTypeLike = jnp.float32
    dtype: DTypeLike | None = None
    implementation: Literal["xla", "cudnn"] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.qk_norm is not None:
            check_part("MultiHeadAttention", self.qk_norm)
        if self.heads % self._kv_heads:
            raise LayerError(f"{self!r}: expected heads that kv_heads divide, got {self.heads} and {self.kv_heads}")
        if self.window is not None and not self.causal:
            raise LayerError(f"{self!r}: expected causal=True with a window, got causal=False")
        if self.implementation == "cudnn" and (self.dropout or self.soft_cap is not None):
            raise LayerError(f"{self!r}: expected no dropout= or soft_cap= with cuDNN, got one")

    def declare(self, x: PyTree, context: PyTree = None, values: PyTree = None) -> dict[str, Tree]:
        head_dim = self._head_dim(x)
        q, k, v, o = self._projections(x.shape[-1], head_dim)
        source = x if context is None else context
        attended = jax.ShapeDtypeStruct((*x.shape[:-1], self.heads, head_dim), x.dtype)
        specs = {"q": q.spec(x), "k": k.spec(source), "v": v.spec(source if values is None else values)}
        for name, norm in self.parts():
            spec = norm.spec(attended)
            if len(spec):  # a function has no node
                specs[name] = spec
        return {**specs, "o": o.spec(attended)}

    def _split(self, params: Params, x: PyTree, *, cache: PyTree = None, **options: PyTree) -> PyTree:
        y = split_along(entries_of(x)[:-1], entries_at(params, "o", "kernel")[-1:])
        if cache is None:
            return y
        return y, jax.tree.map(lambda array: PartitionSpec(*entries_of(array)), dict(cache))

    @splits_output(_split)
    def apply(
        self,
        params: Params,
        x: PyTree,
        *,
        context: jax.Array | None = None,
        values: jax.Array | None = None,
        mask: jax.Array | None = None,
        bias: jax.Array | None = None,
        positions: jax.Array | None = None,
        cache: Cache | None = None,
        key: jax.Array | None = None,
        train: bool = False,
    ) -> PyTree:
        """Compute the output, and with a cache the next cache.

        Args:
            params: the layer's parameters.
            x: f32[batch, time, features], which queries are computed from.
            context: what keys and values are computed from, f32[batch, places, features]; by default `x`.
            values: what values are computed from, f32[batch, places, features]; by default the context.
            mask: bool, True where a place may be seen, of four axes that broadcast to [batch, heads, time, places];
                for padding `(ids != pad)[:, None, None, :]`. With a cache the places are those of the cache.
            bias: floats that are added to the scores, of the same axes as the mask, such as ALiBi's; -inf hides a place.
            positions: i32[batch or 1, time], of `x`, for rotary positions; by default 0, 1, ... after what the cache holds.
            cache: the result of `cache(...)` or of the last call; then the output is returned with the next cache.
            key: the key of the dropout, in training.
            train: whether attention weights are dropped out.
        """
        head_dim = self._head_dim(x)
        source = x if context is None else context
        # Before anything is computed: JAX's own errors would name neither the layer nor the argument.
        self._check_source(x, context, values, cache)
        check_cache(self, x, cache, self._kv_heads, head_dim)
        places = source.shape[1] if cache is None else cache["k"].shape[1]
        full = (x.shape[0], self.heads, x.shape[1], places)
        check_mask(self, mask, full)
        check_bias(self, bias, full)
        check_positions(self, x, positions)
        self._check_key(key, train)

        to_q, to_k, to_v, to_output = self._projections(x.shape[-1], head_dim)
        q = call_part("q", to_q, params, x, {})
        k = call_part("k", to_k, params, source, {})
        v = call_part("v", to_v, params, source if values is None else values, {})
        q, k = self._normed(params, q, k)
        q, k = self._rotated(q, k, positions, cache)
        if cache is None:
            y = self._attended(q, k, v, self._order(x.shape[1], places), mask, bias, key)
            return call_part("o", to_output, params, y, {})
        grown = extended(cache, k, v)
        y = self._attended(q, grown["k"], grown["v"], self._order_after(cache, x.shape[1]), mask, bias, key)
        y = call_part("o", to_output, params, y, {})
        if known_length(cache) is None:
            y = nan_after_the_end(y, cache)
        return y, grown

    def cache(
        self, batch: int, length: int, head_dim: int | None = None, dtype: DTypeLike | None = None
    ) -> dict[str, jax.Array]:
        """Make an empty cache for sequences of at most `length`; `head_dim` unless it is an option of the layer.

        Its dtype may be smaller than that of the layer, also an 8-bit float: keys and values are converted where they are
        written and read.

        Args:
            batch: how many rows.
            length: how many places it holds.
            head_dim: the features of each head, unless it is an option of the layer.
            dtype: of the keys and values; by default the layer's.

        Raises:
            LayerError: no `head_dim`, another one than the layer's, or a dtype that is not of floats.
        """
        size = head_dim or self.head_dim
        if size is None:
            raise LayerError(f"{self!r}: expected head_dim= for the cache, which depends on the input")
        if self.head_dim not in (None, size):
            raise LayerError(f"{self!r}: expected head_dim={self.head_dim} for the cache, got {size}")
        # The dtype in which keys and values are computed, unless the input is wider than the parameters.
        stored = jnp.dtype(dtype or self.dtype or self.param_dtype)
        if not jnp.issubdtype(stored, jnp.floating):  # keys would be cut off to whole numbers
            raise LayerError(f"{self!r}: expected a dtype of floats for the cache, got {stored}")
        return empty_cache((batch, length, self._kv_heads, size), stored)

    def parts(self) -> Iterator[tuple[str, Layer]]:
        if self.qk_norm is not None:
            # Two objects, as queries and keys have parameters of their own.
            norm = as_layer(self.qk_norm)
            yield "q_norm", copy(norm)
            yield "k_norm", copy(norm)

    def call_options(self) -> frozenset[str]:
        names = super().call_options()
        # Without dropout a container need not derive keys for this layer.
        return names if self.dropout else names - {"key", "train"}

    @property
    def _kv_heads(self) -> int:
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def _rotary(self) -> Rotary | None:
        if self.rotary is None or isinstance(self.rotary, Rotary):
            return self.rotary
        return Rotary(self.rotary)

    def _projections(self, features: int, head_dim: int) -> tuple[Dense, Dense, Dense, Dense]:
        """The Dense layers for queries, keys, values and the output of attention."""

        def dense(features: int | tuple[int, ...], axis: int | tuple[int, ...] = -1) -> Dense:
            return Dense(
                features,
                axis=axis,
                use_bias=self.use_bias,
                kernel_init=self.kernel_init,
                bias_init=self.bias_init,
                param_dtype=self.param_dtype,
                dtype=self.dtype,
            )

        # Keys and values are projected by equal layers, which compile once.
        to_keys_or_values = dense((self._kv_heads, head_dim))
        return dense((self.heads, head_dim)), to_keys_or_values, to_keys_or_values, dense(features, axis=(-2, -1))

    def _head_dim(self, x: PyTree) -> int:
        """The number of features of each attention head; checks the input."""
        features = floats(self, x).shape[-1]
        if len(x.shape) != 3:
            raise misfit(self, "an input of the shape (batch, time, features)", describe(x))
        if self.head_dim is None and features % self.heads:
            raise misfit(self, f"features that {self.heads} heads divide, or head_dim=", f"the input {describe(x)}")
        head_dim = self.head_dim or features // self.heads
        rotary = self._rotary
        if rotary is None:
            return head_dim
        size = rotary.size(head_dim)
        if size % 2 or not size:  # features are rotated in pairs
            rotated = "" if rotary.fraction == 1 else f" of {head_dim}, the fraction {rotary.fraction}"
            expected = "an even number of features in each head for rotary positions"
            raise misfit(self, expected, f"{size}{rotated}")
        return head_dim

    def _check_source(self, x: jax.Array, context: PyTree, values: PyTree, cache: Cache | None) -> None:
        if context is None and values is None:
            return
        if self.causal or self.rotary is not None or cache is not None:
            expected = "no cache, causal= or rotary= with a context, whose places have no order"
            raise misfit(self, expected, "both")
        check_context(self, x, context, "a context")
        check_context(self, x, values, "values")
        places = x.shape[1] if context is None else context.shape[1]
        if values is not None and values.shape[1] != places:
            raise misfit(self, f"values for {places} places, as there are keys", describe(values))

    def _check_key(self, key: jax.Array | None, train: bool) -> None:
        # Otherwise a forgotten key would silently mean training without dropout.
        if self.dropout and train and key is None:
            raise misfit(self, "a key in training, key=jax.random.fold_in(key, step)", "train=True and no key")

    def _normed(self, params: Params, q: jax.Array, k: jax.Array) -> tuple[jax.Array, jax.Array]:
        norms = dict(self.parts())
        if not norms:
            return q, k
        q = call_part("q_norm", norms["q_norm"], params, q, {})
        return q, call_part("k_norm", norms["k_norm"], params, k, {})

    def _rotated(
        self, q: jax.Array, k: jax.Array, positions: jax.Array | None, cache: Cache | None
    ) -> tuple[jax.Array, jax.Array]:
        rotary = self._rotary
        if rotary is None:
            return q, k
        time = q.shape[1]
        if positions is None:
            positions = jnp.arange(time)[None] if cache is None else next_places(cache, time)
        # Keys are cached as rotated, at their own positions, so a step rotates only the new ones.
        return rotary.rotate(q, positions), rotary.rotate(k, positions)

    def _order(self, time: int, places: int) -> jax.Array | None:
        """Which places each place sees by their order, bool[1, 1, time, places]; None for all."""
        if not self.causal:
            return None
        return causal_order(jnp.arange(time)[None], places, self.window)

    def _order_after(self, cache: Cache, time: int) -> jax.Array:
        """Which places of a cache each of the next places sees, bool[batch or 1, 1, time or 1, places]."""
        if not self.causal:
            return filled_after(cache, time)
        return causal_order(next_places(cache, time), cache["k"].shape[1], self.window)

    def _attended(
        self,
        q: jax.Array,
        k: jax.Array,
        v: jax.Array,
        order: jax.Array | None,
        mask: jax.Array | None,
        bias: jax.Array | None,
        key: jax.Array | None,
    ) -> jax.Array:
        if jnp.iscomplexobj(q):  # a softmax of complex scores is not defined
            raise misfit(self, "queries and keys of real numbers", describe(q))
        # In the dtype of the queries: a cache may be of another one.
        q, k, v = cast(self, self.dtype or q.dtype, q, k, v)
        scale = q.shape[-1] ** -0.5 if self.scale is None else self.scale
        if self.implementation == "cudnn":
            is_causal = self.causal and self.window is None and q.shape[1] == k.shape[1]
            return attended_by_cudnn(q, k, v, order, mask, bias, scale, is_causal=is_causal)
        scores = scores_of(q, k, scale)
        if self.soft_cap is not None:
            scores = capped(scores, self.soft_cap)
        weights = softmax_of_seen(scores, order, mask, bias)
        if self.dropout and key is not None:
            weights = dropped(weights, self.dropout, key)
        return weighted_sum(weights, v)
