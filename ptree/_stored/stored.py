"""Stored: an open file of leaves, or the shards of one, without its tree; found in either form at a path."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from .._errors import FileError
from .._words import listed, quoted
from .facts import Facts
from .hf_index import LocalFolder, ShardFolder, UrlFolder, open_shards
from .leaf_in_parts import LeafInParts
from .locations import INDEX_SUFFIX, file_path, index_path, is_orbax
from .safetensors import SafetensorsFile
from .stored_leaf import StoredLeaf
from .url_bytes import refuse_unknown_url
from .urls import is_url, shown_url, url_ends_with, urls_to_try

_TRIES = 10
"""How often to look for a file that another process replaces by shards, or the other way round."""


@dataclass(frozen=True)
class Stored:
    """The open files of a tree: one file or its shards, the metadata, and the file of each leaf."""

    path: str
    shards: list[SafetensorsFile]
    by_leaf: Mapping[str, SafetensorsFile | LeafInParts]
    facts: Facts | None
    metadata: dict[str, str]
    files: tuple[str, ...]
    """The paths of all files that it is made of, also of those that cannot be read."""
    missing: dict[str, str] = field(default_factory=dict)
    """Leaf -> why it cannot be read, of the leaves of which the header or the shard is not there or damaged."""

    @cached_property
    def leaves(self) -> dict[str, StoredLeaf]:
        """The description of each leaf."""
        return {
            name: file.leaf if isinstance(file, LeafInParts) else file.header.leaves[name]
            for name, file in self.by_leaf.items()
        }

    def names_by_place(self) -> list[str]:
        """The names in the order of the data, which is the order of a tree that another program wrote."""
        names: list[str] = []
        for shard in self.shards:
            inside = [name for name, file in self.by_leaf.items() if file is shard]
            names += sorted(inside, key=lambda name: shard.header.leaves[name].start)
        return names

    def close(self) -> None:
        for shard in self.shards:
            shard.close()


def open_stored(path: str, *, verify: bool, mmap: bool, may_be_damaged: bool = False) -> Stored:
    """Open the one file, or the shards; another process may be about to replace the one by the other.

    With `may_be_damaged`, of a damaged file, or of shards of which some are missing, the leaves that are whole can be
    read.
    """
    if is_url(path):
        return _open_at_url(path, verify, mmap, may_be_damaged)
    for _ in range(_TRIES - 1):
        try:
            return _open_once(path, verify, mmap, may_be_damaged)
        except FileNotFoundError:
            continue
    # the last try raises its error
    return _open_once(path, verify, mmap, may_be_damaged)


def _open_once(path: str, verify: bool, mmap: bool, may_be_damaged: bool) -> Stored:
    """Open the one file if it is there, else the shards of its index."""
    file = file_path(path)
    has_only_index = not file.exists() and index_path(file).exists()
    if path.endswith(INDEX_SUFFIX) or has_only_index:
        return _open_index(LocalFolder(index_path(file)), verify, mmap, may_be_damaged)
    if is_orbax(path):
        raise FileError(f"cannot open {path!r}: Orbax wrote it, and only ptree.load reads it")
    return _open_one(str(file) if os.path.isdir(path) else path, verify, mmap, may_be_damaged)


def _open_at_url(url: str, verify: bool, mmap: bool, may_be_damaged: bool) -> Stored:
    """Open the file at a URL, the shards of its index, or the model of the folder that it is."""
    refuse_unknown_url(url)
    places = urls_to_try(url, INDEX_SUFFIX)
    refused: PermissionError | None = None
    for place in places:
        try:
            if url_ends_with(place, INDEX_SUFFIX):
                return _open_index(UrlFolder(place), verify, mmap, may_be_damaged)
            return _open_one(place, verify, mmap, may_be_damaged)
        except FileNotFoundError:
            continue
        except PermissionError as error:  # some servers say so of files that are not there
            refused = error
    if refused is not None:
        raise refused
    tried = f": there is none of {listed([*map(shown_url, places)])}" if len(places) > 1 else ""
    raise FileNotFoundError(f"no file {quoted(shown_url(url))}{tried}")


def _open_one(path: str, verify: bool, mmap: bool, may_be_damaged: bool) -> Stored:
    one = SafetensorsFile(path, verify=verify, mmap=mmap, may_be_damaged=may_be_damaged)
    by_leaf = dict.fromkeys(one.header.leaves, one)
    return Stored(one.path, [one], by_leaf, one.header.facts, one.header.metadata, (one.path,), one.header.damaged)


def _open_index(folder: ShardFolder, verify: bool, mmap: bool, may_be_damaged: bool) -> Stored:
    index, shards, problems = open_shards(folder, verify=verify, mmap=mmap, may_be_damaged=may_be_damaged)
    by_leaf: dict[str, SafetensorsFile] = {}
    missing: dict[str, str] = {}
    for leaf, name in index.files.items():
        if name not in shards:
            missing[leaf] = f"is in {quoted(name)}, which {problems[name]}"
        elif leaf in shards[name].header.leaves:
            by_leaf[leaf] = shards[name]
        else:
            missing[leaf] = shards[name].header.damaged.get(leaf, f"is not in {quoted(name)}, where the index has it")
    files = (index.path, *map(folder.path_of, sorted({*index.files.values()})))
    whole = Stored(index.path, [*shards.values()], by_leaf, index.facts, index.metadata, files, missing)
    if index.facts is None or not index.facts.parts:
        return whole
    try:
        return _with_leaves_in_parts(whole, index.facts, verify)
    except BaseException:
        whole.close()
        raise


def _with_leaves_in_parts(stored: Stored, facts: Facts, verify: bool) -> Stored:
    """The same files, in which tensors that are parts of one leaf are that leaf."""
    by_leaf: dict[str, SafetensorsFile | LeafInParts] = dict(stored.by_leaf)
    missing = dict(stored.missing)
    for name, stated in facts.parts.items():
        lost = [missing.pop(part) for part in stated.starts if part in missing]
        files = {part: by_leaf.pop(part) for part in stated.starts if part in by_leaf}
        plain = {part: file for part, file in files.items() if isinstance(file, SafetensorsFile)}
        if lost:
            missing[name] = f"has a part that {lost[0]}"
        elif len(plain) < len(stated.starts):
            raise FileError(f"cannot load {stored.path!r}: parts of {quoted(name)} are not in it", is_damage=True)
        else:
            by_leaf[name] = LeafInParts(name, stated, plain, index=stored.path, verify=verify)
    return replace(stored, by_leaf=by_leaf, missing=missing)
