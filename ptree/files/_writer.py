"""Write a tree to disk: group its leaves into shards of limited size if wanted, and fill each file with header and data."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from .._stored.checksums import NO_CHECKSUM, digest_in_thread
from .._stored.drafts import draft, file_id, sweep
from .._stored.facts import Facts
from .._stored.header import header_bytes, laid_out, seal_of
from .._stored.hf_index import index_bytes
from .._stored.locations import index_path
from .._stored.operating_system import create, flush_folder, locked_folder, write_all
from .._stored.stored_leaf import StoredLeaf
from ._kinds import UnsavedLeaf
from ._progress import Progress
from ._shards import (
    free_names,
    remove_shards,
    remove_unchanged,
    remove_unchanged_index,
    replaced_mode,
    replaced_shards,
    sweep_shards,
    tagged_names,
)
from ._threads import thread_pool


@dataclass(frozen=True)
class Content:
    """The content to write to a file: leaves, facts and metadata."""

    leaves: dict[str, UnsavedLeaf]
    facts: Facts
    metadata: dict[str, str]

    @property
    def sizes(self) -> dict[str, int]:
        """Name -> bytes, of each leaf."""
        return {name: leaf.stored.nbytes for name, leaf in self.leaves.items()}


def write_tree(content: Content, file: Path, limit: int | None, show_bar: bool) -> int:
    """Write one file, or shards of at most `limit` bytes and their index; return the number of bytes on the disk.

    A crash at any moment leaves the old tree or the new one.
    """
    sizes = content.sizes
    groups = [[*sizes]] if limit is None else grouped(sizes, limit)
    progress = Progress(f"saving {file.name}", sum(sizes.values()), show_bar)
    with progress, thread_pool("ptree.sum") as pool:
        writer = Writer(content, progress, pool)
        if len(groups) > 1:
            return writer.write_shards(file, groups)
        return writer.write_one(file)


def grouped(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    """Group leaves into shards to write: as many as take at most `limit` bytes, or one leaf that alone takes more."""
    groups: list[list[str]] = [[]]
    left = limit
    for name, size in sizes.items():
        if size > left and groups[-1]:
            groups.append([])
            left = limit
        groups[-1].append(name)
        left -= size
    return groups


@dataclass(frozen=True)
class WrittenFile:
    checksum: str
    """Of its header."""
    size: int


@dataclass(frozen=True)
class Writer:
    """Writes files of a tree, or of what one process writes of it."""

    content: Content
    progress: Progress
    pool: Executor

    def write_one(self, file: Path) -> int:
        sweep(file)
        # remembered now, so that an index which another process writes meanwhile is not removed
        index_before = file_id(index_path(file))
        mode = replaced_mode(file, replaced_shards(file))
        with draft(file, mode) as descriptor:
            written = self._fill(descriptor, [*self.content.leaves], self.content.facts)
        remove_unchanged_index(file, index_before)
        return written.size

    def write_shards(self, file: Path, groups: Sequence[Sequence[str]]) -> int:
        """Write a file for each group, and their index, which then takes the place of what was there."""
        with locked_folder(file.parent):
            sweep(file)
            sweep_shards(file)
            try:
                return self._write_shards_as(free_names(file, len(groups)), file, groups)
            except FileExistsError:  # without file locks another process may have chosen the same names meanwhile
                return self._write_shards_as(tagged_names(file, len(groups)), file, groups)

    def _write_shards_as(self, names: Sequence[str], file: Path, groups: Sequence[Sequence[str]]) -> int:
        file_before = file_id(file)  # as above: only this file is removed, not a newer one
        facts = replace(self.content.facts, replaced=replaced_shards(file))
        mode = replaced_mode(file, facts.replaced)
        written: dict[str, WrittenFile] = {}
        try:
            with draft(index_path(file), mode) as descriptor:
                # the index is written first, so that the next save after a crash knows which shards to remove
                write_all(descriptor, self._index(names, groups, facts, {}), 0)
                for name, group in zip(names, groups):
                    path = file.with_name(name)
                    written[name] = self.write_shard(path, mode, group, index_path(file).name)
                flush_folder(file.parent)  # the names of the shards are on the disk before an index names them
                index = self._index(names, groups, facts, written)
                write_all(descriptor, index, 0)
        except BaseException:
            # an error after the new index took its place leaves its shards
            with suppress(OSError):
                remove_shards(file, written)
            raise
        # only now does the index lead to the new tree: what it replaces may go
        remove_unchanged(file, file_before)
        with suppress(
            OSError
        ):  # a shard that cannot be removed is in the new index as replaced: the next save tries again
            remove_shards(file, facts.replaced)
        return len(index) + sum(shard.size for shard in written.values())

    def _index(
        self, names: Sequence[str], groups: Sequence[Sequence[str]], facts: Facts, written: Mapping[str, WrittenFile]
    ) -> bytes:
        """Encode the index, with zeros for checksums of shards that are not written yet, so that its length stays the same."""
        files = {leaf: name for name, group in zip(names, groups) for leaf in group}
        shards = {name: written[name].checksum if name in written else NO_CHECKSUM for name in names}
        return index_bytes(
            files, sum(self.content.sizes.values()), replace(facts, shards=shards), self.content.metadata
        )

    def write_shard(self, path: Path, mode: int | None, group: Sequence[str], index: str) -> WrittenFile:
        """Write a file that is not there yet; on the disk when it is done."""
        descriptor = create(path, mode)
        try:
            written = self._fill(descriptor, group, Facts(order=[*group], index=index))
            os.fsync(descriptor)
        except BaseException:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            raise
        os.close(descriptor)
        return written

    def _fill(self, descriptor: int, names: Sequence[str], facts: Facts) -> WrittenFile:
        """Write the header without checksums, each leaf, and the header again with them.

        So each leaf is fetched once, and is in memory alone.
        """
        stored = {name: replace(self.content.leaves[name].stored, checksum=NO_CHECKSUM) for name in names}
        layout = laid_out(stored.values())
        start = header_bytes(layout, facts.about(stored.values()), self.content.metadata)
        write_all(descriptor, start, 0)
        sums: dict[str, str] = {}
        for leaf in layout:
            data = self.content.leaves[leaf.name].bytes()
            find_sum = digest_in_thread(self.pool, data)  # hashed while it is written
            write_all(descriptor, data, len(start) + leaf.start, self.progress.callback)
            sums[leaf.name] = find_sum()
        summed: list[StoredLeaf] = [replace(leaf, checksum=sums[name]) for name, leaf in stored.items()]
        header = header_bytes(layout, facts.about(summed), self.content.metadata)
        write_all(descriptor, header, 0)
        data_size = layout[-1].stop if layout else 0
        return WrittenFile(seal_of(header), len(header) + data_size)
