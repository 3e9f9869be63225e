"""Scaled dot-product attention: scores of queries and keys, capped, in causal order, softmax over seen places, dropped
weights; or by cuDNN."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax.lax import DotAlgorithmPreset


def scores_of(q: jax.Array, k: jax.Array, scale: float) -> jax.Array:
    """Scores f32[batch, heads, time, places] of queries f[batch, time, heads, size] and keys f[batch, places, kv_heads, size]."""
    batch, time, heads, size = q.shape
    kv_heads = k.shape[2]
    # Queries in the order of the scores: otherwise XLA transposes the scores, which takes 1.3 times as long on a CPU.
    grouped = q.swapaxes(1, 2).reshape(batch, kv_heads, heads // kv_heads, time, size)
    scores = _product(grouped, k).reshape(batch, heads, time, k.shape[1])
    return scores * jnp.asarray(scale, scores.dtype)


def capped(scores: jax.Array, cap: float) -> jax.Array:
    """Scores within -cap and cap, by a tanh (Gemma 2)."""
    return cap * jnp.tanh(scores / cap)


def softmax_of_seen(
    scores: jax.Array, order: jax.Array | None, mask: jax.Array | None, bias: jax.Array | None
) -> jax.Array:
    """Softmax of the scores plus the bias over the places that are seen; zeros where there is none.

    Args:
        scores: f32[batch, heads, time, places].
        order: bool, the places that are seen by their order alone, at least one in each row.
        mask: bool; a row may see nothing.
        bias: floats that are added to the scores; -inf hides a place.
    """
    seen = order
    if bias is not None:
        scores = scores + bias.astype(scores.dtype)
        seen = _both(seen, bias != -jnp.inf)
    seen = _both(seen, mask)
    if seen is None:
        return jax.nn.softmax(scores)
    # Hidden scores are -inf, and not a large negative number: the bias of a place that is seen may be as large.
    if mask is None and bias is None:
        return jax.nn.softmax(jnp.where(seen, scores, -jnp.inf))
    sees_any = seen.any(-1, keepdims=True)
    # A row of -inf alone has a softmax of NaN, which its gradient would spread.
    hidden = jnp.where(sees_any, -jnp.inf, jnp.zeros((), scores.dtype))
    return jnp.where(sees_any, jax.nn.softmax(jnp.where(seen, scores, hidden)), 0)


def dropped(weights: jax.Array, rate: float, key: jax.Array) -> jax.Array:
    """Weights of which a random share is 0 and the others are scaled up."""
    keep = jax.random.bernoulli(key, 1 - rate, weights.shape)
    return jnp.where(keep, weights / (1 - rate), 0)


def weighted_sum(weights: jax.Array, v: jax.Array) -> jax.Array:
    """The sum of values f[batch, places, kv_heads, size] for each head and place, f[batch, time, heads, size]."""
    batch, heads, time, places = weights.shape
    kv_heads, size = v.shape[2:]
    grouped = weights.astype(v.dtype).reshape(batch, kv_heads, heads // kv_heads, time, places)
    y = jnp.einsum("bkgts,bskd->bkgtd", grouped, v)
    return y.reshape(batch, heads, time, size).swapaxes(1, 2)


def attended_by_cudnn(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    order: jax.Array | None,
    mask: jax.Array | None,
    bias: jax.Array | None,
    scale: float,
    *,
    is_causal: bool,
) -> jax.Array:
    """Attention by cuDNN's fused kernel, which skips what a causal order hides; only on a GPU, in 16 bits."""
    seen = _both(order, mask)
    given = mask if is_causal else seen
    y = jax.nn.dot_product_attention(
        q, k, v, bias=bias, mask=given, scale=scale, is_causal=is_causal, implementation="cudnn"
    )
    if bias is not None:
        seen = _both(seen, bias != -jnp.inf)
    if seen is None or (mask is None and bias is None):
        return y
    sees_any = seen.any(-1, keepdims=True).swapaxes(1, 2)
    return jnp.where(sees_any, y, 0)


def causal_order(places: jax.Array, count: int, window: int | None) -> jax.Array:
    """Which of `count` places are seen, bool[batch or 1, 1, time, count], from `places` i32[batch or 1, time]."""
    last = places[..., None]
    others = jnp.arange(count, dtype=places.dtype)
    seen = others <= last
    if window is not None:
        # After the end of a cache the last places are seen, so that no row is empty.
        seen &= others > jnp.minimum(last, count - 1) - window
    return seen[:, None]


def _both(a: jax.Array | None, b: jax.Array | None) -> jax.Array | None:
    if a is None or b is None:
        return a if b is None else b
    return a & b


def _product(q: jax.Array, k: jax.Array) -> jax.Array:
    """The products of queries and keys, summed in float32 at least."""
    # The algorithm keeps the products of the gradient in 16 bits too: https://github.com/jax-ml/jax/issues/24047
    if q.dtype == jnp.bfloat16:
        return _einsum(q, k, DotAlgorithmPreset.BF16_BF16_F32)
    if q.dtype == jnp.float16:
        # Only GPUs have it; a CPU would refuse to compile.
        on_gpu = partial(_einsum, algorithm=DotAlgorithmPreset.F16_F16_F32)
        elsewhere = partial(_einsum, algorithm=None)
        return jax.lax.platform_dependent(q, k, cuda=on_gpu, rocm=on_gpu, default=elsewhere)
    return _einsum(q, k, None)


def _einsum(q: jax.Array, k: jax.Array, algorithm: DotAlgorithmPreset | None) -> jax.Array:
    wide = jnp.promote_types(q.dtype, jnp.float32)
    return jnp.einsum("bkgtd,bskd->bkgts", q, k, precision=algorithm, preferred_element_type=wide)
