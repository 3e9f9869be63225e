"""open, a file of which only what is asked for is read."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from .._edit import entries
from .._errors import FileError, PathError
from .._tree import Tie, Tree
from .._words import listed, quoted, suggestion
from ._format import Entry, Facts, digest, digest_beside, digest_of, stored_as
from ._index import SUFFIX, opened
from ._orbax import is_orbax
from ._place import index_of, place_of
from ._shard import Shard
from ._source import Compare, Source, Unread
from ._stored import Stored, Tied
from ._tensor import check_bits, leaf_of, on_devices

_TRIES = 10
"""How often to look for a file while others save the tree in one form and in the other."""


def open(path: str | os.PathLike[str], *, verify: bool = True, mmap: bool = False) -> File:
    """A file whose names, shapes, sizes and metadata are known at once, and whose data are read when asked for.

    >>> import tempfile, ptree as pt, numpy as np
    >>> path = tempfile.mkdtemp() + "/m.safetensors"
    >>> pt.save(path, {"enc": {"kernel": np.arange(12.0).reshape(4, 3)}}, metadata={"run": "7"})
    >>> with pt.open(path) as file:
    ...     print(list(file), file["enc/kernel"].shape, file.metadata)
    ...     file["enc/kernel"][1]
    ['enc/kernel'] (4, 3) {'run': '7'}
    array([3., 4., 5.])

    A leaf is read whole with `[...]`, as it was saved, and compared with its checksum; a slice reads only the bytes it lies in,
    and is not compared. Of a PRNG key, shape and slices are those of its words. A name that is tied reads as it was tied.

    Args:
        path: a file that `ptree.save` or any other program wrote.
        verify: compare what is read with the checksums.
        mmap: map the file instead of reading it: arrays are backed by it, and need no memory of their own. `save` to the
            same path leaves them as they are; a program that writes into the file changes them.

    Raises:
        FileError: no whole safetensors file, or one whose header is damaged.
        OSError: the file is not there or cannot be read.
    """
    return File(path, verify=verify, mmap=mmap)


class File(Source, Mapping[str, Stored]):
    """An open file: path -> what is stored there, in declared order; closed by `with`, or by `close`."""

    def __init__(self, path: str | os.PathLike[str], *, verify: bool = True, mmap: bool = False):
        self.path, self.verify = os.fspath(path), verify
        self._shards: dict[str, Shard] = {}
        tries = _TRIES
        while True:
            try:
                told = self._opened(place_of(path), self.path.endswith(SUFFIX), mmap)
                break
            except FileNotFoundError:
                tries -= 1
                if not tries:
                    raise
        self.entries: dict[str, Entry] = {name: shard.header.entries[name] for name, shard in self._shard_of.items()}
        self.facts = self._facts(told)

    def _opened(self, place: Path, only_index: bool, mmap: bool) -> Facts | None:
        """Open the one file or the shards, whichever is there."""
        if only_index or (not place.exists() and index_of(place).exists()):
            index, self._shards = opened(index_of(place), verify=self.verify, mmap=mmap)
            self.path, self.metadata = index.path, index.metadata
            self._shard_of = {name: self._shards[file] for name, file in index.files.items()}
            return index.facts
        if is_orbax(self.path):
            raise FileError(f"cannot open {self.path!r}: Orbax wrote it, and only ptree.load reads it")
        self.path = str(place) if os.path.isdir(self.path) else self.path
        one = Shard(self.path, verify=self.verify, mmap=mmap)
        self._shards, self.metadata = {"": one}, one.header.metadata
        self._shard_of = dict.fromkeys(one.header.entries, one)
        return one.header.facts

    def _facts(self, told: Facts | None) -> Facts:
        """What ptree knows of the tree; of a file by another program, its names, in the order of the data."""
        shards = [shard.header.facts for shard in self._shards.values() if shard.header.facts is not None]
        kinds, dtypes, sums = (
            {name: value for facts in shards for name, value in getattr(facts, table).items()}
            for table in ("kinds", "dtypes", "sums")
        )
        if told is None:
            at = [*self._shards.values()].index
            told = Facts(sorted(self.entries, key=lambda name: (at(self._shard_of[name]), self.entries[name].start)))
        return replace(told, kinds=kinds, dtypes=dtypes, sums=sums)

    @property
    def size(self) -> int:
        """How many bytes it has, all shards together."""
        return sum(shard.size for shard in self._shards.values())

    @property
    def bytes_read(self) -> int:
        """How many bytes were read so far, the header's included."""
        return sum(shard.bytes_read for shard in self._shards.values())

    @property
    def containers(self) -> dict[str, str]:
        """Path -> type, of each node that was no Tree and no dict when it was saved."""
        return self.facts.containers

    @cached_property
    def tree(self) -> Tree:
        """All that is in the file, unread: a Tree of what is stored, ties included."""
        return self.tree_of()

    @cached_property
    def _stored_by_path(self) -> dict[str, Any]:
        return {path: value for path, value in entries(self.tree).items() if isinstance(value, (Unread, Tie))}

    def names(self) -> Collection[str]:
        return self.entries.keys()

    def stored(self, name: str) -> Stored:
        entry = self.entries[name]
        dtype, shape = entry.dtype, entry.shape
        if (own := stored_as(name, self.facts)) is not None:
            dtype, behind = own
            shape = shape[: len(shape) - len(behind)]
        return Stored(self, name, dtype, shape)

    # ---------------------------------------------------------------------------- a mapping

    def __getitem__(self, path: str) -> Stored:
        if path in self.entries and path not in self.facts.ties:
            return self.stored(path)
        value = self._stored_by_path.get(path)
        if value is None:
            near = suggestion(path, self._stored_by_path) if isinstance(path, str) else ""
            raise PathError(f"no leaf {quoted(path)} in {self.path!r}.{near}")
        return Tied(self, path, value) if isinstance(value, Tie) else value  # pyright: ignore[reportReturnType]

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored_by_path)

    def __len__(self) -> int:
        return len(self._stored_by_path)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return id(self)

    def __enter__(self) -> File:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing more can be read; what was mapped stays."""
        for shard in self._shards.values():
            shard.close()

    def __repr__(self) -> str:
        return f"<{len(self.entries)} tensors, {self.size:,} bytes, in {self.path!r}>"

    # ---------------------------------------------------------------------------- reading

    def numbers(self, name: str, start: int, count: int) -> np.ndarray[Any, Any]:
        """A run of numbers of a leaf, counted in C order."""
        entry, own = self.entries[name], stored_as(name, self.facts)
        each = entry.dtype.itemsize * prod(own[1] if own else ())
        data = self._shard_of[name].bytes(entry.start + start * each, count * each)
        return data.view(own[0] if own else entry.dtype)

    def array(self, name: str) -> np.ndarray[Any, Any]:
        """A whole leaf, unverified."""
        stored = self.stored(name)
        return self.numbers(name, 0, prod(stored.shape)).reshape(stored.shape)

    def _read(
        self, leaves: Sequence[Unread], kinds: Mapping[str, str], shardings: Mapping[str, Any], compare: Compare
    ) -> tuple[dict[str, Any], list[str]]:
        """Each is compared while the next is read, but for what goes to devices by parts."""
        with self.named():
            check_bits({leaf.name: leaf.dtype for leaf in leaves if kinds[leaf.name] == "" or leaf.name in shardings})
        found: dict[str, Any] = {}
        sums: dict[str, Callable[[], str]] = {}
        with ThreadPoolExecutor(1, "ptree.sum") as pool:
            for stored in sorted(leaves, key=self._where):
                name, kind, sharding = stored.name, kinds[stored.name], shardings.get(stored.name)
                if sharding is not None and not sharding.is_fully_replicated:
                    found[name] = on_devices(self.stored(name).block, stored, kind, sharding)
                    if self.verify and compare == "all leaves" and name in self.facts.sums:
                        sums[name] = partial(self._digest_by_parts, name)
                    continue
                array = self.array(name)
                if self.verify and compare != "no leaves" and name in self.facts.sums:
                    sums[name] = digest_beside(pool, array.reshape(-1).view(np.uint8))
                with self.named():
                    if sharding is None:
                        found[name] = leaf_of(array, kind, name)
                    else:
                        found[name] = on_devices(array.__getitem__, stored, kind, sharding)
        return found, [name for name, digest in sums.items() if digest() != self.facts.sums[name]]

    def _digest_by_parts(self, name: str) -> str:
        """The digest of a leaf that is nowhere whole in memory."""
        entry, shard = self.entries[name], self._shard_of[name]
        places = range(entry.start, entry.stop, 1 << 24)
        return digest_of(shard.bytes(at, min(1 << 24, entry.stop - at)) for at in places)

    def compare(self, name: str, flat: np.ndarray[Any, Any]) -> None:
        """Raise the error for a leaf that is not what its checksum says."""
        if self.verify and name in self.facts.sums and digest(flat.view(np.uint8)) != self.facts.sums[name]:
            raise self.damage([name])

    def damage(self, names: list[str]) -> FileError:
        error = super().damage(names)
        if len(self._shards) > 1:
            at = sorted({os.path.basename(self._shard_of[name].path) for name in names})
            error.args = (f"{error}, in {listed(at)}",)
        return error

    @contextmanager
    def named(self) -> Iterator[None]:
        """An error names the file."""
        try:
            yield
        except FileError as error:
            raise FileError(f"cannot load {self.path!r}: {error}") from None

    def _where(self, leaf: Unread) -> tuple[str, int]:
        return self._shard_of[leaf.name].path, self.entries[leaf.name].start
