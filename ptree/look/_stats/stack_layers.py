"""The layers of a stacked leaf: the path of each, and their shape."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from ..._paths import STACKED


@dataclass(frozen=True)
class Layers:
    """The layers of a stacked leaf, `blocks/:/kernel`; a leaf that is no stack is one layer."""

    paths: tuple[str, ...]
    """`blocks/0/kernel`, ..."""
    shape: tuple[int, ...]
    """Of one layer."""

    @property
    def size(self) -> int:
        return prod(self.shape)

    def index(self, place: int) -> tuple[int, ...] | None:
        """The index of a place in a layer; None where it is -1."""
        if place < 0:
            return None
        return tuple(int(at) for at in np.unravel_index(place, self.shape))


def layers_of(path: str, shape: tuple[int, ...]) -> Layers:
    """The layers of a leaf of this path and shape.

    >>> layers_of("blocks/:/kernel", (2, 4, 8)).paths
    ('blocks/0/kernel', 'blocks/1/kernel')
    """
    if STACKED not in path:  # most leaves, at a tenth of the time
        return Layers((path,), shape)
    segments = path.split("/")
    stacks = [at for at, segment in enumerate(segments) if segment == STACKED]
    if not stacks or len(stacks) > len(shape):
        return Layers((path,), shape)
    paths: list[str] = []
    for numbers in np.ndindex(shape[: len(stacks)]):
        for at, number in zip(stacks, numbers):
            segments[at] = str(number)
        paths.append("/".join(segments))
    return Layers(tuple(paths), shape[len(stacks) :])
