"""The cache of keys and values for decoding: make one, write the next places into it, known length, NaN after the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.typing import DTypeLike

Cache: TypeAlias = Mapping[str, jax.Array]
"""Keys `k` and values `v` f[batch, places, kv_heads, head_dim], and `length`, how many places are filled: i32[] or, where it
differs from row to row, i32[batch]."""


def empty_cache(shape: tuple[int, int, int, int], dtype: DTypeLike) -> dict[str, jax.Array]:
    """A cache without any place filled, of keys and values of this shape."""
    return {"k": jnp.zeros(shape, dtype), "v": jnp.zeros(shape, dtype), "length": jnp.zeros((), jnp.int32)}


def known_length(cache: Cache) -> int | None:
    """How many places the fullest row holds; None while JAX traces, when lengths have no values."""
    length = cache["length"]
    return None if isinstance(length, Tracer) else int(jnp.max(length))


def next_places(cache: Cache, time: int) -> jax.Array:
    """The next places after those that are filled, i32[batch or 1, time]."""
    length = jnp.asarray(cache["length"], jnp.int32)
    return length.reshape(-1, 1) + jnp.arange(time, dtype=jnp.int32)


def filled_after(cache: Cache, time: int) -> jax.Array:
    """Which places are filled once the next ones are written, bool[batch or 1, 1, 1, places]."""
    length = jnp.asarray(cache["length"], jnp.int32).reshape(-1, 1, 1, 1)
    return jnp.arange(cache["k"].shape[1], dtype=jnp.int32) < length + time


def extended(cache: Cache, k: jax.Array, v: jax.Array) -> dict[str, jax.Array]:
    """A cache with the keys and values of the next places; places after its end are left out."""
    length = jnp.asarray(cache["length"])
    capacity = cache["k"].shape[1]
    return {
        "k": _written(cache["k"], k, length),
        "v": _written(cache["v"], v, length),
        "length": jnp.minimum(length + k.shape[1], capacity),
    }


def nan_after_the_end(y: jax.Array, cache: Cache) -> jax.Array:
    """Set the output f[batch, time, features] to NaN at places after the end: inside of `jax.jit` nothing can be raised."""
    fits = next_places(cache, y.shape[1]) < cache["k"].shape[1]
    return jnp.where(fits[..., None], y, jnp.nan)


def _written(old: jax.Array, new: jax.Array, length: jax.Array) -> jax.Array:
    new = new.astype(old.dtype)
    if length.ndim:
        return jax.vmap(_written_from, (0, 0, 0, None))(old, new, length, 0)
    return _written_from(old, new, length, 1)


def _written_from(old: jax.Array, new: jax.Array, start: jax.Array, axis: int) -> jax.Array:
    """Write new places from `start` on, as many as fit."""
    time = new.shape[axis]
    # JAX moves a block that does not fit back to the last start at which it does, over places that are filled. These get
    # the values that they have; a block takes less time than a scatter, and is written in place.
    first = jnp.minimum(start, old.shape[axis] - time)
    shift = start - first
    filled = jax.lax.dynamic_slice_in_dim(old, first, time, axis)
    moved = new
    if time > 1:
        moved = jnp.take(new, jnp.arange(time) - shift, axis, mode="clip")
    is_new = jnp.arange(time) >= shift
    is_new = is_new.reshape(-1, *[1] * (old.ndim - axis - 1))
    return jax.lax.dynamic_update_slice_in_dim(old, jnp.where(is_new, moved, filled), first, axis)
