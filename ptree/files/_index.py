"""An index, the file in Hugging Face's form that says in which shard each leaf is."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .._errors import FileError, PtreeError
from .._words import listed, quoted
from ._format import Facts, metadata_of, once, sealed, taken_out
from ._shard import Shard

SUFFIX = ".index.json"
_START = b'{"metadata":{"ptree_sum":"'
_LONGEST = 1_000_000_000  # bytes


@dataclass(frozen=True)
class Index:
    """What an index says; `facts` is None where another program wrote it."""

    path: str
    files: dict[str, str]
    """Leaf -> the name of its file, which is in the folder of the index."""
    facts: Facts | None
    metadata: dict[str, str]


def index_text(files: Mapping[str, str], total: int, facts: Facts, metadata: Mapping[str, str]) -> bytes:
    table = {"metadata": {**metadata_of(facts, metadata), "total_size": total}, "weight_map": dict(files)}
    return sealed(json.dumps(table, separators=(",", ":")).encode())


def index_in(path: str, text: bytes, verify: bool) -> Index:
    """Raises FileError where the text is no index, or is damaged."""
    try:
        table = json.loads(text.decode(), object_pairs_hook=once)
        metadata, files = dict(table.get("metadata") or {}), dict(table["weight_map"])
        if wrong := [name for pair in files.items() for name in pair if type(name) is not str]:
            raise TypeError(f"{quoted(wrong[0])} is no name")
        if outside := [name for name in files.values() if not _is_plain(name)]:
            raise ValueError(f"shards are files beside it, and it names {quoted(outside[0])}")
        texts = {name: value for name, value in metadata.items() if type(value) is str}
        return Index(path, files, taken_out(text, _START, texts, verify), texts)
    except PtreeError as error:  # a transform that this process does not know
        raise FileError(f"cannot load {path!r}: {error}") from error
    except (ValueError, AttributeError, TypeError, KeyError, RecursionError) as error:
        raise FileError(f"cannot load {path!r}: it is not a whole index of shards: {error}", is_damage=True) from error


def _is_plain(name: str) -> bool:
    return os.path.basename(name) == name and name not in ("", ".", "..") and name.isprintable()


def read_index(path: Path, verify: bool) -> Index:
    with open(path, "rb") as file:
        text = file.read(_LONGEST)
    return index_in(str(path), text, verify)


def opened(path: Path, *, verify: bool, mmap: bool) -> tuple[Index, dict[str, Shard]]:
    """The index, and its shards by their names; each leaf is in its shard, and they were saved together."""
    while True:
        index = read_index(path, verify)
        shards: dict[str, Shard] = {}
        try:
            for name in sorted({*index.files.values()}):
                beside = path.parent / name
                place = beside if beside.exists() else Path(os.path.realpath(path)).parent / name  # of a link
                shards[name] = Shard(str(place), verify=verify, mmap=mmap)
            wrong = _wrong(index, shards, verify)
        except FileNotFoundError:
            lost = [name for name in {*index.files.values()} - {*shards} if not (path.parent / name).exists()]
            wrong = f"these shards are not beside it: {listed(sorted(lost))}"
        if not wrong:
            return index, shards
        for shard in shards.values():
            shard.close()
        if read_index(path, verify) == index:  # or another was saved meanwhile
            raise FileError(f"cannot load {index.path!r}: {wrong}", is_damage=True)


def _wrong(index: Index, shards: Mapping[str, Shard], verify: bool) -> str:
    """In what shards do not fit their index."""
    if lost := [name for name, file in index.files.items() if name not in shards[file].header.entries]:
        return f"its shards do not have what it says they have: {listed(lost)}"
    facts = [shard.header.facts for shard in shards.values()]
    if index.facts is None:
        ours = verify and any(known is not None and known.index for known in facts)
        return "it is damaged: ptree wrote its shards, and what it wrote here is missing" if ours else ""
    found = {name: shard.header.sum for name, shard in shards.items()}
    wrong = sorted({name for name, _ in found.items() ^ index.facts.shards.items()})
    return f"these shards were not saved together with it: {listed(wrong)}" if verify and wrong else ""
