"""Read the metrics of a step in a folder of checkpoints, remove a step, sweep up what crashes have left in the folder."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import closing
from pathlib import Path
from uuid import uuid4

from .._errors import FileError
from .._stored.drafts import sweep
from .._stored.locations import is_orbax
from .._stored.operating_system import is_folder, status_of
from .._stored.steps import FILE_ENDING, SavedStep
from .._stored.urls import is_url
from ._metrics import metrics_in
from ._open import File
from ._orbax import OrbaxCheckpoint
from ._shards import remove_tree, sweep_shards

ORBAX_DRAFT = ".orbax-checkpoint-tmp"
# what a crash leaves: drafts of ptree, and temporary folders of Orbax
_DRAFT = re.compile(rf"\.?(step_[0-9]+)({FILE_ENDING}\.[0-9a-f]{{32}}\.tmp|{re.escape(ORBAX_DRAFT)}.*)", re.DOTALL)


def read_metrics(step: SavedStep) -> dict[str, float] | None:
    """Read the metrics that a step was saved with, {} without any; None if they cannot be read, though it may be whole."""
    try:
        with closing(_opened(step.path)) as saved:
            return metrics_in(saved.metadata)
    except FileNotFoundError:
        return {}
    except FileError as error:
        return {} if error.is_damage else None
    except OSError:
        return None


def _opened(path: Path) -> File | OrbaxCheckpoint:
    is_by_orbax = is_url(str(path)) or is_orbax(path)  # at a URL all steps are
    return OrbaxCheckpoint(str(path)) if is_by_orbax else File(str(path))


def remove_step(path: Path) -> None:
    """Remove a step; of a link, the link alone."""
    if not is_orbax(path):
        remove_tree(path)
    elif path.is_symlink():
        path.unlink()
    else:
        # at once, so that no process that loads finds a part of it
        aside = path.with_name(f"{path.name}{ORBAX_DRAFT}-{uuid4().hex}")
        path.rename(aside)
        shutil.rmtree(aside)


def sweep_folder(folder: Path) -> None:
    """Remove drafts and temporary folders that crashes have left; no other process writes to this folder."""
    for name in os.listdir(folder):
        left = _DRAFT.fullmatch(name)
        if left is None:
            continue
        if left[2].startswith(ORBAX_DRAFT):
            # `rmtree` would wait for ever for a FIFO; what cannot be removed must not keep the run from saving
            if is_folder(status_of(folder / name)):
                shutil.rmtree(folder / name, ignore_errors=True)
            continue
        file = folder / f"{left[1]}.safetensors"
        sweep(file)
        sweep_shards(file)
