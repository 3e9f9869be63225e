"""Moments of arrays on accelerators, and of arrays over several devices: computed in blocks where the numbers are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from math import prod

import jax
import jax.numpy as jnp
import numpy as np

from ._layer_moments import Layers
from ._moments import Moments, together
from ._sources import Source
from ._tree_source import TreeSource

_BLOCK = 1 << 16
"""Numbers: the counts in a block are exact in f32, and its sums lose no digits that matter."""


def device_moments(source: Source, path: str, layers: Layers) -> Callable[[], list[Moments]] | None:
    """Start to compute the moments of a leaf; returns a function that waits for them, or None if NumPy should read it."""
    if not isinstance(source, TreeSource):
        return None
    leaf = source.values_by_path[path]
    if not isinstance(leaf, jax.Array) or not leaf.size or not _is_for_device(leaf):
        return None
    stacks = leaf.ndim - len(layers.shape)
    shards = list(_different_shards(leaf))
    computed = [_block_moments(data, stacks) for _, data in shards]  # dispatched, and not waited for

    def fetch() -> list[Moments]:
        parts: list[list[Moments]] = [[] for _ in layers.paths]
        for (index, data), blocks in zip(shards, computed):
            place = _Place(index, leaf.shape, data.shape, stacks)
            for row, values in enumerate(np.asarray(blocks, np.float64)):
                parts[place.layer(row)] += [_moments(block, at, place) for at, block in enumerate(values)]
        return [together(part) for part in parts]

    return fetch


def _is_for_device(array: jax.Array) -> bool:
    """Whether the array should be read where it is: not by NumPy, and of a dtype that f32 holds exactly."""
    devices = array.sharding.device_set
    if len(devices) == 1 and next(iter(devices)).platform == "cpu":
        return False
    is_small = jnp.issubdtype(array.dtype, jnp.integer) and array.dtype.itemsize <= 2
    return bool(jnp.issubdtype(array.dtype, jnp.floating) or is_small or array.dtype == bool)


def _different_shards(array: jax.Array) -> Iterator[tuple[tuple[slice, ...], jax.Array]]:
    """The parts of an array that this process holds, each once: its index and its numbers."""
    seen: set[str] = set()
    for shard in array.addressable_shards:
        if shard.data is not None and str(shard.index) not in seen:
            seen.add(str(shard.index))
            yield shard.index, shard.data


@partial(jax.jit, static_argnums=1)
def _block_moments(array: jax.Array, stacks: int) -> jax.Array:
    """`[layer, block, statistic]`: count, mean, squares, scale, largest, zeros, non-finite, first non-finite."""
    if array.dtype != jnp.float64:
        array = array.astype(jnp.float32)
    rows = array.reshape(prod(array.shape[:stacks]), -1)
    layers, size = rows.shape
    whole = size // _BLOCK * _BLOCK
    parts: list[jax.Array] = []
    if whole:
        parts.append(_of_blocks(rows[:, :whole].reshape(layers, -1, _BLOCK)))
    if whole < size:
        parts.append(_of_blocks(rows[:, None, whole:]))
    return jnp.concatenate(parts, axis=1)


def _of_blocks(numbers: jax.Array) -> jax.Array:
    is_finite = jnp.isfinite(numbers)
    finite = jnp.where(is_finite, numbers, 0)
    count = is_finite.sum(-1, dtype=jnp.int32)
    largest = jnp.abs(finite).max(-1)
    # XLA multiplies by the reciprocal, which must not be so small that it is flushed to zero
    scale = jnp.maximum(largest / 8, jnp.finfo(numbers.dtype).smallest_normal)
    shares = finite / scale[..., None]
    mean = shares.sum(-1) / jnp.maximum(count, 1)
    distances = jnp.where(is_finite, shares - mean[..., None], 0)
    zeros = (numbers == 0).sum(-1, dtype=jnp.int32)
    first = is_finite.argmin(-1)
    statistics = [count, mean, jnp.square(distances).sum(-1), scale, largest, zeros, numbers.shape[-1] - count, first]
    return jnp.stack([statistic.astype(numbers.dtype) for statistic in statistics], axis=-1)


class _Place:
    """Where a shard stands in its array."""

    def __init__(self, index: tuple[slice, ...], shape: tuple[int, ...], part: tuple[int, ...], stacks: int):
        starts = [axis.start or 0 for axis in index]
        self._stacks = shape[:stacks], part[:stacks], starts[:stacks]
        self._rest = shape[stacks:], part[stacks:], starts[stacks:]

    def layer(self, row: int) -> int:
        """The number of a layer of the array, from that of a layer of the shard."""
        return _moved(row, *self._stacks)

    def place(self, at: int) -> int:
        """A place in a layer of the array, from that in a layer of the shard."""
        return _moved(at, *self._rest)


def _moved(at: int, shape: tuple[int, ...], part: tuple[int, ...], starts: list[int]) -> int:
    """A flat place in a whole, from that in a part of it which begins at `starts`."""
    if not shape:
        return 0
    index = [inside + start for inside, start in zip(np.unravel_index(at, part), starts)]
    return int(np.ravel_multi_index(index, shape))


def _moments(block: np.ndarray, at: int, place: _Place) -> Moments:
    count, mean, squares, scale, largest, zeros, nonfinite, first = (float(value) for value in block)
    # of a shard whose inner axes are cut, the first place in its own order is also the first in that of the array
    where = place.place(at * _BLOCK + int(first)) if nonfinite else -1
    return Moments(int(count), mean * scale, squares, scale, largest, int(zeros), int(nonfinite), where)
