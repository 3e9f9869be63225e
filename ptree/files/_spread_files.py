"""Plan which process writes what of a tree that is sharded over processes: whole leaves where one has them, parts of the others."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import jax
import numpy as np

from .._errors import FileError
from .._stored.checksums import digest
from .._stored.facts import StoredParts
from .._stored.leaf_parts import Ranges, block_shape, ranges_of, slices_of
from .._words import lines, quoted
from ._kinds import UnsavedLeaf, fetched
from ._writer import Content, grouped


@dataclass(frozen=True)
class UnsavedBlock(UnsavedLeaf):
    """A block of an array that this process has on its devices, as a tensor to be written."""

    ranges: tuple[range, ...] = ()
    """Its places in the array."""

    def host_array(self) -> np.ndarray:
        array = self.array
        assert isinstance(array, jax.Array)
        block = np.empty(block_shape(self.ranges), self.stored.dtype)
        filled: set[tuple[range, ...]] = set()  # several devices may hold the same
        for shard in array.addressable_shards:
            places = ranges_of(shard.index, array.shape)
            is_inside = all(_is_within(one, whole) for one, whole in zip(places, self.ranges))
            if is_inside and places not in filled:
                filled.add(places)
                block[slices_of(_from(self.ranges, places))] = fetched(shard.data)
        return block


def _is_within(places: range, whole: range) -> bool:
    return whole.start <= places.start and places.stop <= whole.stop


def _from(whole: Ranges, places: Ranges) -> list[range]:
    """Places counted from the first ones of a block."""
    return [range(one.start - first.start, one.stop - first.start) for one, first in zip(places, whole)]


@dataclass(frozen=True)
class SpreadPlan:
    """The files of all processes, the same in each, and the leaves that this process writes."""

    content: Content
    """What this process writes; the facts are those of the whole tree."""
    groups: list[list[str]]
    """The tensors of each file."""
    writers: list[int]
    """The process that writes each file."""
    total_size: int
    """Bytes of all tensors."""

    def digest(self) -> str:
        """A checksum of all that must be the same in each process."""
        facts, metadata = self.content.facts, self.content.metadata
        return digest(json.dumps([facts.to_json(), self.groups, self.writers, metadata]).encode())


class _Tensors:
    """The tensors of all processes as they are given out."""

    def __init__(self):
        self.sizes: dict[int, dict[str, int]] = {}
        """Process -> the tensors that it writes -> bytes."""
        self.here: dict[str, UnsavedLeaf] = {}
        self._loads: Counter[int] = Counter()

    def give(self, tensor: UnsavedLeaf, processes: Iterable[int]) -> None:
        """Give a tensor to that of the processes which has the fewest bytes to write so far."""
        name, size = tensor.stored.name, tensor.stored.nbytes
        chosen = min(sorted(processes), key=self._loads.__getitem__)
        self._loads[chosen] += size
        self.sizes.setdefault(chosen, {})[name] = size
        if chosen == jax.process_index():
            self.here[name] = tensor


def is_spread(leaves: Mapping[str, UnsavedLeaf]) -> bool:
    """Whether parts of a leaf are in other processes."""
    return not all(leaf.is_here for leaf in leaves.values())


def spread_plan(content: Content, limit: int | None) -> SpreadPlan:
    """Plan the files of a tree of which leaves are sharded over processes; `limit` is the most bytes of one file.

    Raises:
        FileError: the part of a leaf would have the name of another leaf.
    """
    tensors = _Tensors()
    parts: dict[str, StoredParts] = {}
    for name, leaf in content.leaves.items():
        array = leaf.array
        if not isinstance(array, jax.Array) or array.is_fully_addressable:
            tensors.give(leaf, [0])  # its values may differ between processes: those of the first are saved
            continue
        holders = _holders(array)
        whole = set.intersection(*holders.values())
        if whole:
            everything = tuple(range(size) for size in array.shape)
            tensors.give(UnsavedBlock(leaf.stored, array, everything), whole)
            continue
        starts: dict[str, tuple[int, ...]] = {}
        for ranges, processes in holders.items():
            part = _part_name(name, ranges)
            starts[part] = tuple(places.start for places in ranges)
            stored = replace(leaf.stored, name=part, shape=block_shape(ranges))
            tensors.give(UnsavedBlock(stored, array, ranges), processes)
        parts[name] = StoredParts(tuple(array.shape), starts)
    _refuse_taken_names(parts, content.leaves)
    groups, writers = [], []
    for process, sizes in sorted(tensors.sizes.items()):
        for group in [[*sizes]] if limit is None else grouped(sizes, limit):
            groups.append(group)
            writers.append(process)
    total = sum(sum(sizes.values()) for sizes in tensors.sizes.values())
    facts = replace(content.facts, parts=parts)
    return SpreadPlan(Content(tensors.here, facts, content.metadata), groups, writers, total)


def _holders(array: jax.Array) -> dict[tuple[range, ...], set[int]]:
    """The processes that hold each block of an array, in the order of the blocks."""
    holders: dict[tuple[range, ...], set[int]] = {}
    for device, index in array.sharding.devices_indices_map(array.shape).items():
        holders.setdefault(ranges_of(index, array.shape), set()).add(device.process_index)
    in_order = sorted(holders, key=lambda ranges: [places.start for places in ranges])
    return {ranges: holders[ranges] for ranges in in_order}


def _part_name(name: str, ranges: Ranges) -> str:
    """The name of a part, such as `blocks/0/w[0:32,64:128]`."""
    bounds = [f"{places.start}:{places.stop}" for places in ranges]
    return f"{name}[{','.join(bounds)}]"


def _refuse_taken_names(parts: Mapping[str, StoredParts], names: Iterable[str]) -> None:
    taken = {part for stated in parts.values() for part in stated.starts} & {*names}
    if taken:
        problems = [f"{quoted(name)} is the name of a part of another leaf" for name in sorted(taken)]
        raise FileError(
            f"cannot save these leaves, of which parts are in several processes: {lines(problems)}; ptree.rename them"
        )
