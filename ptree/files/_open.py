"""Open a file, or shards, and read leaves when they are asked for: File, a mapping from paths to open leaves."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, partial

import jax
import numpy as np
from jax.sharding import Sharding

from .._edit import entries, map_leaves
from .._errors import FileError, PathError, TieError
from .._foreign.unread_files import index_problem, problem_beside_safetensors
from .._paths import STACKED, split
from .._paths.dotted_names import hint_of_name
from .._stored.checksums import digest_in_thread
from .._stored.facts import Facts
from .._stored.leaf_in_parts import LeafInParts
from .._stored.leaf_parts import Ranges, ranges_of
from .._stored.locations import checked_location
from .._stored.safetensors import SafetensorsFile
from .._stored.stored import open_stored
from .._stored.stored_leaf import StoredLeaf
from .._stored.urls import is_url, name_at
from .._tree import Index as LayerIndex
from .._tree import Leaf, Tie, Tree, locate
from .._words import listed, quoted
from ._block_reading import Block, array_on_devices, block_around, blocks_here
from ._folder_problem import folder_problem
from ._foreign_tree import ForeignTree, is_foreign_file
from ._kinds import leaf_of, refuse_cut, refuse_unreadable
from ._open_leaf import OpenAlias, OpenLeaf
from ._saved_tree import Compare, ReadLeaves, SavedTree, damage_error, ties_of
from ._threads import thread_pool


def open(path: str | os.PathLike[str], *, verify: bool = True, mmap: bool = False) -> File | ForeignTree:
    """Open a file: names, shapes, sizes and metadata are known at once, and data are read when asked for.

    >>> import tempfile, ptree as pt, numpy as np
    >>> path = tempfile.mkdtemp() + "/m.safetensors"
    >>> pt.save(path, {"enc": {"kernel": np.arange(12.0).reshape(4, 3)}}, metadata={"run": "7"})
    <saved '...m.safetensors', 416 bytes>
    >>> with pt.open(path) as file:
    ...     print(list(file), file["enc/kernel"].shape, file.metadata)
    ...     file["enc/kernel"][1]
    ['enc/kernel'] (4, 3) {'run': '7'}
    array([3., 4., 5.])

    `[...]` reads a leaf whole, as it was saved, and compares it with its checksum; a slice reads only the bytes that
    it lies in, which are not compared. The shape and the slices of a PRNG key are those of its key words. A tied name
    reads as its source does through the tie, and `"blocks/1/w"` is one layer of the stack `"blocks/:/w"`. Numbers that JAX
    would cut to 32 bits come as NumPy's. A leaf of a dtype that this ptree does not know is an error when it is read.

    Args:
        path: a file that `ptree.save` or any other program wrote; also one of another framework, such as PyTorch's `.pt`,
            whose names are the framework's, and whose leaves are compared with checksums where its format has them. Or the
            URL of a safetensors file, of an index of shards or of a folder with one of these, `https://`, `s3://`, `hf://`
            and so on, of which only what is asked for is sent; fsspec reads it (the extra `remote`), and its settings hold
            what a server wants to know.
        verify: compare what is read with the checksums.
        mmap: map the file instead of reading it: arrays use its memory, and need none of their own. `save` to the
            same path leaves them as they are; a program that writes into the file changes them.

    Returns:
        A mapping from path to leaf, with `metadata`, `containers`, `size` and `bytes_read`; use it in `with`, or close it.

    Raises:
        FileError: no whole safetensors file, or one whose header is damaged.
        OSError: the file is not there or cannot be read.
    """
    text = checked_location(path, "open(path)")
    if not is_url(text) and is_foreign_file(text):
        return ForeignTree(text, verify=verify, mmap=mmap)
    return open_file(text, verify=verify, mmap=mmap)


def open_file(path: str, *, verify: bool = True, mmap: bool = False) -> File:
    """Open a file of safetensors or its shards; an error says what else is there.

    Raises:
        FileError: it is of another format, or damaged.
        OSError: nothing is there, or it cannot be read.
    """
    if is_url(path):
        return _open_url(path, verify, mmap)
    problem = index_problem(path)
    if problem:
        raise FileError(f"cannot read {quoted(path)}: {problem}")
    try:
        return File(path, verify=verify, mmap=mmap)
    except FileNotFoundError as error:
        problem = folder_problem(path)
        if not problem:
            raise
        raise FileNotFoundError(problem) from error
    except FileError as error:
        # the first 8 bytes of a page of HTML, or of half a zip, would say nothing as the length of a header
        problem = problem_beside_safetensors(path) if error.is_damage else ""
        if not problem:
            raise
        raise FileError(f"cannot read {quoted(path)}: {problem}", is_damage=True) from error


def _open_url(url: str, verify: bool, mmap: bool) -> File:
    try:
        return File(url, verify=verify, mmap=mmap)
    except FileError as error:
        if not error.is_damage or ".safetensors" in name_at(url):
            raise
        hint = "Files of other frameworks are read from this machine alone: copy it"
        raise FileError(f"{error}. {hint}", is_damage=True) from error


class File(SavedTree, Mapping[str, OpenLeaf]):
    """An open file: path -> leaf, in declared order; closed by `with`, or by `close`."""

    def __init__(self, path: str, *, verify: bool = True, mmap: bool = False):
        self._verify = verify
        self.stored = open_stored(path, verify=verify, mmap=mmap)
        self.path, self.metadata = self.stored.path, self.stored.metadata
        self.leaves = self.stored.leaves
        self.is_foreign = self.stored.facts is None
        self.facts = self.stored.facts or Facts(order=self.stored.names_by_place())
        try:
            self.ties = ties_of(self.facts)
        except TieError as error:
            self.close()
            raise FileError(f"cannot load {self.path!r}: {error}") from error

    @property
    def size(self) -> int:
        """How many bytes it has, all shards together."""
        return sum(shard.size for shard in self.stored.shards)

    @property
    def bytes_read(self) -> int:
        """How many bytes were read so far, those of the header too."""
        return sum(shard.bytes_read for shard in self.stored.shards)

    @property
    def containers(self) -> dict[str, str]:
        """Path -> type, of each node that was no Tree and no dict when it was saved."""
        return self.facts.containers

    @cached_property
    def tree(self) -> Tree:
        """The whole tree, unread: an `OpenLeaf` for each leaf, ties included."""
        return map_leaves(self._stored, lambda _, leaf: self._open_leaf(leaf.name))

    @cached_property
    def _stored(self) -> Tree:
        return self.stored_tree()

    @cached_property
    def _names(self) -> dict[str, StoredLeaf | Tie]:
        """All names of leaves, tied names too, in declared order."""
        if self.is_foreign:  # they need not be paths
            return {name: self.leaves[name] for name in self.facts.order}
        everything = entries(self._stored)  # empty nodes too, which have no name in the mapping
        return {path: value for path, value in everything.items() if isinstance(value, (StoredLeaf, Tie))}

    def _open_leaf(self, name: str, layers: LayerIndex = ()) -> OpenLeaf:
        return OpenLeaf(self.leaves[name], self.stored.by_leaf[name], self._verify, layers)

    # ---------------------------------------------------------------------------- a mapping

    def __getitem__(self, path: str) -> OpenLeaf:
        # the common case needs no tree of all names
        if path in self.leaves and path not in self.ties:
            return self._open_leaf(path)
        value = self._names.get(path)
        if isinstance(value, Tie):
            return OpenAlias(path, value, self._open_leaf(value.source))  # pyright: ignore[reportReturnType]
        if value is not None:
            return self._open_leaf(value.name)
        return self._open_layer(path)

    def _open_layer(self, path: str) -> OpenLeaf:
        """Open one layer of a leaf in a stack, "blocks/1/w", of which only its own bytes are read."""
        has_stacks = any(STACKED in name.split("/") for name in self.leaves)
        place = locate(self._stored, split(path)) if has_stacks and isinstance(path, str) else None
        if place is None or not isinstance(place.kept, StoredLeaf):
            near = hint_of_name(path, self._names) if isinstance(path, str) else ""
            raise PathError(f"no leaf {quoted(path)} in {self.path!r}.{near}")
        leaf = self._open_leaf(place.kept.name, place.layers)
        return leaf if place.tie is None else OpenAlias(path, place.tie, leaf)  # pyright: ignore[reportReturnType]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    # a Mapping would compare all items, and reading them is not what `==` should do
    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return id(self)

    def __enter__(self) -> File:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; arrays that use mapped memory stay."""
        for shard in self.stored.shards:
            shard.close()

    def __repr__(self) -> str:
        return f"<{len(self.leaves)} tensors, {self.size:,} bytes, in {self.path!r}>"

    # ---------------------------------------------------------------------------- reading

    def read(
        self,
        leaves: Iterable[StoredLeaf],
        shardings: Mapping[str, Sharding] | None = None,
        compare: Compare = "whole leaves",
    ) -> ReadLeaves:
        """Read leaves, each as its kind says, in the order of the data; those that have a sharding are placed so.

        Each leaf is hashed while the next is read. Of a leaf that is sharded over devices, each device's bytes are read alone.
        """
        shardings = shardings or {}
        # a disk reads fastest from front to back
        leaves = sorted(leaves, key=lambda leaf: (self.stored.by_leaf[leaf.name].path, leaf.start))
        try:
            # before the first byte is read: one error for all leaves
            refuse_unreadable(leaves)
            refuse_cut((leaf.name, leaf.dtype) for leaf in leaves if leaf.kind == "" or leaf.name in shardings)
            return self._read_in_turn(leaves, shardings, compare)
        except FileError as error:
            if error.is_damage:
                raise
            raise FileError(f"cannot load {self.path!r}: {error}") from None

    def _read_in_turn(
        self, leaves: Iterable[StoredLeaf], shardings: Mapping[str, Sharding], compare: Compare
    ) -> ReadLeaves:
        values: dict[str, Leaf] = {}
        sums: dict[str, Callable[[], str]] = {}
        with thread_pool("ptree.sum") as pool:
            for leaf in leaves:
                file, sharding = self.stored.by_leaf[leaf.name], shardings.get(leaf.name)
                has_sum = self._verify and leaf.checksum != ""
                if sharding is not None and not sharding.is_fully_replicated:
                    values[leaf.name] = _read_on_devices(file, leaf, sharding)
                    if isinstance(file, LeafInParts):
                        if self._verify and compare == "all leaves":
                            file.check()
                    # the parts do not make up the checksum, which is that of all bytes in order
                    elif has_sum and compare == "all leaves":
                        sums[leaf.name] = partial(file.digest_by_runs, leaf)
                    continue
                array = file.array(leaf)
                if has_sum and compare != "no leaves":
                    sums[leaf.name] = digest_in_thread(pool, array.reshape(-1).view(np.uint8))
                if sharding is None:
                    values[leaf.name] = leaf_of(array, leaf)
                else:
                    values[leaf.name] = array_on_devices(array.__getitem__, leaf.shape, leaf.dtype, sharding)
        damaged = [name for name, digest in sums.items() if digest() != self.leaves[name].checksum]
        return ReadLeaves(values, damaged)

    def damage_error(self, names: list[str]) -> FileError:
        if len(self.stored.shards) == 1:
            return damage_error(self.path, names)
        files = {os.path.basename(self.stored.by_leaf[name].path) for name in names}
        return damage_error(self.path, names, f", in {listed(sorted(files))}")


def _read_on_devices(file: SafetensorsFile | LeafInParts, leaf: StoredLeaf, sharding: Sharding) -> jax.Array:
    """Read a leaf in parts, each by its own bytes; where that is less, the block around all parts of this process once."""
    blocks = blocks_here(sharding, leaf.shape)
    around = block_around(blocks)
    apart = sum(file.bytes_of_block(leaf, block) for block in blocks)

    def read_block(index: Block) -> np.ndarray:
        return file.block(leaf, ranges_of(index, leaf.shape))

    # parts with short runs are read with the gaps between them, which are the numbers of other devices
    if not blocks or apart <= file.bytes_of_block(leaf, around):
        return array_on_devices(read_block, leaf.shape, leaf.dtype, sharding)
    array = file.block(leaf, around)

    def part_of_block(index: Block) -> np.ndarray:
        return array[_slices_within(ranges_of(index, leaf.shape), around)]

    return array_on_devices(part_of_block, leaf.shape, leaf.dtype, sharding)


def _slices_within(ranges: Ranges, around: Ranges) -> tuple[slice, ...]:
    """The slices of a block that are places of an array, counted from the first place of the block."""
    return tuple(slice(one.start - all.start, one.stop - all.start) for one, all in zip(ranges, around))
