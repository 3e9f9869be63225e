"""Encode, parse and read an index of shards (`model.safetensors.index.json`, as Hugging Face has it), open them; mismatches,
missing facts."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from .._errors import FileError, PtreeError
from .._words import lines, listed, quoted
from .facts import Facts
from .header import metadata_of, sealed, split_metadata, unique
from .locations import regular_file
from .safetensors import SafetensorsFile
from .url_bytes import is_at_url, read_url
from .urls import shown_url, url_beside

T = TypeVar("T")
_START = b'{"metadata":{"ptree_sum":"'
_NOT_THERE = "is not there"
_REQUESTS = 16  # shards at URLs that are opened at the same time
_LONGEST = 1_000_000_000  # bytes of an index that are read: more is no index, but a file of another kind


@dataclass(frozen=True)
class ShardIndex:
    """An index, parsed: which shard each leaf is in; `facts` is None if another program wrote it."""

    path: str
    files: dict[str, str]
    """Leaf -> the name of its file, which is in the folder of the index."""
    facts: Facts | None
    metadata: dict[str, str]


def index_bytes(files: Mapping[str, str], total_size: int, facts: Facts, metadata: Mapping[str, str]) -> bytes:
    """Encode an index of shards as JSON, with its checksum."""
    about = {**metadata_of(facts, metadata), "total_size": total_size}
    return sealed(json.dumps({"metadata": about, "weight_map": dict(files)}, separators=(",", ":")).encode())


def parsed_index(path: str, text: bytes, verify: bool) -> ShardIndex:
    """Parse the JSON of an index.

    Raises:
        FileError: it is damaged, or no index.
    """
    try:
        table = json.loads(text.decode(), object_pairs_hook=unique)
        files = dict(table["weight_map"])
        _check_names(files)
        metadata = dict(table.get("metadata") or {})
        # Hugging Face writes total_size as a number
        texts = {name: value for name, value in metadata.items() if type(value) is str}
        facts, own_metadata = split_metadata(text, _START, texts, verify)
        return ShardIndex(path, files, facts, own_metadata)
    except PtreeError as error:  # a transform that this process does not know, or a newer format
        raise FileError(f"cannot load {path!r}: {error}") from error
    except (ValueError, AttributeError, TypeError, KeyError, RecursionError) as error:
        raise FileError(f"cannot load {path!r}: it is not a whole index of shards: {error}", is_damage=True) from error


def _check_names(files: Mapping[str, str]) -> None:
    for leaf, file in files.items():
        for name in (leaf, file):
            if type(name) is not str:
                raise TypeError(f"{quoted(name)} is no name")
        # an index from a stranger must not lead to files elsewhere on this machine
        is_plain_name = os.path.basename(file) == file and file.isprintable()
        if not is_plain_name or file in ("", ".", ".."):
            raise ValueError(f"shards are files beside it, and it names {quoted(file)}")


def read_index(path: Path, verify: bool) -> ShardIndex:
    """Read the index at a path.

    Raises:
        FileError: it is damaged, or no index.
        OSError: it cannot be read.
    """
    with open(regular_file(path), "rb") as file:
        text = file.read(_LONGEST)
    return parsed_index(str(path), text, verify)


class ShardFolder(ABC):
    """The place of an index and its shards."""

    path: str
    """Of the index, for messages."""

    @abstractmethod
    def read_index(self, verify: bool) -> ShardIndex:
        """Read the index as it is now."""

    @abstractmethod
    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""

    @abstractmethod
    def path_of(self, name: str) -> str:
        """The path or URL of a shard."""

    def open_each(self, names: Sequence[str], opened: Callable[[str], T]) -> dict[str, T | Exception]:
        """What `opened` gives for each of the shards, or the error that it raises."""
        return {name: _result_or_error(opened, name) for name in names}


def _result_or_error(function: Callable[[str], T], name: str) -> T | Exception:
    try:
        return function(name)
    except Exception as error:
        return error


class LocalFolder(ShardFolder):
    """A folder of this machine with an index and its shards."""

    def __init__(self, index: Path):
        self._index, self.path = index, str(index)

    def read_index(self, verify: bool) -> ShardIndex:
        return read_index(self._index, verify)

    def has(self, name: str) -> bool:
        return os.path.exists(self.path_of(name))

    def path_of(self, name: str) -> str:
        beside = self._index.parent / name
        if not beside.exists():  # the index may be a link to another folder
            beside = Path(os.path.realpath(self._index)).parent / name
        return str(beside)


class UrlFolder(ShardFolder):
    """An index and its shards at URLs."""

    def __init__(self, url: str):
        self._url, self.path = url, shown_url(url)

    def read_index(self, verify: bool) -> ShardIndex:
        return parsed_index(self.path, read_url(self._url, _LONGEST), verify)

    def has(self, name: str) -> bool:
        return is_at_url(self.path_of(name))

    def path_of(self, name: str) -> str:
        return url_beside(self._url, name)

    def open_each(self, names: Sequence[str], opened: Callable[[str], T]) -> dict[str, T | Exception]:
        from concurrent.futures import ThreadPoolExecutor

        # each shard is three requests that wait for the server, one after the other
        with ThreadPoolExecutor(_REQUESTS) as threads:
            found = threads.map(partial(_result_or_error, opened), names)
            return dict(zip(names, found))


def open_shards(
    folder: ShardFolder, *, verify: bool, mmap: bool, may_be_damaged: bool = False
) -> tuple[ShardIndex, dict[str, SafetensorsFile], dict[str, str]]:
    """Open the shards that an index names, and check that they fit the index.

    Returns:
        The index; the shards by name; with `may_be_damaged` also why each of the others cannot be read.
    """

    def opened_one(name: str) -> SafetensorsFile | str:
        if may_be_damaged:
            return _open_damaged(folder, name, verify, mmap)
        return SafetensorsFile(folder.path_of(name), verify=verify, mmap=mmap)

    while True:
        index = folder.read_index(verify)
        names = _names_of_shards(index)
        opened = folder.open_each(names, opened_one)
        shards = {name: found for name, found in opened.items() if isinstance(found, SafetensorsFile)}
        problems = {name: found for name, found in opened.items() if isinstance(found, str)}
        errors = [found for found in opened.values() if isinstance(found, Exception)]
        other_errors = [error for error in errors if not isinstance(error, FileNotFoundError)]
        if other_errors:
            _close(shards)
            raise other_errors[0]
        if errors:
            problem = _lacking(index, shards, folder)
        else:
            problem = _mismatch(index, shards, verify, may_be_damaged)
        if not problem and names and not shards:
            is_any_missing = _NOT_THERE in problems.values()
            problem = _lacking(index, shards, folder) if is_any_missing else lines([*problems.values()])
        has_all = len(shards) == len(names)
        if not problem and (has_all or folder.read_index(verify) == index):
            return index, shards, problems
        _close(shards)
        # where the index has changed, another process saved a tree here meanwhile: open that
        if folder.read_index(verify) == index:
            raise FileError(f"cannot load {index.path!r}: {problem}", is_damage=True)


def _close(shards: Mapping[str, SafetensorsFile]) -> None:
    for shard in shards.values():
        shard.close()


def _open_damaged(folder: ShardFolder, name: str, verify: bool, mmap: bool) -> SafetensorsFile | str:
    """A shard, which may end too early; or why it cannot be read."""
    if not folder.has(name):
        return _NOT_THERE
    try:
        return SafetensorsFile(folder.path_of(name), verify=verify, mmap=mmap, may_be_damaged=True)
    except FileError as error:
        if not error.is_damage:
            raise
        return f"is damaged: {error}"


def _names_of_shards(index: ShardIndex) -> list[str]:
    return sorted({*index.files.values()})


def _lacking(index: ShardIndex, shards: Mapping[str, SafetensorsFile], folder: ShardFolder) -> str:
    unopened = [name for name in _names_of_shards(index) if name not in shards]
    missing = [name for name in unopened if not folder.has(name)]
    return f"these shards are not beside it: {listed(missing)}"


def _mismatch(index: ShardIndex, shards: Mapping[str, SafetensorsFile], verify: bool, may_lack: bool) -> str:
    """Say how shards do not fit the index that names them; "" if they do. With `may_lack` they may lack leaves."""
    lost = [name for name, file in index.files.items() if file in shards and name not in shards[file].header.leaves]
    if lost and not may_lack:
        return f"its shards do not have what it says they have: {listed(lost)}"
    if not verify:
        return ""
    if index.facts is None:
        return _missing_facts(shards.values())
    # an interrupted save, or one copied in part, can mix shards of two trees: each header has its own checksum
    found = {name: shard.header.checksum for name, shard in shards.items()}
    stated = {name: checksum for name, checksum in index.facts.shards.items() if name in shards}
    others = sorted({name for name, _ in found.items() ^ stated.items()})
    if others:
        return f"these shards were not saved together with it: {listed(others)}"
    return ""


def _missing_facts(shards: Iterable[SafetensorsFile]) -> str:
    """The problem of an index without facts whose shards ptree wrote; "" if another program wrote them."""
    for shard in shards:
        facts = shard.header.facts
        if facts is not None and facts.index:
            return "it is damaged: ptree wrote its shards, and what it wrote here is missing"
    return ""
