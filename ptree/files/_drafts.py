"""Drafts: temporary files beside a file, which take its place at once when they are complete (atomic writes)."""

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
    """Open a new file that replaces the old one if the block succeeds, and is removed if it fails.

    It is locked while it is written, so that the next process that saves knows what a crash left behind.
    """
    with _errors_named(path):
        place, file = _create_locked(path)
        with ExitStack() as opened:
            opened.callback(os.close, file)
            try:
                copy_permissions(path, file)
                yield file
                os.fsync(file)
                if not HAS_LOCKS:
                    opened.close()
                os.replace(place, path)
            except BaseException:
                opened.close()
                place.unlink(missing_ok=True)
                raise
        flush_folder(path.parent)


@contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    """Let an error of the system name the file, not its draft."""
    try:
        yield
    except OSError as error:
        is_drafts = error.filename is None or _draft_names(path).fullmatch(Path(error.filename).name)
        if error.errno and is_drafts:
            error.filename = str(path)
        raise


def new_draft_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid4().hex}.tmp")


def drafts_of(path: Path) -> list[Path]:
    """The drafts of a file: one for each process that writes it now, or that was killed while it did."""
    if not path.parent.is_dir():
        return []
    names = _draft_names(path)
    return [place for place in path.parent.iterdir() if names.fullmatch(place.name)]


def _draft_names(path: Path) -> re.Pattern[str]:
    return re.compile(re.escape(f".{path.name}.") + r"[0-9a-f]{32}\.tmp")


def sweep(path: Path, before_removal: Callable[[int], None] | None = None) -> None:
    """Remove the drafts of a file that crashes left behind; `before_removal` gets each of them, open."""
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
            opened.close()
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
        if os.fstat(file).st_nlink:
            return place, file
        os.close(file)  # another process removed it before it was locked
