"""Threefry: JAX's default generator with the same bits, its rounds written out so that XLA can fuse them.

On a CPU JAX rolls the rounds into a loop over buffers of the array's size: three times the array's memory, and
every round goes through all of it. Written out, they become one pass with what is made of the bits.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

Array = TypeVar("Array", jax.Array, np.ndarray)
Implementation: TypeAlias = Hashable
"""An implementation of keys, as `jax.random.wrap_key_data` takes it: a name, or what `define_prng_impl` returns."""

_ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)


def fused(impl: Implementation) -> Implementation:
    """An implementation of keys with the same bits, in one pass for threefry2x32; any other stays as it is."""
    partitionable = jax.config.jax_threefry_partitionable  # pyright: ignore[reportAttributeAccessIssue]
    return _implementation() if impl == "threefry2x32" and partitionable else impl


@lru_cache
def _implementation() -> Implementation:
    from jax.extend import random  # not a part of `import jax`

    whole: Any = random.threefry_prng_impl

    def random_bits(key: jax.Array, width: int, shape: tuple[int, ...]) -> jax.Array:
        if width == 64 or math.prod(shape) >= 1 << 32:  # needs two words for each element, or for its number
            return whole.random_bits(key, width, shape)
        number = jnp.zeros(shape, jnp.uint32)  # element i is the generator's output for the counter (0, i)
        for axis in range(len(shape)):
            step = np.uint32(math.prod(shape[axis + 1 :]))
            number += step * jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
        a, b = threefry(key[0], key[1], number)
        return (a ^ b).astype(f"uint{width}")

    return random.define_prng_impl(
        key_shape=whole.key_shape, seed=whole.seed, split=whole.split, fold_in=whole.fold_in,
        random_bits=random_bits, name="threefry2x32 in one pass", tag="fused",
    )  # fmt: skip


def threefry(k0: Array, k1: Array, number: Array) -> tuple[Array, Array]:
    """Threefry-2x32 with 20 rounds (Salmon et al. 2011) of the counter (0, number), on arrays of JAX or NumPy."""
    keys = k0, k1, k0 ^ k1 ^ np.uint32(0x1BD11BDA)
    a, b = keys[0], number + keys[1]
    for group in range(5):
        for turn in _ROTATIONS[group % 2]:
            a = a + b
            b = a ^ ((b << np.uint32(turn)) | (b >> np.uint32(32 - turn)))
        a, b = a + keys[(group + 1) % 3], b + keys[(group + 2) % 3] + np.uint32(group + 1)
    return a, b
