"""LeafInParts: a leaf that several processes wrote, each its part of it into a file of its own; read as one leaf."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import numpy as np

from .._errors import FileError
from .._words import quoted
from .checksums import digest
from .facts import StoredParts
from .leaf_parts import Ranges, aligned_memory, block_shape, is_whole, slices_of
from .safetensors import SafetensorsFile
from .stored_leaf import StoredLeaf


@dataclass(frozen=True)
class _Part:
    leaf: StoredLeaf
    file: SafetensorsFile
    ranges: tuple[range, ...]
    """Its places in the whole leaf."""


class LeafInParts:
    """A leaf in parts: it reads as a `SafetensorsFile` reads its leaves. Each part that is read whole is compared with its checksum.

    Raises:
        FileError: the parts do not make up the leaf.
    """

    def __init__(
        self, name: str, stated: StoredParts, files: Mapping[str, SafetensorsFile], *, index: str, verify: bool
    ):
        self.path, self._verify = index, verify
        self._parts = [_part_of(part, start, files[part]) for part, start in stated.starts.items()]
        problem = _problem(stated.shape, self._parts)
        if problem:
            raise FileError(f"cannot load {index!r}: the parts of {quoted(name)} {problem}", is_damage=True)
        first = self._parts[0].leaf
        nbytes = prod(stated.shape) * first.dtype.itemsize
        # no checksum: that of each part is compared here
        self.leaf = StoredLeaf(name, first.kind, first.dtype, stated.shape, 0, nbytes, unreadable=first.unreadable)

    @property
    def has_checksum(self) -> bool:
        return all(part.leaf.checksum for part in self._parts)

    def array(self, leaf: StoredLeaf) -> np.ndarray:
        """The whole leaf."""
        return self.block(leaf, [range(size) for size in leaf.shape])

    def block(self, leaf: StoredLeaf, ranges: Ranges) -> np.ndarray:
        """A block of the leaf, put together from the parts that it lies in."""
        shape = block_shape(ranges)
        block = aligned_memory(prod(shape) * leaf.dtype.itemsize).view(leaf.dtype).reshape(shape)
        for part in self._parts:
            within = [_places_within(places, along) for places, along in zip(ranges, part.ranges)]
            if all(within):
                block[slices_of(within)] = self._read(part, _shifted(ranges, within, part))
        return block

    def _read(self, part: _Part, ranges: Ranges) -> np.ndarray:
        """Read places of a part; all of it is compared with its checksum."""
        found = part.file.block(part.leaf, ranges)
        if self._verify and is_whole(ranges, part.leaf.shape):
            self._compare(part, part.file.digest_of(part.leaf, found))
        return found

    def check(self) -> None:
        """Read all parts and compare them with their checksums; FileError if one is damaged."""
        for part in self._parts:
            self._compare(part, part.file.digest_by_runs(part.leaf))

    def _compare(self, part: _Part, checksum: str) -> None:
        if part.leaf.checksum in ("", checksum):
            return
        problem = (
            f"damaged, its bytes are not what its checksum says: {quoted(part.leaf.name)}, in {quoted(part.file.path)}"
        )
        error = FileError(f"cannot load {self.path!r}: {problem}", is_damage=True)
        error.damaged = [self.leaf.name]
        error.damage = (
            f"the bytes of {quoted(part.leaf.name)}, in {quoted(part.file.path)}, are not what its checksum says"
        )
        raise error

    def bytes_of_block(self, leaf: StoredLeaf, ranges: Ranges) -> int:
        """How many bytes `block` reads."""
        count = 0
        for part in self._parts:
            within = [_places_within(places, along) for places, along in zip(ranges, part.ranges)]
            if all(within):
                count += part.file.bytes_of_block(part.leaf, _shifted(ranges, within, part))
        return count

    def chunks(self, leaf: StoredLeaf, most: int) -> Iterator[np.ndarray]:
        """The numbers of the leaf in C order, at most `most` bytes at a time; the whole leaf is in memory meanwhile."""
        numbers = self.array(leaf).reshape(-1)
        count = max(1, most // leaf.dtype.itemsize)
        for start in range(0, numbers.size, count):
            yield numbers[start : start + count]

    def digest_of(self, leaf: StoredLeaf, array: np.ndarray) -> str:
        """The checksum of the numbers of the leaf in C order."""
        return digest(np.ascontiguousarray(array).reshape(-1).view(np.uint8))

    def digest_by_runs(self, leaf: StoredLeaf) -> str:
        """The checksum of the numbers of the leaf in C order; the whole leaf is in memory meanwhile."""
        return self.digest_of(leaf, self.array(leaf))


def _part_of(name: str, start: Sequence[int], file: SafetensorsFile) -> _Part:
    leaf = file.header.leaves[name]
    return _Part(leaf, file, tuple(range(first, first + size) for first, size in zip(start, leaf.shape)))


def _problem(shape: tuple[int, ...], parts: Sequence[_Part]) -> str:
    """Say how parts do not make up a leaf of this shape, as the cells of a grid; "" if they do."""
    if not parts:
        return "are none"
    first = parts[0].leaf
    if any((part.leaf.kind, part.leaf.dtype) != (first.kind, first.dtype) for part in parts):
        return "are of several dtypes or kinds"
    if any(len(part.ranges) != len(shape) or len(part.leaf.shape) != len(shape) for part in parts):
        return f"have another number of axes than the leaf, {len(shape)}"
    cells = [{(places.start, places.stop) for places in along} for along in zip(*(part.ranges for part in parts))]
    for axis, (bounds, size) in enumerate(zip(cells, shape)):
        in_order = sorted(bounds)
        is_cut_well = all(before[1] == after[0] for before, after in pairwise(in_order))
        if not (is_cut_well and in_order[0][0] == 0 and in_order[-1][1] == size):
            return f"do not fill axis {axis}, of {size:,}, one after the other"
    count = prod(map(len, cells))
    if len({tuple(part.ranges) for part in parts}) != len(parts) or len(parts) != count:
        return f"are {len(parts):,}, and not the {count:,} of a grid"
    return ""


def _places_within(places: range, along: range) -> range:
    """Which of the places, counted from the first of them, lie in a contiguous range."""
    # in ascending order, so that those in the range follow each other
    first = max(0, -((places.start - along.start) // places.step))
    stop = max(0, -((places.start - along.stop) // places.step))
    return range(min(first, len(places)), min(stop, len(places)))


def _shifted(ranges: Ranges, within: Ranges, part: _Part) -> list[range]:
    """The places of a block that lie in a part, counted from the first place of the part."""
    shifted: list[range] = []
    for places, inside, along in zip(ranges, within, part.ranges):
        chosen = places[inside.start : inside.stop]
        shifted.append(range(chosen.start - along.start, chosen.stop - along.start, chosen.step))
    return shifted
