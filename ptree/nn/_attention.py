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
from .._leaf import describe
from .._tree import Tree
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
        LayerError: heads that do not divide the features, a sequence that is longer than the cache, an odd head with
            rotary positions, or an input that does not fit the kernels.
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
            mask: True where a place may be seen, of a shape that broadcasts to [batch, heads, time, places]; for
                padding `(ids != pad)[:, None, None, :]`.
            positions: i32[batch or 1, time], of `x`, for rotary positions; by default 0, 1, ... after what the cache holds.
            cache: what `cache(...)` or the last call gave; then the output comes with the next one.
        """
        own = self._dense(x)
        if cache is not None and context is not None:
            raise unfit(self, "a cache or a context", "both")
        places = x if context is None else context
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
        backend: Any = self.implementation
        y = jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=causal, implementation=backend)
        y = apply(own["o"], "o", params, y)
        return y if cache is None else (y, cache)

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
            raise unfit(
                self, f"at most {capacity} places in all, the length of the cache", f"{time} after those it holds"
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


def turned(x: Any, positions: Any, base: float) -> Any:
    """Queries or keys f32[batch, time, heads, size] turned by their position: rotary embedding (Su et al. 2021)."""
    half = x.shape[-1] // 2
    speed = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = positions[..., None].astype(jnp.float32) * speed
    sin, cos = (f(angle)[:, :, None, :] for f in (jnp.sin, jnp.cos))
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x.dtype)
