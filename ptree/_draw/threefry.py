"""Threefry: JAX's default generator with the same bits, its rounds written out so that XLA can fuse them.

On a CPU JAX rolls the rounds into a loop over buffers of the array's size: three times the array's memory, and
every round goes through all of it. Written out, they become one pass with what is made of the bits.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)


def fused(impl: str) -> Any:
    """The implementation of keys with the same bits as this one, made in one pass where that is known how."""
    partitionable = jax.config.jax_threefry_partitionable  # pyright: ignore[reportAttributeAccessIssue]
    return _implementation() if impl == "threefry2x32" and partitionable else impl


@lru_cache
def _implementation() -> Any:
    from jax.extend import random

    whole: Any = random.threefry_prng_impl

    def random_bits(key: Any, width: int, shape: tuple[int, ...]) -> Any:
        if width == 64 or math.prod(shape) >= 1 << 32:
            return whole.random_bits(key, width, shape)
        place = jnp.zeros(shape, jnp.uint32)  # element i is the generator's output for the counter (0, i)
        for axis in range(len(shape)):
            step = np.uint32(math.prod(shape[axis + 1 :]))
            place += step * jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
        a, b = threefry(key[0], key[1], place)
        return (a ^ b).astype(f"uint{width}")

    return random.define_prng_impl(
        key_shape=whole.key_shape, seed=whole.seed, split=whole.split, fold_in=whole.fold_in,
        random_bits=random_bits, name="threefry2x32 in one pass", tag="fused",
    )  # fmt: skip


def threefry(k0: Any, k1: Any, place: Any) -> tuple[Any, Any]:
    """Threefry-2x32 with 20 rounds (Salmon et al. 2011) of the counter (0, place), on arrays of JAX or NumPy."""
    keys = k0, k1, k0 ^ k1 ^ np.uint32(0x1BD11BDA)
    a, b = keys[0], place + keys[1]
    for five in range(5):
        for turn in _ROTATIONS[five % 2]:
            a = a + b
            b = a ^ ((b << np.uint32(turn)) | (b >> np.uint32(32 - turn)))
        a, b = a + keys[(five + 1) % 3], b + keys[(five + 2) % 3] + np.uint32(five + 1)
    return a, b
