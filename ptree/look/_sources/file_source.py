"""Open what is at a path as a source: safetensors, shards, npz, folders of checkpoints by ptree and by Orbax. Only for Orbax JAX is
imported."""

from __future__ import annotations

import os
from pathlib import Path

from ..._stored.locations import checked_path, is_orbax
from ..._stored.steps import SavedStep, saved_steps
from ..._stored.stored import open_stored
from ..._words import quoted, suggestion
from .source import Source
from .stored_source import StoredSource

_ZIP = b"PK\x03\x04"


def file_source(path: str | os.PathLike[str]) -> Source:
    """Open what is at a path: a file, shards by their index or folder, or the latest step of a folder of checkpoints."""
    text = checked_path(path, "look at a file")
    if not os.path.exists(text) and not os.path.exists(f"{text}.index.json"):
        raise FileNotFoundError(f"no file {quoted(text)}.{_nearest_file(text)}")
    steps = saved_steps(Path(text)) if os.path.isdir(text) else []
    if steps:
        return _of_step(steps[0], steps)
    if is_orbax(text):
        return _of_orbax(text)
    if _begins_like_a_zip(text):
        from .npz_source import NpzSource  # which takes a tenth of the time of a table of another file to import

        return NpzSource(text)
    return StoredSource(open_stored(text, verify=True, mmap=False))


def _of_step(step: SavedStep, steps: list[SavedStep]) -> Source:
    """The latest step of a folder of checkpoints."""
    is_by_orbax = is_orbax(step.path)
    source = (
        _of_orbax(str(step.path)) if is_by_orbax else StoredSource(open_stored(str(step.path), verify=True, mmap=False))
    )
    numbers = sorted({saved.number for saved in steps})
    source.title = f"{step.path.parent.name}/{step.path.name}"
    source.about = f"the latest of {len(numbers)} steps, {numbers[0]} to {numbers[-1]}; {source.about}"
    return source


def _of_orbax(path: str) -> Source:
    # a room beside this one: Orbax is read by the code that loads its checkpoints
    from ...files._orbax import OrbaxCheckpoint
    from .tree_source import SavedTreeSource

    return SavedTreeSource(OrbaxCheckpoint(path), os.path.basename(os.path.abspath(path)), "checkpoint by Orbax")


def _begins_like_a_zip(path: str) -> bool:
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return file.read(len(_ZIP)) == _ZIP


def _nearest_file(path: str) -> str:
    folder, name = os.path.split(path)
    try:
        beside = os.listdir(folder or ".")
    except OSError:
        return ""
    return suggestion(name, beside, f"{folder}/" if folder else "")
