"""MultiHeadAttention with grouped queries, rotary positions, causal and other masks, and a cache of keys and values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.typing import DTypeLike

from .. import initializers
from .._errors import LayerError
from .._tree import PyTree, Tree
from .._words import describe
from ._container import call_part
from ._dense import Dense
from ._inputs import cast, floats, misfit
from ._layer import Initializer, Layer, Params

Cache: TypeAlias = Mapping[str, jax.Array]
"""Keys `k` and values `v` f[batch, length, kv_heads, head_dim], and the number of places filled so far in `length`."""


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

    It computes with `jax.nn.dot_product_attention` (Vaswani et al. 2017).

    Args:
        heads: how many heads.
        head_dim: the features of each head; by default the input's, divided by the heads.
        kv_heads: how many heads of keys and values, which divide the heads: grouped-query attention, with 1
            multi-query attention (Ainslie et al. 2023).
        causal: whether a place sees only itself and the places before.
        rotary: the base of rotary positions (Su et al. 2021), such as 10000.0, or None. Feature i of a head is paired
            with feature i + head_dim / 2, as in Llama.
        implementation: passed to `jax.nn.dot_product_attention`: None, "xla" or "cudnn".

    Raises:
        LayerError: heads that do not divide the features, a sequence that is longer than the cache (inside of `jax.jit`,
            where the length is not known, places beyond the cache are NaN), an odd head with rotary positions, or an
            input, context, mask or positions that do not fit.
    """

    heads: int
    _: KW_ONLY
    head_dim: int | None = None
    kv_heads: int | None = None
    causal: bool = False
    rotary: float | None = None
    use_bias: bool = True
    kernel_init: Initializer | None = None
    bias_init: Initializer = initializers.zeros
    param_dtype: DTypeLike = jnp.float32
    dtype: DTypeLike | None = None
    implementation: Literal["xla", "cudnn"] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.heads % self._kv_heads:
            raise LayerError(f"{self!r}: expected heads that kv_heads divide, got {self.heads} and {self.kv_heads}")

    def declare(self, x: PyTree, context: PyTree = None) -> dict[str, Tree]:
        head_dim = self._head_dim(x)
        q, k, v, o = self._projections(x.shape[-1], head_dim)
        source = x if context is None else context
        attended = jax.ShapeDtypeStruct((*x.shape[:-1], self.heads, head_dim), x.dtype)
        return {"q": q.spec(x), "k": k.spec(source), "v": v.spec(source), "o": o.spec(attended)}

    def apply(
        self,
        params: Params,
        x: PyTree,
        *,
        context: jax.Array | None = None,
        mask: jax.Array | None = None,
        positions: jax.Array | None = None,
        cache: Cache | None = None,
    ) -> PyTree:
        """Compute the output, and with a cache the next cache.

        Args:
            context: what keys and values are computed from, f32[batch, places, features]; by default `x`.
            mask: bool, True where a place may be seen, of four axes that broadcast to [batch, heads, time, places];
                for padding `(ids != pad)[:, None, None, :]`. With a cache the places are those of the cache.
            positions: i32[batch or 1, time], of `x`, for rotary positions; by default 0, 1, ... after what the cache holds.
            cache: the result of `cache(...)` or of the last call; then the output is returned with the next cache.
        """
        to_q, to_k, to_v, to_output = self._projections(x.shape[-1], self._head_dim(x))
        # Before anything is computed: JAX's own errors would name neither the layer nor the argument.
        self._check_cache(cache)
        self._check_context(x, context, cache)
        source = x if context is None else context
        self._check_mask(x, source, mask, cache)
        self._check_positions(x, positions)
        q = call_part("q", to_q, params, x, {})
        k = call_part("k", to_k, params, source, {})
        v = call_part("v", to_v, params, source, {})
        if self.rotary is not None:
            places = _positions_after(cache, x) if positions is None else positions
            # Keys are cached as rotated, at their own positions, so a step rotates only the new ones.
            q, k = rotated(q, places, self.rotary), rotated(k, places, self.rotary)
        if cache is None:
            y = self._attended(q, k, v, mask, self.causal)
            return call_part("o", to_output, params, y, {})
        # The mask contains the causal one: `is_causal` would count places from the start of the cache.
        grown = self._grown(cache, k, v)
        seen = self._seen(cache, x.shape[1], mask)
        y = self._attended(q, grown["k"], grown["v"], seen, causal=False)
        y = _nan_after_the_end(y, cache)
        return call_part("o", to_output, params, y, {}), grown

    def cache(
        self, batch: int, length: int, head_dim: int | None = None, dtype: DTypeLike | None = None
    ) -> dict[str, jax.Array]:
        """An empty cache for sequences of at most `length`; `head_dim` unless it is an option of the layer."""
        size = head_dim or self.head_dim
        if size is None:
            raise LayerError(f"{self!r}: expected head_dim= for the cache, which depends on the input")
        shape = (batch, length, self._kv_heads, size)
        # The dtype in which keys and values are computed, unless the input is wider than the parameters.
        zeros = jnp.zeros(shape, dtype or self.dtype or self.param_dtype)
        return {"k": zeros, "v": zeros, "length": jnp.zeros((), jnp.int32)}

    @property
    def _kv_heads(self) -> int:
        return self.heads if self.kv_heads is None else self.kv_heads

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
        if self.rotary is not None and head_dim % 2:  # features are rotated in pairs
            expected = "an even number of features in each head for rotary positions"
            raise misfit(self, expected, str(head_dim))
        return head_dim

    def _check_cache(self, cache: Cache | None) -> None:
        if cache is not None and {*cache} != {"k", "v", "length"}:
            raise misfit(self, "what cache(...) or the last call gave", f"a cache with {sorted(cache)}")

    def _check_context(self, x: jax.Array, context: PyTree, cache: Cache | None) -> None:
        if context is None:
            return
        if self.causal or self.rotary is not None or cache is not None:
            raise misfit(self, "no cache, causal= or rotary= with a context, whose places have no order", "both")
        if len(floats(self, context).shape) != 3 or context.shape[0] != x.shape[0]:
            raise misfit(self, f"a context f32[{x.shape[0]},places,features]", describe(context))

    def _check_mask(self, x: jax.Array, source: jax.Array, mask: PyTree, cache: Cache | None) -> None:
        if mask is None:
            return
        places = source.shape[1] if cache is None else cache["k"].shape[1]
        full = (x.shape[0], self.heads, x.shape[1], places)
        # Fewer than four axes are refused: a padding mask bool[batch, places] would broadcast as [time, places].
        is_mask = len(getattr(mask, "shape", ())) == 4 and mask.dtype == bool
        fits = is_mask and all(size in (1, whole) for size, whole in zip(mask.shape, full))
        if not fits:
            raise misfit(self, f"a mask that broadcasts to bool{[*full]}, of four axes", describe(mask))

    def _check_positions(self, x: jax.Array, positions: PyTree) -> None:
        batch, time, _ = x.shape
        if positions is not None and getattr(positions, "shape", None) not in ((1, time), (batch, time)):
            raise misfit(self, f"positions i32[{batch} or 1,{time}]", describe(positions))

    def _attended(self, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None, causal: bool) -> jax.Array:
        q, k, v = cast(self, self.dtype, q, k, v)
        if q.dtype == jnp.float64:
            return _attended_in_float64(q, k, v, mask, causal)
        return jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=causal, implementation=self.implementation)

    def _grown(self, cache: Cache, k: jax.Array, v: jax.Array) -> dict[str, jax.Array]:
        """Write the keys and values of the next places into a new cache; raise if they do not fit."""
        start, time, capacity = cache["length"], k.shape[1], cache["k"].shape[1]
        # Inside of `jax.jit` the length has no value to compare; `_nan_after_the_end` then marks the places too many.
        is_hidden = isinstance(start, Tracer)
        if time > capacity or (not is_hidden and int(start) + time > capacity):
            held = "those" if is_hidden else f"the {int(start)}"
            expected = f"at most {capacity} places in all, the length of the cache"
            raise misfit(self, expected, f"{time} after {held} it holds")
        if k.shape[2:] != cache["k"].shape[2:] or k.shape[0] != cache["k"].shape[0]:
            raise misfit(self, f"a cache for keys {describe(k)}", describe(cache["k"]))

        # It clamps the start where the new places do not fit, and so overwrites earlier ones: hence the check and the NaN.
        def written(name: str, new: jax.Array) -> jax.Array:
            return jax.lax.dynamic_update_slice_in_dim(cache[name], new.astype(cache[name].dtype), start, axis=1)

        return {"k": written("k", k), "v": written("v", v), "length": start + time}

    def _seen(self, cache: Cache, time: int, mask: jax.Array | None) -> jax.Array:
        """The mask of cache places that each of the next places sees: bool[batch or 1, heads or 1, time, length]."""
        start = cache["length"]
        # Also without `causal` places after the last written one are hidden: they are still zeros.
        last = start + jnp.arange(time) if self.causal else jnp.full((time,), start + time - 1)
        places = jnp.arange(cache["k"].shape[1])
        seen = (places[None] <= last[:, None])[None, None]
        return seen if mask is None else seen & mask


def _positions_after(cache: Cache | None, x: jax.Array) -> jax.Array:
    """The positions of the input after what a cache holds, i32[1, time]."""
    first = 0 if cache is None else cache["length"]
    return (first + jnp.arange(x.shape[1]))[None]


def rotated(x: jax.Array, positions: jax.Array, base: float) -> jax.Array:
    """Rotate queries or keys f32[batch, time, heads, size] by their positions: rotary embedding (Su et al. 2021)."""
    half = x.shape[-1] // 2
    # Angles in float32 at least: in bfloat16 positions above 256 would be rounded to their neighbours.
    wide = jnp.promote_types(x.dtype, jnp.float32)
    speed = base ** (-jnp.arange(half, dtype=wide) / half)
    angle = positions[..., None].astype(wide) * speed
    sin, cos = jnp.sin(angle)[:, :, None, :], jnp.cos(angle)[:, :, None, :]
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x.dtype)


def _nan_after_the_end(y: jax.Array, cache: Cache) -> jax.Array:
    """Set the attention output to NaN at places after the end of the cache: inside of `jax.jit` nothing can be raised."""
    places = cache["length"] + jnp.arange(y.shape[1])
    has_room = places < cache["k"].shape[1]
    return jnp.where(has_room[:, None, None], y, jnp.nan)


def _attended_in_float64(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None, causal: bool) -> jax.Array:
    """Attention in float64, for checks of gradients: `jax.nn.dot_product_attention` computes in float32 inside."""
    groups = q.shape[2] // k.shape[2]  # heads of queries that share one head of keys and values
    k, v = jnp.repeat(k, groups, 2), jnp.repeat(v, groups, 2)
    scores = jnp.einsum("bthd,bshd->bhts", q, k) / q.shape[-1] ** 0.5
    # A finite number rather than -inf, as in JAX: a row that sees nothing is uniform rather than NaN.
    seen = jnp.tri(*scores.shape[-2:], dtype=bool) if causal else jnp.ones((), bool)
    scores = jnp.where(seen if mask is None else seen & mask, scores, jnp.finfo(scores.dtype).min)
    return jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(scores), v)
