"""StoredSource: a safetensors file, or its shards, read in chunks; the leaves and ties that it states."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
import xxhash

from ..._errors import FileError
from ..._paths.dotted_names import paths_of_names
from ..._stored.checksums import digest
from ..._stored.dtypes import UNKNOWN
from ..._stored.facts import StoredTie
from ..._stored.leaf_in_parts import LeafInParts
from ..._stored.leaf_parts import part_of, ranges_of
from ..._stored.stored import Stored
from ..._stored.stored_leaf import StoredLeaf
from ..._words import in_bytes, printable, quoted, short_dtype, shortened
from .source import CHUNK, UNKNOWN_DTYPE, Alias, LeafInfo, Source, path_and_name

MISMATCH = "its bytes are not what its checksum says"
DAMAGED = f"is damaged: {MISMATCH}"
_LONGEST_METADATA = 60  # characters of a value that is shown
KEY_TAGS = {"threefry2x32": "fry", "rbg": "rbg", "unsafe_rbg": "urbg"}
"""JAX's name of a kind of PRNG keys -> how it writes their dtype in short."""


class StoredSource(Source):
    """A safetensors file, or its shards."""

    is_file = True

    def __init__(self, stored: Stored):
        self.stored = stored
        self.title = os.path.basename(stored.path)
        self.about = _about_stored(stored)
        self.files = stored.files
        self.damage = _damage_of_headers(stored)
        ties, in_order = _names_and_ties(stored)
        paths = paths_of_names(in_order)
        self.names = paths
        """Path -> name in the file, of leaves and tied names."""
        path_of = {name: path for path, name in paths.items()}
        leaf_names = [name for name in in_order if name not in ties]
        self._file_of = {path_of[name]: stored.by_leaf[name] for name in leaf_names if name in stored.by_leaf}
        self.stored_leaves = {path: stored.leaves[paths[path]] for path in self._file_of}
        self.order = [*paths]
        self.leaves = {path_of[name]: self._info(path_of[name]) for name in leaf_names}
        self.aliases: dict[str, Alias] = {}
        for name, tie in ties.items():
            path = path_of.get(name)
            if path is not None:
                tie = tie._replace(source=path_of.get(tie.source, tie.source))
                self.aliases[path] = alias_of(path, tie, self.leaves)

    def _info(self, path: str) -> LeafInfo:
        leaf = self.stored_leaves.get(path)
        if leaf is not None:
            return info_of(path, leaf)
        problem = self.stored.missing[self.names[path]]
        return LeafInfo(path, None, UNKNOWN_DTYPE, 0, 0, problem=problem, is_damaged=True)

    def chunks(self, path: str, most: int = CHUNK) -> Iterator[np.ndarray]:
        leaf = self._readable(path)
        return self._file_of[path].chunks(leaf, most)

    def checked_chunks(self, path: str, most: int = CHUNK) -> Iterator[np.ndarray]:
        leaf = self._readable(path)
        chunks = self._file_of[path].chunks(leaf, most)
        return compared_chunks(self.shown(path), chunks, leaf.checksum) if leaf.checksum else chunks

    def part(self, path: str, index: Any = ...) -> np.ndarray:
        leaf = self._readable(path)
        part = part_of(index, leaf.shape)
        return self._file_of[path].block(leaf, part.ranges)[part.index]

    def block(self, path: str, index: tuple[slice, ...]) -> np.ndarray:
        leaf = self._readable(path)
        return self._file_of[path].block(leaf, ranges_of(index, leaf.shape))

    def checksum(self, path: str) -> str:
        leaf = self.stored_leaves.get(path)
        return "" if leaf is None else leaf.checksum

    def has_checksum(self, path: str) -> bool:
        """Whether the file has a checksum of a leaf, or of each part of it."""
        file = self._file_of.get(path)
        return file.has_checksum if isinstance(file, LeafInParts) else self.checksum(path) != ""

    def is_whole(self, path: str) -> bool:
        """Whether the bytes of a leaf are what its checksum says; 16 MiB are in memory at a time."""
        leaf, file = self._readable(path), self._file_of[path]
        if isinstance(file, LeafInParts):
            file.check()  # its error names the part
            return True
        return file.digest_by_runs(leaf) == leaf.checksum

    def whole(self, path: str) -> np.ndarray:
        leaf = self._readable(path)
        found = self._file_of[path].array(leaf)
        if leaf.checksum and digest(found.reshape(-1).view(np.uint8)) != leaf.checksum:
            raise _damage(self.shown(path))
        return found

    def _readable(self, path: str) -> StoredLeaf:
        problem = self.leaves[path].problem
        if problem:
            raise FileError(f"{self.shown(path)} {problem}")
        return self.stored_leaves[path]

    def shown(self, path: str) -> str:
        return path_and_name(path, self.names[path])

    def close(self) -> None:
        self.stored.close()


def _names_and_ties(stored: Stored) -> tuple[Mapping[str, StoredTie], list[str]]:
    """The ties of a file, alias -> source, and all names of leaves and of ties in their order."""
    facts = stored.facts
    if facts is None:
        return {}, [*stored.names_by_place(), *stored.missing]
    named = {*stored.by_leaf, *stored.missing, *facts.ties}  # the order has nodes without leaves, too
    in_order = [name for name in facts.order if name in named]
    if len(in_order) < len(named):  # of a damaged header
        in_order += sorted(named - {*in_order})
    return facts.ties, in_order


def compared_chunks(shown: str, chunks: Iterator[np.ndarray], checksum: str) -> Iterator[np.ndarray]:
    """Chunks of a leaf; FileError after the last of them if all together are not what the checksum says.

    `shown` is the leaf for the message.
    """
    found = xxhash.xxh3_128()
    for chunk in chunks:
        found.update(memoryview(chunk.view(np.uint8)))  # pyright: ignore[reportArgumentType]
        yield chunk
    if found.hexdigest() != checksum:
        raise _damage(shown)


def _damage(shown: str) -> FileError:
    return FileError(f"{shown} {DAMAGED}", is_damage=True)


def info_of(path: str, leaf: StoredLeaf) -> LeafInfo:
    """What a file states about a leaf; of PRNG keys their shape without the axis of their words, as JAX has it."""
    shape, dtype = leaf.shape, _short_name(leaf.dtype)
    if leaf.kind.startswith("key:"):
        name = leaf.kind.removeprefix("key:")
        shape, dtype = shape[:-1], f"key<{KEY_TAGS.get(name, name)}>"
    if leaf.dtype == UNKNOWN:
        dtype = UNKNOWN_DTYPE
    return LeafInfo(path, shape, dtype, prod(shape), leaf.nbytes, problem=leaf.unreadable, is_damaged=leaf.is_damaged)


@lru_cache  # a tenth of the time: files of 100,000 leaves have a few dtypes
def _short_name(dtype: np.dtype) -> str:
    return short_dtype(dtype)


def alias_of(path: str, tie: StoredTie, leaves: dict[str, LeafInfo]) -> Alias:
    """A tie that a file states."""
    shown = tie.source
    for transform in tie.transforms:
        name, _, order = transform.partition("(")
        shown = f"{name}({shown}, ({order})" if order else f"{name}({shown})"
    orders = [_order_of_axes(transform) for transform in tie.transforms]
    axes = tuple(order for order in orders if order is not None)
    if len(axes) < len(orders):
        return Alias(path, tie.source, shown, None, None)
    source = leaves.get(tie.source)
    shape = source.shape if source is not None else None
    for order in axes:
        shape = _permuted(shape, order)
    return Alias(path, tie.source, shown, shape, axes)


def _order_of_axes(transform: str) -> tuple[int, ...] | None:
    """The order of axes in the name of a transposition; None of a transform that is known by its name alone."""
    if not transform.startswith("transposed"):
        return None
    inside = transform.removeprefix("transposed").strip("()")
    return tuple(int(axis) for axis in inside.split(", ")) if inside else (1, 0)


def _permuted(shape: tuple[int, ...] | None, order: tuple[int, ...]) -> tuple[int, ...] | None:
    if shape is None or len(shape) < len(order):
        return shape
    before = len(shape) - len(order)
    return (*shape[:before], *(shape[before + axis] for axis in order))


def _damage_of_headers(stored: Stored) -> tuple[str, ...]:
    problems: list[str] = []
    for shard in stored.shards:
        name = f"{quoted(os.path.basename(shard.path))}: "
        problems += [name + problem for problem in shard.header.problems]
    return tuple(problems)


def _about_stored(stored: Stored) -> str:
    size = sum(shard.size for shard in stored.shards)
    words = ["safetensors", in_bytes(size)]
    if len(stored.shards) > 1:
        words.append(f"{len(stored.shards)} shards")
    if any(shard.header.problems for shard in stored.shards):
        words.append("damaged")
    for name, value in stored.metadata.items():
        words.append(shortened(printable(f"{name}={value}"), _LONGEST_METADATA))
    return ", ".join(words)
