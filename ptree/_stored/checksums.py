"""Checksums: the XXH3 128-bit digest of bytes, of bytes that come run by run, or computed in another thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import xxhash

if TYPE_CHECKING:
    from concurrent.futures import Executor  # which imports logging

NO_CHECKSUM = "0" * 32
"""What a header holds in the place of a checksum before it is known."""

WORTH_A_THREAD = 1 << 20
"""Bytes: fewer are hashed in less time than it takes to hand them to another thread."""

# xxhash takes every object with a buffer, and its stubs name only bytes and str
digest: Callable[[bytes | np.ndarray], str] = xxhash.xxh3_128_hexdigest  # pyright: ignore[reportAssignmentType]
"""The checksum of bytes, as 32 hexadecimal digits."""


def digest_of_runs(runs: Iterable[np.ndarray]) -> str:
    """Compute the checksum of bytes that come run by run."""
    whole = xxhash.xxh3_128()
    for run in runs:
        whole.update(memoryview(run))  # pyright: ignore[reportArgumentType]
    return whole.hexdigest()


def digest_in_thread(pool: Executor, data: np.ndarray) -> Callable[[], str]:
    """Begin to compute a checksum, in another thread where that is worth it; call the result to have it."""
    if data.nbytes >= WORTH_A_THREAD:
        # at exit, when a save in the background goes on, Python begins no new threads
        with suppress(RuntimeError):
            # xxhash releases Python's lock, so that the next leaf is read or written meanwhile
            return pool.submit(digest, data).result
    found = digest(data)
    return lambda: found
