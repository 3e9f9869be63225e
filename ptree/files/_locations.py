"""Where a tree is kept on disk: the path of its file, of the index of its shards, or an Orbax checkpoint."""

from __future__ import annotations

import os
from pathlib import Path

from .._errors import FileError
from .._words import describe

INDEX_SUFFIX = ".index.json"
_ORBAX_METADATA = "_CHECKPOINT_METADATA"


def checked_path(path: str | os.PathLike[str], call: str) -> str:
    """The path as text; raises FileError where it is none, as when the arguments of a call are swapped.

    >>> checked_path({"w": 1}, "save(path, tree)")
    Traceback (most recent call last):
        ...
    ptree.FileError: save(path, tree): the path comes first, a str or a pathlib.Path; got dict
    """
    if not isinstance(path, (str, os.PathLike)):
        raise FileError(f"{call}: the path comes first, a str or a pathlib.Path; got {describe(path)}")
    text = os.fspath(path)
    if not text:
        raise FileError("expected the path of a file, got ''")
    return text


def file_path(path: str) -> Path:
    """The file that a path means: in a folder `model.safetensors`, of an index the file that is kept in its shards."""
    place = Path(path)
    if place.is_dir():
        return place / "model.safetensors"
    return place.with_name(place.name.removesuffix(INDEX_SUFFIX))


def index_path(file: Path) -> Path:
    """The index of a file that is kept in shards."""
    return file.with_name(file.name + INDEX_SUFFIX)


def is_orbax(path: str | os.PathLike[str]) -> bool:
    """Whether a folder is a checkpoint by Orbax."""
    return os.path.exists(os.path.join(path, _ORBAX_METADATA))
