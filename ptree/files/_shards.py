"""The files of a sharded tree: names for new shards, and removing those that a newer tree has replaced."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from .._errors import FileError
from ._drafts import drafts_of, new_draft_name, sweep
from ._hf_index import ShardIndex, parsed_index, read_index
from ._locations import index_path
from ._operating_system import locked_folder, mark_abandoned, read_all


def free_names(file: Path, count: int) -> list[str]:
    """Names for new shards: `model-00001-of-00003.safetensors` and so on.

    Where something is kept already they get a tag, so that a reader of the old index never finds new shards.
    """
    plain = _numbered(file, "", count)
    taken = [file, index_path(file), *(file.parent / name for name in plain)]
    if any(path.exists() for path in taken):
        return _numbered(file, f"-{uuid4().hex[:8]}", count)
    return plain


def _numbered(file: Path, tag: str, count: int) -> list[str]:
    return [f"{file.stem}{tag}-{number:05}-of-{count:05}{file.suffix}" for number in range(1, count + 1)]


def replaced_shards(file: Path) -> list[str]:
    """The shards that a new index replaces, where ptree wrote the old one."""
    index = _index_by_ptree(file)
    return [] if index is None else _named_by(index)


def _named_by(index: ShardIndex) -> list[str]:
    replaced = index.facts.replaced if index.facts is not None else []
    return sorted({*index.files.values(), *replaced})


def remove_shards(file: Path, names: Iterable[str]) -> None:
    """Remove the shards of these names, but not those that the index names now."""
    index = _index_by_ptree(file)
    in_use = set() if index is None else {*index.files.values()}
    by_ptree = re.compile(rf"{re.escape(file.stem)}(-[0-9a-f]{{8}})?-\d{{5,}}-of-\d{{5,}}{re.escape(file.suffix)}")
    for name in {*names} - in_use:
        if by_ptree.fullmatch(name):
            with suppress(OSError):
                (file.parent / name).unlink()


def sweep_shards(file: Path) -> None:
    """Remove the drafts of an index that crashes left behind, and the shards that these name."""

    def remove_named(draft: int) -> None:
        with suppress(FileError):
            remove_shards(file, _named_by(parsed_index("", read_all(draft), verify=False)))

    sweep(index_path(file), remove_named)


def identity(path: Path) -> tuple[int, int] | None:
    """Inode and mtime, which change when a file is replaced; None where there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def remove_unchanged(file: Path, before: tuple[int, int] | None) -> None:
    """Remove a file that an index has replaced, unless another process has written it anew."""
    if before is not None and identity(file) == before:
        file.unlink(missing_ok=True)


def remove_unchanged_index(file: Path, before: tuple[int, int] | None) -> None:
    """Remove an index by ptree and its shards, which one file has replaced, unless another process has written it anew."""
    index = index_path(file)
    if before is None and not drafts_of(index):
        return
    with locked_folder(file.parent):
        if before is not None and identity(index) == before and _index_by_ptree(file) is not None:
            left = new_draft_name(index)  # as if a crash had left it: a crash from here on loses no shards
            index.replace(left)
            mark_abandoned(left)
        sweep_shards(file)


def remove_tree(file: Path) -> None:
    """Remove what ptree keeps at a path, in one file or in shards."""
    file.unlink(missing_ok=True)
    remove_unchanged_index(file, identity(index_path(file)))


def _index_by_ptree(file: Path) -> ShardIndex | None:
    try:
        index = read_index(index_path(file), verify=True)
    except (FileNotFoundError, FileError):
        return None
    return index if index.facts is not None else None
