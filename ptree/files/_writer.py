"""A writer, which puts tensors into one file or into shards."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ._draft import draft, put, sweep, sync
from ._format import NO_SUM, Facts, digest_beside, header_of, sum_of
from ._index import index_text
from ._place import alone_in, discard, free_names, identity, index_of, replaced_at, retire, retire_index, sweep_index
from ._tensor import Tensor


@dataclass
class Writer:
    """Puts tensors into files, with one bar for all."""

    tensors: dict[str, Tensor]
    facts: Facts
    metadata: dict[str, str]
    bar: Any = None
    pool: Any = None

    def write(self, place: Path, limit: int | None, shown: bool) -> None:
        """One file, or shards of at most `limit` bytes and their index; a crash leaves what was there, or all of it.

        With `shown`, a bar on a terminal shows what takes more than a second.
        """
        from tqdm import tqdm

        sizes = {name: tensor.size for name, tensor in self.tensors.items()}
        total = sum(sizes.values())
        groups = [[*sizes]] if limit is None else _grouped(sizes, limit)
        told, disable = f"saving {place.name}", None if shown else True
        bar = tqdm(total=total, desc=told, unit="B", unit_scale=True, delay=1, leave=False, disable=disable)
        with bar as self.bar, ThreadPoolExecutor(1, "ptree.sum") as self.pool:
            if len(groups) > 1:
                self._shards(place, groups, total)
                return
            sweep(place)
            known = identity(index_of(place))
            with draft(place) as file:
                self._fill(file, groups[0], self.facts)
            retire_index(place, known)

    def _fill(self, file: int, names: list[str], facts: Facts) -> str:
        """One file of these tensors, whose checksums are added to the facts; gives its header's."""
        plan = {name: (self.tensors[name].dtype, self.tensors[name].shape) for name in names}
        start, entries = header_of(plan, facts, self.metadata)
        put(file, start, 0)
        for name, entry in entries.items():
            data = self.tensors[name].bytes()
            found = digest_beside(self.pool, data)  # while it is written
            put(file, data, entry.start, self.bar)
            facts.sums[name] = found()
            self.tensors[name].leaf = None
        start, _ = header_of(plan, facts, self.metadata)
        put(file, start, 0)
        return sum_of(start)

    def _shards(self, place: Path, groups: list[list[str]], total: int) -> None:
        """A file for each group, and then the index of them, which takes the place of what was there."""
        with alone_in(place.parent):
            sweep_index(place)
            known = identity(place)
            names = free_names(place, len(groups))
            files = {leaf: name for name, group in zip(names, groups) for leaf in group}
            facts = replace(self.facts, kinds={}, dtypes={}, sums={}, replaced=replaced_at(place))
            facts.shards = dict.fromkeys(names, NO_SUM)
            try:
                with draft(index_of(place)) as file:
                    # before they are there: a crash leaves a list of what is to be removed
                    put(file, index_text(files, total, facts, self.metadata), 0)
                    for name, group in zip(names, groups):
                        facts.shards[name] = self._shard(place.with_name(name), group, index_of(place).name)
                    sync(place.parent)
                    put(file, index_text(files, total, facts, self.metadata), 0)
            except BaseException:
                discard(place, names)
                raise
            retire(place, known)
            discard(place, facts.replaced)

    def _shard(self, path: Path, group: list[str], index: str) -> str:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            made = self._fill(file, group, self.facts.of(group, index))
            os.fsync(file)
            return made
        finally:
            os.close(file)


def _grouped(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    """The leaves of each shard, in order: as many as take at most `limit` bytes, or one that alone takes more."""
    groups: list[list[str]] = [[]]
    left = limit
    for name, size in sizes.items():
        if size > left and groups[-1]:
            groups.append([])
            left = limit
        groups[-1].append(name)
        left -= size
    return groups
