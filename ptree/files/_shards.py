"""Shards: choose names for new ones, and unlink those that a newer tree has replaced, or that crashes left, by the index of
ptree."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from .._errors import FileError
from .._stored.drafts import drafts_of, file_id, set_aside, sweep
from .._stored.hf_index import ShardIndex, parsed_index, read_index
from .._stored.locations import index_path
from .._stored.operating_system import locked_folder, mark_abandoned, read_all, status_of, target_status


def free_names(file: Path, count: int) -> list[str]:
    """Names for new shards: `model-00001-of-00003.safetensors` and so on.

    If a tree is there already, the names get a tag, so that a reader of the old index never finds new shards.
    """
    plain = numbered_names(file, "", count)
    taken = [file, index_path(file), *(file.parent / name for name in plain)]
    if any(status_of(path) is not None for path in taken):
        return tagged_names(file, count)
    return plain


def tagged_names(file: Path, count: int) -> list[str]:
    """Names for new shards that no other process can choose: `model-1b2c3d4e-00001-of-00003.safetensors`."""
    return numbered_names(file, f"-{uuid4().hex[:8]}", count)


def numbered_names(file: Path, tag: str, count: int) -> list[str]:
    """Names for shards with a tag, which may be empty."""
    return [f"{file.stem}{tag}-{number:05}-of-{count:05}{file.suffix}" for number in range(1, count + 1)]


def replaced_shards(file: Path) -> list[str]:
    """List the shards that a new index replaces, if ptree wrote the old index."""
    index = _index_by_ptree(file)
    if index is None:
        return []
    return [name for name in _named_by(index) if status_of(file.parent / name) is not None]


def _named_by(index: ShardIndex) -> list[str]:
    replaced = index.facts.replaced if index.facts is not None else []
    return sorted({*index.files.values(), *replaced})


def replaced_mode(file: Path, shards: Iterable[str]) -> int | None:
    """The permissions for new files: what all replaced files allow, so that nobody gains any; None if there are none."""
    replaced = [file, index_path(file), *(file.parent / name for name in shards)]
    mode = None
    for path in replaced:
        status = target_status(path)
        if status is not None:
            allowed = stat.S_IMODE(status.st_mode)
            mode = allowed if mode is None else mode & allowed
    return mode


def remove_shards(file: Path, names: Iterable[str]) -> None:
    """Remove the shards of these names, but for those that the index names now, whoever wrote it.

    Raises:
        OSError: one cannot be removed; the others are.
    """
    try:
        index = _index_there(file)
    except FileError:  # damaged, or of a newer ptree: any shard may be one of its
        return
    in_use = set() if index is None else {*index.files.values()}
    # an index is a file that anyone can change: it must not make ptree remove other files
    by_ptree = re.compile(rf"{re.escape(file.stem)}(-[0-9a-f]{{8}})?-\d{{5,}}-of-\d{{5,}}{re.escape(file.suffix)}")
    _unlink_all(file.parent / name for name in sorted({*names} - in_use) if by_ptree.fullmatch(name))


def _unlink_all(paths: Iterable[Path]) -> None:
    """Remove files, links among them and not their targets; raises the first OSError when all have been tried."""
    errors: list[OSError] = []
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def sweep_shards(file: Path) -> None:
    """Sweep up shards that crashes left behind: the drafts of an index, and the shards that these name."""

    def remove_named(draft: int) -> None:
        with suppress(FileError):  # a crash while the draft was written: no shard had been written yet
            remove_shards(file, _named_by(parsed_index("", read_all(draft), verify=False)))

    sweep(index_path(file), remove_named)


def remove_unchanged(file: Path, before: tuple[int, int] | None) -> None:
    """Remove a file that new shards have replaced, unless another process has saved a new one since."""
    aside = set_aside(file, before)
    if aside is not None:
        aside.unlink()


def remove_unchanged_index(file: Path, before: tuple[int, int] | None) -> None:
    """Remove an index and its shards, which one file has replaced, unless another process has saved new ones since."""
    index = index_path(file)
    if before is None and not drafts_of(index):  # the usual case, a tree that never was in shards: no lock is needed
        return
    with locked_folder(file.parent):
        old = _index_by_ptree(file)
        if old is not None:
            # the index becomes a draft as a crash leaves it: after a crash from here on, the next save removes the shards
            left = set_aside(index, before)
            if left is not None and left.is_symlink():  # its target is another's
                left.unlink()
                remove_shards(file, _named_by(old))
            elif left is not None:
                mark_abandoned(left)
        sweep_shards(file)


def remove_tree(file: Path) -> None:
    """Remove the tree that ptree saved at a path, one file or shards and their index."""
    file.unlink(missing_ok=True)
    remove_unchanged_index(file, file_id(index_path(file)))


def _index_by_ptree(file: Path) -> ShardIndex | None:
    """The index of a file's shards, if ptree wrote it: shards of other programs are never removed."""
    try:
        index = _index_there(file)
    except FileError:
        return None
    return index if index is not None and index.facts is not None else None


def _index_there(file: Path) -> ShardIndex | None:
    """The index of a file's shards, whoever wrote it; None if there is none. Raises FileError if it is damaged."""
    path = index_path(file)
    if target_status(path) is None:  # also for a link that leads nowhere, or to itself
        return None
    try:
        return read_index(path, verify=True)
    except FileNotFoundError:
        return None
