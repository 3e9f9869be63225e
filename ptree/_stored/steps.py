"""Steps in a folder of checkpoints: list those that are there, each in one or both of its forms."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .locations import INDEX_SUFFIX, index_path, is_orbax
from .operating_system import is_regular, status_of, target_status

LAST_STEP = 10**18
"""The greatest number of a step; a file with a greater one is not a step."""

FILE_ENDING = rf"\.safetensors({re.escape(INDEX_SUFFIX)})?"
# no leading zeros, no digits of other scripts: each step has one name
_STEP = re.compile(rf"step_(0|[1-9][0-9]{{0,17}}|{LAST_STEP})({FILE_ENDING})?")
_TRIES = 100
"""How often to list a folder that changes while it is looked at."""


@dataclass(frozen=True)
class SavedStep:
    """A step in a folder, in one of its forms: it may be there as a file and as a folder by Orbax."""

    number: int
    path: Path
    """Of its file, which may be in shards, or of its folder by Orbax."""
    modified: int
    """When it was written, in nanoseconds."""

    def has_gone(self) -> bool:
        """Whether nothing is there any more: another process has removed it since it was listed."""
        return status_of(self.path) is None and status_of(index_path(self.path)) is None


def saved_steps(folder: Path) -> list[SavedStep]:
    """List the steps in a folder, the newest first; other processes may write and remove steps meanwhile."""
    names = _step_names(folder)
    for _ in range(_TRIES):
        steps = _steps_named(folder, names)
        names_now = _step_names(folder)
        if names_now == names:
            break
        names = names_now  # otherwise, of the first list all may have gone, though at any time a step was there
    return sorted(steps, key=lambda step: (step.number, step.modified), reverse=True)


def _step_names(folder: Path) -> set[str]:
    try:
        return {name for name in os.listdir(folder) if _STEP.fullmatch(name)}
    except FileNotFoundError:  # the folder is made with the first step
        return set()


def _steps_named(folder: Path, names: Iterable[str]) -> list[SavedStep]:
    """The steps of these names that are there; a file and the index of its shards are one."""
    modified: dict[Path, int] = {}
    for name in names:
        time = _time_of_step(folder / name)
        if time is not None:
            path = folder / name.removesuffix(INDEX_SUFFIX)
            modified[path] = max(time, modified.get(path, time))
    return [SavedStep(_number_of(path), path, time) for path, time in modified.items()]


def _time_of_step(place: Path) -> int | None:
    """When a step was written; None if there is no step, such as at a folder that is named like a file."""
    status = target_status(place)
    if status is None:
        return None
    is_step = is_regular(status) if ".safetensors" in place.name else is_orbax(place)
    return status.st_mtime_ns if is_step else None


def number_of_step(name: str) -> int | None:
    """The number of the step that a folder by Orbax has by its name; None of any other name."""
    match = _STEP.fullmatch(name)
    return int(match[1]) if match and match[2] is None else None


def _number_of(path: Path) -> int:
    return int(path.name.removeprefix("step_").removesuffix(".safetensors"))
