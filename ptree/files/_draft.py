"""A draft, what is written beside a file and takes its place when it is whole."""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4


@contextmanager
def draft(path: Path) -> Iterator[int]:
    """A new file that takes the place of the old one when all went well, and is gone when not.

    It is locked while it is written, so that the next one who saves knows what a crash has left behind.
    """
    with _naming(path):
        place, file = _locked(path)
        try:
            if path.exists():
                os.chmod(file, stat.S_IMODE(path.stat().st_mode))
            yield file
            os.fsync(file)
            os.replace(place, path)
        except BaseException:
            place.unlink(missing_ok=True)
            raise
        finally:
            os.close(file)
        sync(path.parent)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """An error names the file, and not the draft."""
    try:
        yield
    except OSError as error:
        if error.errno and (error.filename is None or _ours(path).fullmatch(Path(error.filename).name)):
            error.filename = str(path)
        raise


def put(file: int, data: Any, at: int, bar: Any = None) -> None:
    """Write all the bytes, from a place on."""
    left = memoryview(data)
    while left:
        written = os.pwrite(file, left[: 1 << 26], at)
        left, at = left[written:], at + written
        if bar is not None:
            bar.update(written)


def sync(folder: Path) -> None:
    """The names in a folder are on the disk when this returns."""
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def lock(file: int, *, wait: bool = True) -> bool:
    """Lock an open file until it is closed; whether that succeeded."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False  # another one has it, or the file system knows no such locks
    return True


def name_of_draft(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid4().hex}.tmp")


def drafts_of(path: Path) -> list[Path]:
    """What is or was written to take the place of a file."""
    ours = _ours(path)
    beside = path.parent.iterdir() if path.parent.is_dir() else ()
    return [place for place in beside if ours.fullmatch(place.name)]


def _ours(path: Path) -> re.Pattern[str]:
    return re.compile(re.escape(f".{path.name}.") + r"[0-9a-f]{32}\.tmp")


def sweep(path: Path, swept: Callable[[int], None] = lambda _: None) -> None:
    """Remove drafts that nobody writes any more; `swept` is called with each, open, before."""
    for place in drafts_of(path):
        try:
            file = os.open(place, os.O_RDONLY)
        except OSError:
            continue
        try:
            if lock(file, wait=False):
                swept(file)
                place.unlink(missing_ok=True)
        except OSError:
            pass  # it is not ours to remove
        finally:
            os.close(file)


def _locked(path: Path) -> tuple[Path, int]:
    while True:
        place = name_of_draft(path)
        file = os.open(place, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            lock(file)
        except BaseException:  # an interrupt
            os.close(file)
            place.unlink(missing_ok=True)
            raise
        if os.fstat(file).st_nlink:
            return place, file
        os.close(file)  # swept by another process before it was locked
