"""StoredLeaf: the description of one leaf in a file: name, kind, dtype, shape, offsets and checksum."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np


@dataclass(frozen=True)
class StoredLeaf:
    """The description of one leaf in a file. `OpenLeaf` reads such a leaf, and `UnsavedLeaf` writes it."""

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
    unreadable: str = ""
    """Why this ptree cannot read its numbers, such as "is of the dtype 'F4', which this ptree does not know"."""
    is_damaged: bool = False
    """Whether that is because the file is damaged."""

    @property
    def nbytes(self) -> int:
        """How many bytes it takes in the file, which are as many as in memory."""
        if self.unreadable:
            return self.stop - self.start
        return prod(self.shape) * self.dtype.itemsize
