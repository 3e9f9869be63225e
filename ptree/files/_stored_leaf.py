"""StoredLeaf: what a file says about one leaf - its name, kind, dtype, shape, place in the file and checksum."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from ._dtypes import Storage, storage_of


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
    def storage(self) -> Storage:
        """How the file stores each number."""
        return storage_of(self.dtype)

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape of the tensor in the file, which has more axes than the leaf where its dtype is stored as several numbers."""
        return (*self.shape, *self.storage.axes)

    @property
    def nbytes(self) -> int:
        """How many bytes it takes in the file."""
        return prod(self.shape) * self.storage.itemsize
