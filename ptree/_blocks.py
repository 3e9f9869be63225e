"""Random bits in blocks: JAX's default generator with the same bits, made a block at a time.

On a CPU JAX makes all bits of an array in one loop over buffers of the array's size: three times the
array's memory, and every round of the generator goes through all of it. A block stays in the cache.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp

LARGE = 1 << 22
"""From how many elements on blocks are faster."""

_BLOCK = 1 << 16


def in_blocks(impl: str) -> Any:
    """The implementation of keys with the same bits as this one, in blocks where that is known how."""
    partitionable = jax.config.jax_threefry_partitionable  # pyright: ignore[reportAttributeAccessIssue]
    return _threefry() if impl == "threefry2x32" and partitionable else impl


@lru_cache
def _threefry() -> Any:
    from jax.extend import random

    whole: Any = random.threefry_prng_impl

    def random_bits(key: Any, width: int, shape: tuple[int, ...]) -> Any:
        size = math.prod(shape)
        if width == 64 or not _BLOCK < size < 1 << 32:
            return whole.random_bits(key, width, shape)

        def block(start: Any) -> Any:  # element i is the generator's output for the counter (0, i)
            low = start + jax.lax.iota(jnp.uint32, _BLOCK)
            a, b = random.threefry2x32_p.bind(key[0], key[1], jnp.zeros_like(low), low)
            return (a ^ b).astype(f"uint{width}")

        blocks = jax.lax.map(block, jnp.arange(0, size, _BLOCK, dtype=jnp.uint32))
        return blocks.reshape(-1)[:size].reshape(shape)

    return random.define_prng_impl(
        key_shape=whole.key_shape, seed=whole.seed, split=whole.split, fold_in=whole.fold_in,
        random_bits=random_bits, name="threefry2x32 in blocks", tag="blocks",
    )  # fmt: skip
