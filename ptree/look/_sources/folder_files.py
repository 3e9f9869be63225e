"""The files of parameters in a folder: the one that is meant by the folder, and those that are not read with it."""

from __future__ import annotations

import os
from pathlib import Path

from ..._foreign.name_endings import ends_as_a_read_format
from ..._foreign.unread_files import TORCH_INDEX_SUFFIX
from ..._stored.locations import INDEX_SUFFIX
from ..._stored.steps import saved_steps
from .file_kinds import begins_as_safetensors
from .source import Source


def files_meant(folder: str) -> list[str]:
    """The names of files in a folder that may be meant by it: of safetensors and npz, whatever else is there."""
    inside = [name for name in sorted(os.listdir(folder)) if not name.endswith(TORCH_INDEX_SUFFIX)]
    indices = [name for name in inside if name.endswith(INDEX_SUFFIX)]
    if len(indices) == 1:  # an index stands for its shards
        return indices
    files = [name for name in inside if name.endswith((".safetensors", INDEX_SUFFIX, ".npz"))]
    if files:
        return files
    # such as `weights`, without an ending
    return [name for name in inside if begins_as_safetensors(os.path.join(folder, name))]


def foreign_files_meant(folder: str) -> list[str]:
    """The names of files of other frameworks that may be meant by a folder, where none of safetensors and npz is."""
    inside = sorted(os.listdir(folder))
    indices = [name for name in inside if name.endswith(TORCH_INDEX_SUFFIX)]
    return indices or [name for name in inside if ends_as_a_read_format(name)]


def files_not_read(folder: str, source: Source) -> list[str]:
    """The names of files and steps in a folder that hold parameters, and that a source of this folder does not read."""
    read = {*map(os.path.realpath, source.files)}
    return [name for name in _parameter_files(folder) if os.path.realpath(os.path.join(folder, name)) not in read]


def _parameter_files(folder: str) -> list[str]:
    steps = {step.path.name for step in saved_steps(Path(folder)) if step.path.is_dir()}
    return [name for name in sorted(os.listdir(folder)) if name in steps or _holds_parameters(folder, name)]


def _holds_parameters(folder: str, name: str) -> bool:
    """Whether a file holds parameters by its name, or by its first bytes where its name says nothing."""
    path = os.path.join(folder, name)
    if name.endswith((".safetensors", INDEX_SUFFIX)) or ends_as_a_read_format(name):
        return os.path.isfile(path)
    return begins_as_safetensors(path)
