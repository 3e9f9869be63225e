"""Check the inputs of attention besides `x`: the context of keys and values, mask and bias of four axes (batch, heads, time,
places), positions, cache."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from .._tree import PyTree
from .._words import describe
from ._decoding_cache import Cache, known_length
from ._inputs import floats, misfit
from ._layer import Layer


def check_context(layer: Layer, x: jax.Array, context: PyTree, name: str) -> None:
    """Check the context that keys or values are computed from; `name` is that of the argument."""
    if context is None:
        return
    if len(floats(layer, context).shape) != 3 or context.shape[0] != x.shape[0]:
        raise misfit(layer, f"{name} f32[{x.shape[0]},places,features]", describe(context))


def check_mask(layer: Layer, mask: PyTree, full: tuple[int, int, int, int]) -> None:
    """Check a mask, bool of four axes that broadcast to (batch, heads, time, places)."""
    if mask is None:
        return
    is_bool = _is_bool(mask)
    if is_bool and _broadcasts(mask, full):
        return
    expected = f"a mask that broadcasts to bool{[*full]}, of four axes"
    # A mask of floats is refused: in PyTorch it is added to the scores, in Flax and Keras it is 0 and 1.
    fix = "" if is_bool else "; write mask != 0 for one of 0 and 1, bias= for what is added to the scores"
    raise misfit(layer, expected, f"{describe(mask)}{fix}{_four_axes('mask', mask, full)}")


def check_bias(layer: Layer, bias: PyTree, full: tuple[int, int, int, int]) -> None:
    """Check a bias of the scores, floats of four axes that broadcast to (batch, heads, time, places)."""
    if bias is None:
        return
    dtype = _dtype_of(bias)
    is_float = dtype is not None and jnp.issubdtype(dtype, jnp.floating)
    if is_float and _broadcasts(bias, full):
        return
    expected = f"a bias that broadcasts to f32{[*full]}, of four axes"
    fix = "; write mask= for it" if _is_bool(bias) else ""
    raise misfit(layer, expected, f"{describe(bias)}{fix}{_four_axes('bias', bias, full)}")


def check_positions(layer: Layer, x: jax.Array, positions: PyTree) -> None:
    """Check the positions of the input's places, numbers of the shape (batch or 1, time)."""
    if positions is None:
        return
    batch, time, _ = x.shape
    dtype = _dtype_of(positions)
    is_number = (
        dtype is not None and jnp.issubdtype(dtype, jnp.number) and not jnp.issubdtype(dtype, jnp.complexfloating)
    )
    if is_number and np.shape(positions) in ((1, time), (batch, time)):
        return
    expected = f"positions i32[{batch},{time}]" if batch == 1 else f"positions i32[{batch},{time}] or i32[1,{time}]"
    fix = "; write positions[None]" if np.shape(positions) == (time,) else ""
    raise misfit(layer, expected, f"{describe(positions)}{fix}")


def check_cache(layer: Layer, x: jax.Array, cache: PyTree, kv_heads: int, head_dim: int) -> None:
    """Check that a cache is for such keys, and has room for the places of the input where its length is known."""
    if cache is None:
        return
    if not isinstance(cache, Mapping) or {*cache} != {"k", "v", "length"}:
        got = f"a cache with {sorted(cache)}" if isinstance(cache, Mapping) else describe(cache)
        raise misfit(layer, "what cache(...) or the last call gave", got)
    batch, time, _ = x.shape
    for name in ("k", "v"):
        shape = np.shape(cache[name])
        if len(shape) != 4 or (shape[0], *shape[2:]) != (batch, kv_heads, head_dim):
            expected = f"a cache with {name} of the shape ({batch}, places, {kv_heads}, {head_dim})"
            raise misfit(layer, expected, describe(cache[name]))
    length = cache["length"]
    if np.shape(length) not in ((), (batch,)) or not jnp.issubdtype(_dtype_of(length) or type(length), jnp.integer):
        raise misfit(layer, f"the length of a cache, i32[] or i32[{batch}]", describe(length))
    _check_room(layer, cache, time)


def _check_room(layer: Layer, cache: Cache, time: int) -> None:
    capacity = cache["k"].shape[1]
    held = known_length(cache)
    if (held or 0) + time <= capacity:
        return
    expected = f"at most {capacity} places in all, the length of the cache"
    raise misfit(layer, expected, f"{time} after {'those' if held is None else f'the {held}'} it holds")


def _dtype_of(array: PyTree) -> np.dtype | None:
    """The dtype of an array; None for anything else."""
    return array.dtype if hasattr(array, "dtype") and hasattr(array, "shape") else None


def _is_bool(array: PyTree) -> bool:
    dtype = _dtype_of(array)
    return dtype is not None and jnp.issubdtype(dtype, jnp.bool)


def _broadcasts(array: PyTree, full: tuple[int, ...]) -> bool:
    # Fewer than four axes are refused: a padding mask bool[batch, places] would broadcast as [time, places].
    return len(array.shape) == 4 and all(size in (1, whole) for size, whole in zip(array.shape, full))


def _four_axes(name: str, array: PyTree, full: tuple[int, int, int, int]) -> str:
    """The fix for a mask or bias without four axes: the index to write, by what its sizes may mean."""
    batch, heads, time, places = full
    shape = np.shape(array)
    fixes: list[str] = []
    if shape == (places,):
        fixes.append(f"{name}[None, None, None] for (places,)")
    if shape in ((batch, places), (1, places)):
        fixes.append(f"{name}[:, None, None] for (batch, places)")
    if shape == (time, places):
        fixes.append(f"{name}[None, None] for (time, places)")
    if shape in ((batch, time, places), (1, time, places), (batch, 1, places), (1, 1, places)):
        fixes.append(f"{name}[:, None] for (batch, time, places)")
    elif shape == (heads, time, places):
        fixes.append(f"{name}[None] for (heads, time, places)")
    return f"; write {' or '.join(fixes)}" if fixes else ""
