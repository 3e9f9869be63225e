"""A place, where a tree is kept: one file, or shards and the index of them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from .._errors import FileError
from ._draft import drafts_of, lock, name_of_draft, sweep
from ._index import SUFFIX, Index, index_in, read_index


def place_of(path: str | os.PathLike[str]) -> Path:
    """The file that is meant: a folder means its `model.safetensors`, an index the file that it stands for."""
    if not os.fspath(path):
        raise FileError("expected the path of a file, got ''")
    place = Path(path)
    return place / "model.safetensors" if place.is_dir() else place.with_name(place.name.removesuffix(SUFFIX))


def index_of(place: Path) -> Path:
    return place.with_name(place.name + SUFFIX)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Nobody else is here, where the file system can tell."""
    file = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        lock(file)
        yield
    finally:
        os.close(file)


def free_names(place: Path, count: int) -> list[str]:
    """Names for shards: `model-00001-of-00003.safetensors` and so on.

    With a tag in front of that where something is kept already: a reader of an old index must not find new shards.
    """

    def named(tag: str) -> list[str]:
        return [f"{place.stem}{tag}-{at:05}-of-{count:05}{place.suffix}" for at in range(1, count + 1)]

    known = [place, index_of(place), *(place.parent / name for name in named(""))]
    return named(f"-{uuid4().hex[:8]}" if any(path.exists() for path in known) else "")


def replaced_at(place: Path) -> list[str]:
    """The shards whose place a new index takes, where ptree wrote the old one."""
    index = _own_index(place)
    return [] if index is None or index.facts is None else sorted({*index.files.values(), *index.facts.replaced})


def discard(place: Path, names: Iterable[str]) -> None:
    """Remove shards of these names, but for those that the index names."""
    index = _own_index(place)
    kept = () if index is None else index.files.values()
    ours = re.compile(rf"{re.escape(place.stem)}(-[0-9a-f]{{8}})?-\d{{5,}}-of-\d{{5,}}{re.escape(place.suffix)}")
    for name in {*names} - {*kept}:
        if ours.fullmatch(name):
            with suppress(OSError):
                (place.parent / name).unlink()


def sweep_index(place: Path) -> None:
    """Remove the shards that drafts of an index name, and the drafts: a crash has left them."""

    def swept(draft: int) -> None:
        with suppress(FileError):
            index = index_in("", os.pread(draft, os.fstat(draft).st_size, 0), verify=False)
            discard(place, [*index.files.values(), *(index.facts.replaced if index.facts else ())])

    sweep(index_of(place), swept)


def identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from another that takes its place."""
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_ino, about.st_mtime_ns


def retire(place: Path, known: tuple[int, int] | None) -> None:
    """Remove the file, if it is still the one that was known: an index has taken its place."""
    if known is not None and identity(place) == known:
        place.unlink(missing_ok=True)


def retire_index(place: Path, known: tuple[int, int] | None) -> None:
    """Remove the index that ptree wrote and its shards, if it is still the one that was known: a file has taken its place."""
    if known is None and not drafts_of(index_of(place)):
        return
    with alone_in(place.parent):
        if known is not None and identity(index_of(place)) == known and _own_index(place) is not None:
            os.replace(index_of(place), name_of_draft(index_of(place)))
        sweep_index(place)


def remove(place: Path) -> None:
    """Remove what ptree keeps there, in either form."""
    place.unlink(missing_ok=True)
    retire_index(place, identity(index_of(place)))


def _own_index(place: Path) -> Index | None:
    try:
        index = read_index(index_of(place), verify=True)
    except (FileNotFoundError, FileError):
        return None
    return None if index.facts is None else index
