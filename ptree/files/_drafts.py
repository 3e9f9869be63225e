"""Write a draft, a temporary file that replaces the old file at once (an atomic write), and sweep drafts that crashes left."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from ._operating_system import (
    HAS_LOCKS,
    copy_permissions,
    create,
    flush_folder,
    is_abandoned,
    lock,
    open_to_read,
)


@contextmanager
def draft(path: Path) -> Iterator[int]:
    """Open a draft, which replaces the old file if the block succeeds, and is removed if it fails.

    It is locked while it is written, so that the next process that saves can tell it from what a crash left behind.
    """
    with _errors_named(path):
        place, file = _create_locked(path)
        with ExitStack() as opened:
            opened.callback(os.close, file)
            try:
                copy_permissions(path, file)
                yield file
                # before the new name is on the disk: otherwise a crash of the machine could leave an empty file
                os.fsync(file)
                # Windows cannot rename a file that is open; elsewhere closing it first would give up the lock too early
                if not HAS_LOCKS:
                    opened.close()
                os.replace(place, path)
            except BaseException:  # an interrupt too must not leave a draft
                opened.close()
                place.unlink(missing_ok=True)
                raise
        flush_folder(path.parent)  # the rename itself is in the folder


@contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    """Let an OSError name the file that the user gave, not its draft."""
    try:
        yield
    except OSError as error:
        if error.errno and _is_about_draft(path, error):
            error.filename = str(path)
        raise


def _is_about_draft(path: Path, error: OSError) -> bool:
    """Whether an error names a draft of this file, or nothing, as errors of calls with a descriptor do."""
    if error.filename is None:
        return True
    return _draft_names(path).fullmatch(Path(error.filename).name) is not None


def new_draft_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid4().hex}.tmp")


def drafts_of(path: Path) -> list[Path]:
    """List the drafts of a file: one for each process that writes it now, or that was killed while it wrote."""
    if not path.parent.is_dir():
        return []
    names = _draft_names(path)
    return [place for place in path.parent.iterdir() if names.fullmatch(place.name)]


def _draft_names(path: Path) -> re.Pattern[str]:
    return re.compile(re.escape(f".{path.name}.") + r"[0-9a-f]{32}\.tmp")


def sweep(path: Path, before_removal: Callable[[int], None] | None = None) -> None:
    """Sweep up the drafts of a file that crashes left behind; `before_removal` is called with each draft, open, first."""
    for place in drafts_of(path):
        with suppress(OSError):  # another process was faster, or it belongs to another user
            _sweep_one(place, before_removal)


def _sweep_one(place: Path, before_removal: Callable[[int], None] | None) -> None:
    with ExitStack() as opened:
        file = open_to_read(place)
        opened.callback(os.close, file)
        if not is_abandoned(file):
            return
        if before_removal is not None:
            before_removal(file)
        if not HAS_LOCKS:
            opened.close()  # Windows cannot remove a file that is open
        place.unlink(missing_ok=True)


def _create_locked(path: Path) -> tuple[Path, int]:
    while True:
        place = new_draft_name(path)
        file = create(place)
        try:
            lock(file)
        except BaseException:  # an interrupt
            os.close(file)
            place.unlink(missing_ok=True)
            raise
        # between `create` and `lock` another process may have taken this draft for abandoned and removed it
        if os.fstat(file).st_nlink:
            return place, file
        os.close(file)
