"""Choose names for new shards, and remove shards that a newer tree has replaced, or that crashes left behind."""

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

    If a tree is there already, the names get a tag, so that a reader of the old index never finds new shards.
    """
    plain = _numbered(file, "", count)
    taken = [file, index_path(file), *(file.parent / name for name in plain)]
    if any(path.exists() for path in taken):
        return _numbered(file, f"-{uuid4().hex[:8]}", count)
    return plain


def _numbered(file: Path, tag: str, count: int) -> list[str]:
    return [f"{file.stem}{tag}-{number:05}-of-{count:05}{file.suffix}" for number in range(1, count + 1)]


def replaced_shards(file: Path) -> list[str]:
    """List the shards that a new index replaces, if ptree wrote the old index."""
    index = _index_by_ptree(file)
    return [] if index is None else _named_by(index)


def _named_by(index: ShardIndex) -> list[str]:
    replaced = index.facts.replaced if index.facts is not None else []
    return sorted({*index.files.values(), *replaced})


def remove_shards(file: Path, names: Iterable[str]) -> None:
    """Remove the shards of these names, but for those that the index names now."""
    index = _index_by_ptree(file)
    in_use = set() if index is None else {*index.files.values()}
    # an index is a file that anyone can change: it must not make ptree remove other files
    by_ptree = re.compile(rf"{re.escape(file.stem)}(-[0-9a-f]{{8}})?-\d{{5,}}-of-\d{{5,}}{re.escape(file.suffix)}")
    for name in {*names} - in_use:
        if by_ptree.fullmatch(name):
            with suppress(OSError):  # Windows keeps a shard that is open or mapped
                (file.parent / name).unlink()


def sweep_shards(file: Path) -> None:
    """Sweep up shards that crashes left behind: the drafts of an index, and the shards that these name."""

    def remove_named(draft: int) -> None:
        with suppress(FileError):  # a crash while the draft was written: no shard had been written yet
            remove_shards(file, _named_by(parsed_index("", read_all(draft), verify=False)))

    sweep(index_path(file), remove_named)


def identity(path: Path) -> tuple[int, int] | None:
    """Inode and mtime of a file, which change when it is replaced; None if there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def remove_unchanged(file: Path, before: tuple[int, int] | None) -> None:
    """Remove a file that new shards have replaced, unless another process has saved a new one since."""
    if before is not None and identity(file) == before:
        file.unlink(missing_ok=True)


def remove_unchanged_index(file: Path, before: tuple[int, int] | None) -> None:
    """Remove an index and its shards, which one file has replaced, unless another process has saved new ones since."""
    index = index_path(file)
    if before is None and not drafts_of(index):  # the usual case, a tree that never was in shards: no lock is needed
        return
    with locked_folder(file.parent):
        if before is not None and identity(index) == before and _index_by_ptree(file) is not None:
            # the index becomes a draft as a crash leaves it: after a crash from here on, the next save removes the shards
            left = new_draft_name(index)
            index.replace(left)
            mark_abandoned(left)
        sweep_shards(file)


def remove_tree(file: Path) -> None:
    """Remove the tree that ptree saved at a path, one file or shards and their index."""
    file.unlink(missing_ok=True)
    remove_unchanged_index(file, identity(index_path(file)))


def _index_by_ptree(file: Path) -> ShardIndex | None:
    """The index of a file's shards, if ptree wrote it: shards of other programs are never removed."""
    try:
        index = read_index(index_path(file), verify=True)
    except (FileNotFoundError, FileError):
        return None
    return index if index.facts is not None else None
