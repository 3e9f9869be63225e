"""Write a draft, a temporary file that replaces the old file at once (an atomic write), and sweep drafts that crashes left."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from .operating_system import (
    HAS_LOCKS,
    close_locked,
    create,
    flush_folder,
    is_abandoned,
    is_regular,
    lock,
    mark_abandoned,
    open_to_read,
    put_back,
    status_of,
    target_status,
)


@contextmanager
def draft(path: Path, mode: int | None = None) -> Iterator[int]:
    """Open a draft, which replaces the old file if the block succeeds, and is removed if it fails.

    It is locked while it is written, so that the next process that saves can distinguish it from a draft that a crash left behind.

    Args:
        path: the file that it will be; a link of this name is replaced, and its target stays.
        mode: its permissions; None for those of a new file.
    """
    with _errors_named(path):
        place, file = _create_locked(path, mode)
        with ExitStack() as opened:
            opened.callback(close_locked, file)
            try:
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
    if target_status(path.parent) is None:
        return []
    names = _draft_names(path)
    found = [place for place in path.parent.iterdir() if names.fullmatch(place.name)]
    # a link, a FIFO or a folder of such a name is no draft, and to open a FIFO would wait for ever
    return [place for place in found if is_regular(status_of(place))]


def _draft_names(path: Path) -> re.Pattern[str]:
    return re.compile(re.escape(f".{path.name}.") + r"[0-9a-f]{32}\.tmp")


def sweep(path: Path, before_removal: Callable[[int], None] | None = None) -> None:
    """Sweep up the drafts of a file that crashes left behind; `before_removal` is called with each draft, open, first."""
    for place in drafts_of(path):
        # another process was faster, or the draft or a shard cannot be removed: the next save tries again
        with suppress(OSError):
            _sweep_one(place, before_removal)


def _sweep_one(place: Path, before_removal: Callable[[int], None] | None) -> None:
    with ExitStack() as opened:
        file = open_to_read(place)
        opened.callback(os.close, file)
        if not is_abandoned(file):
            return
        if not HAS_LOCKS:
            opened.close()
            place = _claimed(place)
            file = open_to_read(place)
            opened.callback(os.close, file)
        if before_removal is not None:
            before_removal(file)
        if not HAS_LOCKS:
            opened.close()  # Windows cannot remove a file that is open
        place.unlink(missing_ok=True)


def _claimed(place: Path) -> Path:
    """Rename a draft, which Windows refuses while a process has it open; that process may not have written for long."""
    target = _draft_target(place)
    claimed = new_draft_name(target)
    place.rename(claimed)
    mark_abandoned(claimed)
    return claimed


def _draft_target(place: Path) -> Path:
    """The file that a draft was to become."""
    return place.with_name(place.name[1:].rsplit(".", 2)[0])


def file_id(path: Path) -> tuple[int, int] | None:
    """Inode and mtime of a file, or of a link itself, which change when it is replaced; None if nothing is there."""
    status = status_of(path)
    return None if status is None else (status.st_ino, status.st_mtime_ns)


def set_aside(path: Path, expected: tuple[int, int] | None) -> Path | None:
    """Rename a file to the name of a draft, if it is still the expected one; return that name, or None.

    Between looking at a file and removing it, another process may replace it. A rename takes what is there at that moment:
    if that is not the expected file after all, it gets its name back.
    """
    if expected is None or file_id(path) != expected:
        return None
    aside = new_draft_name(path)
    try:
        path.rename(aside)
    except FileNotFoundError:
        return None
    if file_id(aside) == expected:
        return aside
    put_back(aside, path)
    return None


def _create_locked(path: Path, mode: int | None) -> tuple[Path, int]:
    while True:
        place = new_draft_name(path)
        file = create(place, mode)
        try:
            lock(file)
        except BaseException:  # an interrupt
            close_locked(file)
            place.unlink(missing_ok=True)
            raise
        # between `create` and `lock` another process may have taken this draft for abandoned and removed it
        if os.fstat(file).st_nlink:
            return place, file
        close_locked(file)
