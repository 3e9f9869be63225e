"""Open what is at a path as a source: safetensors, shards, npz, files of other frameworks, folders of checkpoints by ptree and by
Orbax. Only for Orbax JAX is imported."""

from __future__ import annotations

import os
from pathlib import Path

from ..._errors import FileError
from ..._foreign.candidate import Candidate
from ..._foreign.formats import format_of, open_foreign
from ..._foreign.unread_files import index_problem, problem_beside_safetensors, why_not_read
from ..._stored.locations import checked_location, file_path, is_orbax, is_saved, nearest_file
from ..._stored.operating_system import is_folder, is_regular, target_status
from ..._stored.steps import SavedStep, saved_steps
from ..._stored.stored import open_stored
from ..._stored.urls import is_url
from ..._words import listed, quoted
from .file_kinds import kind_of_file
from .folder_files import files_meant, foreign_files_meant
from .source import Source
from .stored_source import StoredSource

_NOTHING_READ = "holds no parameters that ptree reads: a file of safetensors or of another framework, an index of shards, step_N of Checkpoints, a checkpoint by Orbax"


def file_source(path: str | os.PathLike[str]) -> Source:
    """Open what is at a path or URL: a file, shards by their index or folder, or the latest step of a folder of checkpoints."""
    text = checked_location(path, "look at a file")
    if is_url(text):
        return _of_safetensors(text)
    status = target_status(text)
    if status is None:
        # the name of a file that is kept in shards, or of several files of TensorFlow
        return _of_safetensors(text) if is_saved(Path(text)) else _of_several_files(text)
    if is_folder(status):
        return _of_folder(text)
    if is_regular(status):
        return _of_file(text)
    raise FileError(f"cannot read {quoted(text)}: it is a FIFO, a socket or a device, not a file")


def _of_folder(folder: str) -> Source:
    steps = saved_steps(Path(folder))
    if steps:
        return _of_step(steps[0], steps)
    if is_orbax(folder):
        return _of_orbax(folder)
    if is_saved(file_path(folder)):
        return _of_safetensors(folder)
    files = files_meant(folder)
    if not files and format_of(folder) is not None:
        return _of_foreign(folder)
    files = files or foreign_files_meant(folder)
    if len(files) == 1:
        return file_source(os.path.join(folder, files[0]))
    if files:
        raise FileError(f"the folder {quoted(folder)} holds several files, name one of them: {listed(files)}")
    inside = sorted(os.listdir(folder))
    there = f"it has {listed(inside)}" if inside else "it is empty"
    raise FileError(f"the folder {quoted(folder)} {_NOTHING_READ}; {there}")


def _of_several_files(path: str) -> Source:
    """A checkpoint of TensorFlow, by the beginning of the names of its files; nothing else has no file of its name."""
    if format_of(path) is None:
        raise FileNotFoundError(_nothing_there(path))
    return _of_foreign(path)


def _of_foreign(path: str) -> Source:
    from .foreign_source import ForeignSource  # with the reader of this format

    return ForeignSource(open_foreign(path))


def _of_file(path: str) -> Source:
    kind = kind_of_file(path)
    if kind == "npz":
        from .npz_source import NpzSource  # which takes a tenth of the time of a table of another file to import

        return NpzSource(path)
    if kind == "foreign":
        return _of_foreign(path)
    if kind == "unread":
        raise FileError(f"cannot read {quoted(path)}: {why_not_read(Candidate(path))}")
    return _of_safetensors(path)


def _of_safetensors(path: str) -> StoredSource:
    problem = index_problem(path)
    if problem:
        raise FileError(f"cannot read {quoted(path)}: {problem}")
    try:
        return StoredSource(open_stored(path, verify=True, mmap=False, may_be_damaged=True))
    except FileError as error:  # nobody who looks at a file tried to load it
        problem = problem_beside_safetensors(path) if error.is_damage else ""
        if problem:
            raise FileError(f"cannot read {quoted(path)}: {problem}", is_damage=True) from error
        text = str(error).replace("cannot load", "cannot read", 1)
        raise FileError(text, error.is_damage) from error


def _of_step(step: SavedStep, steps: list[SavedStep]) -> Source:
    """The latest step of a folder of checkpoints."""
    is_by_orbax = is_orbax(step.path)
    source = _of_orbax(str(step.path)) if is_by_orbax else _of_safetensors(str(step.path))
    numbers = sorted({saved.number for saved in steps})
    which = (
        f"the latest of {len(numbers)} steps, {numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else "the only step"
    )
    source.title = f"{step.path.parent.name}/{step.path.name}"
    source.about = f"{which}; {source.about}"
    return source


def _of_orbax(path: str) -> Source:
    # a room beside this one: Orbax is read by the code that loads its checkpoints
    from ...files._orbax import OrbaxCheckpoint
    from .tree_source import SavedTreeSource

    return SavedTreeSource(OrbaxCheckpoint(path), os.path.basename(os.path.abspath(path)), "checkpoint by Orbax")


def _nothing_there(path: str) -> str:
    if os.path.islink(path):
        return f"the link {quoted(path)} leads to {quoted(os.readlink(path))}, where there is no file"
    return f"no file {quoted(path)}.{nearest_file(path)}"
