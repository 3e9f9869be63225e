"""Moments of arrays on accelerators, and of arrays over several devices: computed in blocks where the numbers are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from math import prod

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from .._sources.source import Source
from .._sources.tree_source import TreeSource
from .moments import Moments, together
from .stack_layers import Layers

_BLOCK = 1 << 16
"""Numbers: the counts in a block are exact in f32, and its sums lose no digits that matter."""


_Shard = tuple[tuple[slice, ...], np.ndarray]
"""The index of a part of an array, and the statistics of its blocks."""


def device_moments(source: Source, path: str, layers: Layers) -> Callable[[], list[Moments]] | None:
    """Start to compute the moments of a leaf; returns a function that waits for them, or None if NumPy should read it."""
    if not isinstance(source, TreeSource):
        return None
    leaf = source.values_by_path[path]
    if not isinstance(leaf, jax.Array) or not leaf.size or not _is_for_device(leaf):
        return None
    stacks = leaf.ndim - len(layers.shape)
    shards = _start(leaf, stacks)

    def fetch() -> list[Moments]:
        parts: list[list[Moments]] = [[] for _ in layers.paths]
        shape = leaf.sharding.shard_shape(leaf.shape)
        for index, blocks in shards():
            place = _Place(index, leaf.shape, shape, stacks)
            for row, values in enumerate(blocks):
                parts[place.layer(row)] += [_moments(block, at, place) for at, block in enumerate(values)]
        return [together(part) for part in parts]

    return fetch


def _start(array: jax.Array, stacks: int) -> Callable[[], Iterator[_Shard]]:
    """Dispatch the programs, and return a function that waits for the blocks of each different shard."""
    sharding = array.sharding
    if isinstance(sharding, jax.NamedSharding) and isinstance(sharding.mesh, Mesh) and array.is_fully_addressable:
        of_all = _program_of_mesh(sharding.mesh, sharding.spec, stacks)(array)
        indices = sharding.devices_indices_map(array.shape)
        by_device = [indices[device] for device in sharding.mesh.devices.flat]
        return lambda: _different(zip(by_device, np.asarray(of_all, np.float64)))
    # a program for each device, of which XLA compiles as many
    computed = [
        (shard.index, _block_moments(shard.data, stacks))
        for shard in array.addressable_shards
        if shard.data is not None
    ]
    return lambda: _different((index, np.asarray(blocks, np.float64)) for index, blocks in computed)


@cache
def _program_of_mesh(mesh: Mesh, spec: jax.P, stacks: int) -> Callable[[jax.Array], jax.Array]:
    """One program for all devices of a mesh: `[device, layer, block, statistic]` of the shard that each one has."""
    of_shard = jax.shard_map(
        lambda shard: _block_moments(shard, stacks)[None],
        mesh=mesh,
        in_specs=spec,
        out_specs=jax.P(mesh.axis_names),
        check_vma=False,  # also where several devices have one shard
    )
    return jax.jit(of_shard)


def _different(shards: Iterable[_Shard]) -> Iterator[_Shard]:
    """The shards without those that other devices have too."""
    seen: set[str] = set()
    for index, blocks in shards:
        if str(index) not in seen:
            seen.add(str(index))
            yield index, blocks


def _is_for_device(array: jax.Array) -> bool:
    """Whether the array should be read where it is: not by NumPy, and of a dtype that f32 holds exactly."""
    devices = array.sharding.device_set
    if len(devices) == 1 and next(iter(devices)).platform == "cpu":
        return False
    is_small = jnp.issubdtype(array.dtype, jnp.integer) and array.dtype.itemsize <= 2
    return bool(jnp.issubdtype(array.dtype, jnp.floating) or is_small or array.dtype == bool)


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
