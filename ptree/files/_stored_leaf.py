"""StoredLeaf: what a file says about one leaf - its name, kind, dtype, shape, place in the file and checksum."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from .._tree import LEAF_TYPES


@dataclass(frozen=True)
class StoredLeaf:
    """One leaf in a file. What reads it is `OpenLeaf`, what writes it is `UnsavedLeaf`."""

    name: str
    kind: str
    """What the leaf is, as FORMAT.md names it: "" for a JAX array, "numpy", "key:threefry2x32", ..."""
    dtype: np.dtype
    shape: tuple[int, ...]
    start: int = 0
    """Its first byte, counted from the start of the file."""
    stop: int = 0
    checksum: str = ""
    """32 hexadecimal digits, or nothing where the file has none."""

    @property
    def nbytes(self) -> int:
        """How many bytes it takes in the file, which are as many as in memory."""
        return prod(self.shape) * self.dtype.itemsize


# JAX need not be asked whether it opens one: a third of the calls of a load
LEAF_TYPES.add(StoredLeaf)
