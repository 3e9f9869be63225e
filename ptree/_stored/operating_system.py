"""Calls that differ between operating systems: open, lock, read and write files; status of a path; abandoned drafts; calls and
locks in forked processes.

Linux and macOS have `flock`. Windows does not: there, a draft counts as left behind by a crash when nobody has written
to it for an hour, and nothing keeps two processes from saving shards to one path at once. What is loaded is complete even
then; shards of one of the two may be left over. Windows also refuses to replace a file that is open or mapped.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock

import numpy as np

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

HAS_LOCKS = fcntl is not None
"""Whether the system has file locks. Windows has none, and there a file must be closed before it is moved or removed."""
_CHANGES_OPEN_FILES = os.chmod in os.supports_fd
_BINARY = getattr(os, "O_BINARY", 0)  # without this flag, Windows changes line ends
_MOST_AT_ONCE = 1 << 26
"""Bytes of one call to the system: some take no more than 2 GB."""
_ABANDONED = 3600
"""Seconds without a write after which a draft counts as left behind, where there are no locks."""
_locked: set[int] = set()
"""Descriptors of files that this process may hold a lock on."""
_seeking = Lock()
"""Held between moving a file's position and using it, where the system cannot read or write at an offset."""


def open_to_read(path: str | os.PathLike[str]) -> int:
    """Open a file for reading and return its descriptor."""
    return os.open(path, os.O_RDONLY | _BINARY)


def status_of(path: str | os.PathLike[str]) -> os.stat_result | None:
    """The status of what is at a path, of a link itself and not of its target; None if nothing is there.

    Raises:
        OSError: it cannot be told, as in a folder that may not be searched, or on a broken disk.
    """
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def target_status(path: str | os.PathLike[str]) -> os.stat_result | None:
    """The status of what a path leads to, through links; None if nothing is there, or links go round in a circle."""
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            return None
        raise


def is_regular(status: os.stat_result | None) -> bool:
    """Whether a status is that of a regular file: no folder, link, device, FIFO or socket, and not None."""
    return status is not None and stat.S_ISREG(status.st_mode)


def is_folder(status: os.stat_result | None) -> bool:
    """Whether a status is that of a folder, and not of a link to one."""
    return status is not None and stat.S_ISDIR(status.st_mode)


def create(path: str | os.PathLike[str], mode: int | None = None) -> int:
    """Create a file and return its descriptor; FileExistsError if it is there already.

    Args:
        path: the new file.
        mode: its permissions, where the system can set them; None leaves them to the umask.
    """
    # until the mode is set nobody else may open the file, which could be meant for few
    allowed = 0o666 if mode is None else 0o600
    # O_EXCL: two processes never write into one draft
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _BINARY, allowed)
    if mode is None or not _CHANGES_OPEN_FILES:
        return file
    try:
        os.chmod(file, mode)
    except BaseException:
        os.close(file)
        os.unlink(path)
        raise
    return file


def read_into(file: int, view: memoryview, offset: int) -> int:
    """Read bytes of a file from an offset into a view; return how many were read, fewer than asked at the file's end."""
    # in a loop, as the system may read fewer bytes than asked
    done = 0
    while done < len(view):
        got = _read_some(file, view[done : done + _MOST_AT_ONCE], offset + done)
        if not got:
            break
        done += got
    return done


def _read_some(file: int, view: memoryview, offset: int) -> int:
    if hasattr(os, "preadv"):
        return os.preadv(file, [view], offset)
    # Windows has no `preadv`
    with _seeking, io.FileIO(file, closefd=False) as raw:
        raw.seek(offset)
        return raw.readinto(view) or 0


def read_all(file: int) -> bytes:
    """Read all bytes of an open file."""
    content = bytearray(os.fstat(file).st_size)
    return bytes(content[: read_into(file, memoryview(content), 0)])


def write_all(file: int, data: bytes | np.ndarray, offset: int, progress: Callable[[int], None] | None = None) -> None:
    """Write all bytes at an offset; `progress` is called with the number of bytes of each step."""
    # in a loop, as the system may write fewer bytes than asked, on a disk that is nearly full for example
    left = memoryview(data)  # pyright: ignore[reportArgumentType]
    while left:
        written = _write_some(file, left[:_MOST_AT_ONCE], offset)
        left = left[written:]
        offset += written
        if progress is not None:
            progress(written)


def _write_some(file: int, data: memoryview, offset: int) -> int:
    if hasattr(os, "pwrite"):
        return os.pwrite(file, data, offset)
    with _seeking:  # Windows has no `pwrite`
        os.lseek(file, offset, os.SEEK_SET)
        return os.write(file, data)


def lock(file: int) -> None:
    """Lock an open file for this process alone until `close_locked`, and wait for that; without file locks, do nothing."""
    if fcntl is None:
        return
    _locked.add(file)  # first: a process that is forked in between must close it
    with suppress(OSError):  # some network file systems have no locks
        fcntl.flock(file, fcntl.LOCK_EX)


def close_locked(file: int) -> None:
    """Close a file that `lock` was called with, and give up its lock."""
    try:
        if fcntl is not None:
            with suppress(OSError):
                # closing is not enough where a forked process has the same file open
                fcntl.flock(file, fcntl.LOCK_UN)
    finally:
        _locked.discard(file)
        os.close(file)


def call_in_forked_child(function: Callable[[], None]) -> None:
    """Let a function be called in each process that is forked from this one; Windows has no such processes."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=function)


def _close_locks_of_parent() -> None:
    """In a forked process, close the files that its parent has locked: it would hold the locks as long as it runs."""
    while _locked:
        os.close(_locked.pop())


call_in_forked_child(_close_locks_of_parent)


def is_abandoned(file: int) -> bool:
    """Whether no process writes to an open draft any more.

    With file locks, none holds its lock; without, it is an hour old. On a disk without locks, only `mark_abandoned` tells.
    """
    status = os.fstat(file)
    if fcntl is None:
        return time.time() - status.st_mtime > _ABANDONED
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False  # another process holds it
    except OSError:
        return status.st_mtime == 0
    return True


def mark_abandoned(path: Path) -> None:
    """Make a draft count as abandoned also without file locks: set its time of writing to 1970."""
    os.utime(path, (0, 0))


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on a folder, if the operating system and the file system support that."""
    if fcntl is None:  # Windows can neither lock a folder nor open one
        yield
        return
    file = os.open(folder, os.O_RDONLY)
    try:
        lock(file)
        yield
    finally:
        close_locked(file)


def flush_folder(folder: Path) -> None:
    """Flush a folder, so that the names of its files are on the disk; Windows has no call for this."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def put_back(aside: Path, path: Path) -> None:
    """Give a file its name again, unless that is taken by now: then the file is removed."""
    try:
        os.link(aside, path)
    except FileExistsError:
        pass
    except OSError:  # a disk without hard links
        if status_of(path) is None:
            os.rename(aside, path)
            return
    os.unlink(aside)
