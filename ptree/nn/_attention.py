"""MultiHeadAttention, with grouped heads, rotary positions, masks, and a cache for decoding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from .. import initializers
from .._errors import LayerError
from .._tree import Tree
from .._words import describe
from ._call import apply, cast, declared, floating, unfit
from ._layer import Layer
from ._linear import Dense


@dataclass(frozen=True, repr=False)
class MultiHeadAttention(Layer):
    """Attention of each place to all places, or to a context: f32[batch, time, features] -> the same shape.

    >>> layer = MultiHeadAttention(8, causal=True)
    >>> x = jnp.ones((2, 10, 64))
    >>> params = layer.init(jax.random.key(0), x)
    >>> params["q/kernel"].shape, params["o/kernel"].shape
    ((64, 8, 8), (8, 8, 64))
    >>> layer(params, x).shape
    (2, 10, 64)

    For decoding, a cache holds the keys and values of what has been: `cache=` gives the output and the next cache.

    >>> cache = layer.cache(batch=2, length=32, head_dim=8)
    >>> y, cache = layer(params, x[:, :9], cache=cache)
    >>> z, cache = layer(params, x[:, 9:], cache=cache)
    >>> bool(jnp.allclose(z, layer(params, x)[:, 9:], atol=1e-5)), int(cache["length"])
    (True, 10)

    It computes with `jax.nn.dot_product_attention` (Vaswani et al. 2017).

    Args:
        heads: how many heads.
        head_dim: the features of each; by default the input's, divided by the heads.
        kv_heads: how many heads of keys and values, which divide the heads: grouped-query attention, with 1
            multi-query attention (Ainslie et al. 2023).
        causal: whether a place sees only itself and what is before.
        rotary: the base of rotary positions (Su et al. 2021), such as 10000.0, or None. Halves of a head are turned
            against each other, as in Llama.
        implementation: that of `jax.nn.dot_product_attention`: None, "xla" or "cudnn".

    Raises:
        LayerError: heads that do not divide the features, a sequence that is longer than the cache (inside of `jax.jit`,
            where its length is not known, the places too many are NaN), an odd head with rotary positions, or an
            input, context, mask or positions that do not fit.
    """

    heads: int
    head_dim: int | None = None
    kv_heads: int | None = None
    causal: bool = False
    rotary: float | None = None
    use_bias: bool = True
    kernel_init: Callable[..., Any] | None = None
    bias_init: Callable[..., Any] = initializers.zeros
    param_dtype: Any = jnp.float32
    dtype: Any = None
    implementation: str | None = None

    def spec(self, x: Any, context: Any = None) -> Tree:
        own = self._dense(x)
        shape = jax.ShapeDtypeStruct((*x.shape[:-1], self.heads, self._size(x)), x.dtype)
        inputs = {"q": x, "k": x if context is None else context, "v": x if context is None else context, "o": shape}
        return Tree({name: declared(own[name], name, value) for name, value in inputs.items()})

    def __call__(
        self, params: Any, x: Any, *, context: Any = None, mask: Any = None, positions: Any = None, cache: Any = None
    ) -> Any:
        """Attend.

        Args:
            context: what keys and values are made of, f32[batch, places, features]; by default `x`.
            mask: bool, True where a place may be seen, of four axes that broadcast to [batch, heads, time, places];
                for padding `(ids != pad)[:, None, None, :]`. With a cache the places are those of the cache.
            positions: i32[batch or 1, time], of `x`, for rotary positions; by default 0, 1, ... after what the cache holds.
            cache: what `cache(...)` or the last call gave; then the output comes with the next one.
        """
        own = self._dense(x)
        places = x if context is None else context
        self._check(x, places, mask, positions, cache, context is not None)
        q, k, v = (apply(own[name], name, params, value) for name, value in (("q", x), ("k", places), ("v", places)))
        start = 0 if cache is None else cache["length"]
        if self.rotary is not None:
            if positions is None:
                positions = (start + jnp.arange(x.shape[-2]))[None]
            q, k = turned(q, positions, self.rotary), turned(k, positions, self.rotary)
        causal = self.causal
        if cache is not None:
            k, v, mask, cache = self._with_cache(k, v, mask, cache)
            causal = False  # the mask says it
        q, k, v = cast(self.dtype, q, k, v)
        if q.dtype == jnp.float64:
            y = _attended_in_float64(q, k, v, mask, causal)
        else:
            backend: Any = self.implementation
            y = jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=causal, implementation=backend)
        if cache is not None:  # where values are not known, a place after the cache's last reads NaN, which shows
            y = jnp.where((start + jnp.arange(x.shape[1]) < k.shape[1])[:, None, None], y, jnp.nan)
        y = apply(own["o"], "o", params, y)
        return y if cache is None else (y, cache)

    def _check(self, x: Any, places: Any, mask: Any, positions: Any, cache: Any, has_context: bool) -> None:
        if has_context and (self.causal or self.rotary is not None or cache is not None):
            raise unfit(self, "no cache, causal= or rotary= with a context, whose places have no order", "both")
        if len(floating(self, places).shape) != 3 or places.shape[0] != x.shape[0]:
            raise unfit(self, f"a context f32[{x.shape[0]},places,features]", describe(places))
        if cache is not None and {*cache} != {"k", "v", "length"}:
            raise unfit(self, "what cache(...) or the last call gave", f"a cache with {sorted(cache)}")
        count = places.shape[1] if cache is None else cache["k"].shape[1]
        full = (x.shape[0], self.heads, x.shape[1], count)
        if mask is not None:
            fits = len(getattr(mask, "shape", ())) == 4 and mask.dtype == bool
            if not fits or any(got not in (1, size) for got, size in zip(mask.shape, full, strict=True)):
                raise unfit(self, f"a mask that broadcasts to bool{[*full]}, of four axes", describe(mask))
        if positions is not None and (
            len(getattr(positions, "shape", ())) != 2
            or positions.shape[0] not in (1, x.shape[0])
            or positions.shape[1] != x.shape[1]
        ):
            raise unfit(self, f"positions i32[{x.shape[0]} or 1,{x.shape[1]}]", describe(positions))

    def cache(self, batch: int, length: int, head_dim: int | None = None, dtype: Any = None) -> dict[str, Any]:
        """An empty cache for sequences of at most `length`; `head_dim` where the layer was not told."""
        size = head_dim or self.head_dim
        if size is None:
            raise LayerError(f"{self!r}: expected head_dim= for the cache, which depends on the input")
        shape = (batch, length, self.kv_heads or self.heads, size)
        zeros = jnp.zeros(shape, dtype or self.dtype or self.param_dtype)
        return {"k": zeros, "v": zeros, "length": jnp.zeros((), jnp.int32)}

    def _with_cache(self, k: Any, v: Any, mask: Any, cache: Any) -> tuple[Any, Any, Any, Any]:
        """Keys and values of all places so far, which of them each place sees, and the next cache."""
        time, capacity = k.shape[1], cache["k"].shape[1]
        start = cache["length"]
        if time > capacity or (not isinstance(start, Tracer) and int(start) + time > capacity):
            held = "those" if isinstance(start, Tracer) else f"the {int(start)}"
            raise unfit(
                self, f"at most {capacity} places in all, the length of the cache", f"{time} after {held} it holds"
            )
        if k.shape[2:] != cache["k"].shape[2:] or len(k) != len(cache["k"]):
            raise unfit(self, f"a cache for keys {describe(k)}", describe(cache["k"]))
        k, v = (
            jax.lax.dynamic_update_slice_in_dim(cache[name], value.astype(cache[name].dtype), start, 1)
            for name, value in (("k", k), ("v", v))
        )
        places = jnp.arange(capacity)
        last = start + jnp.arange(time) if self.causal else jnp.full((time,), start + time - 1)
        seen = (places[None] <= last[:, None])[None, None]
        mask = seen if mask is None else seen & mask
        return k, v, mask, {"k": k, "v": v, "length": start + time}

    def _size(self, x: Any) -> int:
        features = floating(self, x).shape[-1]
        if len(x.shape) != 3:
            raise unfit(self, "an input of the shape (batch, time, features)", describe(x))
        if self.head_dim is None and features % self.heads:
            raise unfit(self, f"features that {self.heads} heads divide, or head_dim=", f"the input {describe(x)}")
        size = self.head_dim or features // self.heads
        if self.rotary is not None and size % 2:
            raise unfit(self, "an even number of features in each head for rotary positions", str(size))
        return size

    def _dense(self, x: Any) -> dict[str, Dense]:
        size, kv = self._size(x), self.kv_heads or self.heads
        options: dict[str, Any] = {
            "use_bias": self.use_bias, "kernel_init": self.kernel_init, "bias_init": self.bias_init,
            "param_dtype": self.param_dtype, "dtype": self.dtype,
        }  # fmt: skip
        out = Dense(x.shape[-1], axis=(-2, -1), **options)
        return {
            "q": Dense((self.heads, size), **options),
            "k": Dense((kv, size), **options),
            "v": Dense((kv, size), **options),
            "o": out,
        }

    def __post_init__(self) -> None:
        if self.heads < 1 or (self.kv_heads is not None and (self.kv_heads < 1 or self.heads % self.kv_heads)):
            raise LayerError(
                f"MultiHeadAttention: expected heads of at least 1 that kv_heads divide, got {self.heads} and {self.kv_heads}"
            )
        if self.rotary is not None and not self.rotary > 1:
            raise LayerError(
                f"MultiHeadAttention: expected a base above 1 of rotary positions, such as 1e4, got {self.rotary}"
            )
        if self.implementation not in (None, "xla", "cudnn"):
            raise LayerError(
                f"MultiHeadAttention: expected the implementation None, 'xla' or 'cudnn', got {self.implementation!r}"
            )


def turned(x: Any, positions: Any, base: float) -> Any:
    """Queries or keys f32[batch, time, heads, size] turned by their position: rotary embedding (Su et al. 2021)."""
    half = x.shape[-1] // 2
    wide = jnp.promote_types(x.dtype, jnp.float32)
    speed = base ** (-jnp.arange(half, dtype=wide) / half)
    angle = positions[..., None].astype(wide) * speed
    sin, cos = (f(angle)[:, :, None, :] for f in (jnp.sin, jnp.cos))
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x.dtype)


def _attended_in_float64(q: Any, k: Any, v: Any, mask: Any, causal: bool) -> Any:
    """What `jax.nn.dot_product_attention` computes, which has float32 inside: a check of gradients needs more."""
    k, v = (jnp.repeat(z, q.shape[2] // k.shape[2], 2) for z in (k, v))
    scores = jnp.einsum("bthd,bshd->bhts", q, k) / q.shape[-1] ** 0.5
    seen = jnp.tri(*scores.shape[-2:], dtype=bool) if causal else jnp.ones((), bool)
    scores = jnp.where(seen if mask is None else seen & mask, scores, jnp.finfo(scores.dtype).min)
    return jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(scores), v)
