"""The index of shards in Hugging Face's form (`model.safetensors.index.json`): which file each leaf is in."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .._errors import FileError, PtreeError
from .._words import listed, quoted
from ._facts import Facts
from ._header import metadata_of, sealed, split_metadata, unique
from ._safetensors import SafetensorsFile

_START = b'{"metadata":{"ptree_sum":"'
_LONGEST = 1_000_000_000  # bytes


@dataclass(frozen=True)
class ShardIndex:
    """What an index says; `facts` is None where another program wrote it."""

    path: str
    files: dict[str, str]
    """Leaf -> the name of its file, which is in the folder of the index."""
    facts: Facts | None
    metadata: dict[str, str]


def index_bytes(files: Mapping[str, str], total_size: int, facts: Facts, metadata: Mapping[str, str]) -> bytes:
    """The JSON of an index, with its checksum."""
    about = {**metadata_of(facts, metadata), "total_size": total_size}
    return sealed(json.dumps({"metadata": about, "weight_map": dict(files)}, separators=(",", ":")).encode())


def parsed_index(path: str, text: bytes, verify: bool) -> ShardIndex:
    """Read an index; raises FileError where the text is none, or is damaged."""
    try:
        table = json.loads(text.decode(), object_pairs_hook=unique)
        files = dict(table["weight_map"])
        _check_names(files)
        metadata = dict(table.get("metadata") or {})
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
        is_beside = os.path.basename(file) == file and file not in ("", ".", "..") and file.isprintable()
        if not is_beside:
            raise ValueError(f"shards are files beside it, and it names {quoted(file)}")


def read_index(path: Path, verify: bool) -> ShardIndex:
    """Read the index at a path; raises FileError where it is damaged, and OSError where it cannot be read."""
    with open(path, "rb") as file:
        text = file.read(_LONGEST)
    return parsed_index(str(path), text, verify)


def open_shards(path: Path, *, verify: bool, mmap: bool) -> tuple[ShardIndex, dict[str, SafetensorsFile]]:
    """Open an index and its shards, by their names, and check that they were saved together and hold all leaves."""
    while True:
        index = read_index(path, verify)
        shards: dict[str, SafetensorsFile] = {}
        try:
            for name in _names_of_shards(index):
                shards[name] = SafetensorsFile(_path_of_shard(path, name), verify=verify, mmap=mmap)
            problem = _mismatch(index, shards, verify)
        except FileNotFoundError:
            problem = f"these shards are not beside it: {listed(_missing(index, shards, path))}"
        if not problem:
            return index, shards
        for shard in shards.values():
            shard.close()
        if read_index(path, verify) == index:  # or another tree was saved here meanwhile: open that
            raise FileError(f"cannot load {index.path!r}: {problem}", is_damage=True)


def _names_of_shards(index: ShardIndex) -> list[str]:
    return sorted({*index.files.values()})


def _path_of_shard(index: Path, name: str) -> str:
    beside = index.parent / name
    if not beside.exists():  # the index may be a link to another folder
        beside = Path(os.path.realpath(index)).parent / name
    return str(beside)


def _missing(index: ShardIndex, shards: Mapping[str, SafetensorsFile], path: Path) -> list[str]:
    return [name for name in _names_of_shards(index) if name not in shards and not (path.parent / name).exists()]


def _mismatch(index: ShardIndex, shards: Mapping[str, SafetensorsFile], verify: bool) -> str:
    """In what shards do not fit their index; "" where they do."""
    lost = [name for name, file in index.files.items() if name not in shards[file].header.leaves]
    if lost:
        return f"its shards do not have what it says they have: {listed(lost)}"
    if not verify:
        return ""
    if index.facts is None:
        is_ours = any(shard.header.facts is not None and shard.header.facts.index for shard in shards.values())
        return "it is damaged: ptree wrote its shards, and what it wrote here is missing" if is_ours else ""
    found = {name: shard.header.checksum for name, shard in shards.items()}
    others = sorted({name for name, _ in found.items() ^ index.facts.shards.items()})
    return f"these shards were not saved together with it: {listed(others)}" if others else ""
