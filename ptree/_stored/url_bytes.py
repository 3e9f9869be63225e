"""UrlBytes: the bytes of a file at a URL, read by ranges through fsspec, which is imported when a URL is opened."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np

from .._errors import FileError
from .._words import quoted
from .byte_source import ByteSource
from .urls import scheme_of, shown_url

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem
    from fsspec.spec import AbstractBufferedFile

T = TypeVar("T")

_PIECE = 1 << 23
"""Bytes of one request: of a longer run several are on their way at once, and of a broken one little is lost."""
_AT_ONCE = 1 << 26
"""Bytes of the requests that are made together, which are in memory until they have come."""
_REQUESTS_AT_ONCE = 256
_TRIES = 3
_WAIT = 0.2
"""Seconds before the second try."""

_Piece = tuple[int, np.ndarray]
"""The place of bytes in the file, and the memory for them."""


class UrlBytes(ByteSource):
    """The bytes of a file at a URL.

    Raises:
        FileError: fsspec, or what it needs for this kind of URL, is not installed; or the server sends only whole files.
        FileNotFoundError: nothing is there.
        PermissionError: the server refuses to send it.
        ConnectionError: the server, or the connection to it, fails.
    """

    # 20 ms for each of 64 requests at a time are 0.3 ms a request, in which 100 MB/s send 30 KiB
    gap = 1 << 15

    def __init__(self, url: str):
        self.path = shown_url(url)
        self._url = url
        self._files, self._place = _file_system(url)
        self._has_sent_parts = False
        # without its cache, which would read ahead
        file = self._asked(lambda: self._files.open(self._place, "rb", cache_type="none"), "its size")
        self._file: AbstractBufferedFile | None = cast("AbstractBufferedFile", file)
        if self._file.size is None:
            raise self._refused("does not say how long it is, or sends no parts of it")
        self.size = self._file.size

    def fill(self, runs: Sequence[_Piece]) -> None:
        if self._file is None:
            raise FileError(f"{self.path!r} is closed")
        for pieces in _batches(runs):
            if self._has_sent_parts:
                self._fill_together(pieces)
            else:
                for piece in pieces:
                    self._fill_one(*piece)

    def _fill_one(self, start: int, memory: np.ndarray) -> None:
        """Fill memory from the open file, of which a server that sends only whole files sends no more than the beginning."""
        file = self._file
        assert file is not None

        def read() -> bytes:
            file.seek(start)
            return cast(bytes, file.read(memory.size))

        self._put(start, memory, self._asked(read, _range_shown(start, memory)))
        self._has_sent_parts = self._has_sent_parts or start > 0

    def _fill_together(self, pieces: Sequence[_Piece]) -> None:
        """Fill memory by requests that are on their way at the same time; those that fail are made again."""
        left = list(pieces)
        for attempt in range(_TRIES):
            starts = [start for start, _ in left]
            stops = [start + memory.size for start, memory in left]
            found = self._files.cat_ranges([self._place] * len(left), starts, stops, on_error="return")
            failed: list[tuple[_Piece, Exception]] = []
            for piece, data in zip(left, found):
                if isinstance(data, Exception):
                    failed.append((piece, data))
                else:
                    self._put(*piece, data)
            if not failed:
                return
            (start, memory), error = failed[0]
            if attempt == _TRIES - 1 or not _may_pass(error):
                raise self._error(error, _range_shown(start, memory), attempt + 1) from error
            left = [piece for piece, _ in failed]
            time.sleep(_WAIT * 4**attempt)

    def _put(self, start: int, memory: np.ndarray, data: bytes) -> None:
        if len(data) > memory.size:
            raise self._refused(f"sent {len(data):,} bytes for {memory.size:,}, as if it knew no ranges")
        if len(data) < memory.size:
            raise FileError(
                f"cannot read {self.path!r}: it ends at {start + len(data):,} bytes, and had {self.size:,} when opened",
                is_damage=True,
            )
        memory[:] = np.frombuffer(data, np.uint8)

    def _asked(self, ask: Callable[[], T], what: str) -> T:
        """Ask the server, again where its failure may pass."""
        for attempt in range(_TRIES):
            try:
                return ask()
            except Exception as error:  # each file system of fsspec has its own
                if attempt == _TRIES - 1 or not _may_pass(error):
                    raise self._error(error, what, attempt + 1) from error
                time.sleep(_WAIT * 4**attempt)
        raise AssertionError

    def _error(self, error: Exception, what: str, tries: int) -> Exception:
        """The error for one of fsspec's or of the library below it, with the URL."""
        cause = _cause_of(error)
        status = _status_of(cause)
        if _is_missing(cause):
            return FileNotFoundError(f"no file {quoted(self.path)}")
        if isinstance(cause, ValueError):  # fsspec says so if it gets all where it asked for a range
            return self._refused("sends only the whole file, not parts of it")
        why = f"HTTP {status}" if status else type(cause).__name__
        said = str(cause).replace(self._url, self.path)
        if isinstance(cause, ImportError):
            return FileError(f"cannot read {quoted(self.path)}: {said}")
        again = f"; tried {tries} times" if tries > 1 else ""
        text = f"cannot read {quoted(self.path)}, {what}: {why}{': ' + said if said and not status else ''}{again}"
        if status in (401, 403) or isinstance(cause, PermissionError):
            return PermissionError(text)
        return ConnectionError(text)

    def _refused(self, what: str) -> FileError:
        copy = f"fsspec.filesystem({scheme_of(self.path)!r}).get({self.path!r}, 'model.safetensors')"
        return FileError(
            f"cannot read {quoted(self.path)} by ranges: the server {what}. Copy it, {copy}, and read that"
        )

    def close(self) -> None:
        self._file = None


def read_url(url: str, most: int) -> bytes:
    """Read a small file at a URL, such as an index of shards.

    Raises:
        FileError: it is longer than `most` bytes.
        OSError: it is not there, or cannot be read.
    """
    source = UrlBytes(url)
    if source.size > most:
        raise FileError(f"cannot read {source.path!r}: it has {source.size:,} bytes, too many for an index of shards")
    memory = np.empty(source.size, np.uint8)
    source.fill([(0, memory)])  # in one piece from its beginning, which any server sends
    return memory.tobytes()


def is_at_url(url: str) -> bool:
    """Whether there is a file at a URL."""
    try:
        UrlBytes(url).close()
    except FileNotFoundError:
        return False
    return True


def refuse_unknown_url(url: str) -> None:
    """Raise FileError if fsspec, or what it needs for this kind of URL, is not there."""
    _file_system(url)


def _file_system(url: str) -> tuple[AbstractFileSystem, str]:
    """The file system of fsspec that has a URL, and the name of the file in it."""
    shown = quoted(shown_url(url))
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise FileError(f"cannot read {shown}: URLs are read by fsspec: pip install 'ptree-jax[remote]'") from None
    try:
        files, place = url_to_fs(url)
    except ImportError as error:  # the package for this kind of URL, such as gcsfs
        raise FileError(f"cannot read {shown}: {error}{_to_install(error)}") from None
    except ValueError as error:
        raise FileError(f"cannot read {shown}: {error}: fsspec.available_protocols() lists the kinds of URLs") from None
    return files, place


def _to_install(error: ImportError) -> str:
    """What to install where fsspec lacks a package, which the error below its own names."""
    cause = error.__cause__ or error
    name = cause.name if isinstance(cause, ImportError) else None
    return f": pip install {name.partition('.')[0]}" if name else ""


def _batches(runs: Sequence[_Piece]) -> Iterator[list[_Piece]]:
    """Runs in pieces of one request each, as many together as are asked for at once."""
    batch: list[_Piece] = []
    left = _AT_ONCE
    for start, memory in runs:
        for at in range(0, memory.size, _PIECE):
            piece = memory[at : at + _PIECE]
            if batch and (piece.size > left or len(batch) == _REQUESTS_AT_ONCE):
                yield batch
                batch, left = [], _AT_ONCE
            batch.append((start + at, piece))
            left -= piece.size
    if batch:
        yield batch


def _range_shown(start: int, memory: np.ndarray) -> str:
    return f"{memory.size:,} bytes from {start:,} on"


def _cause_of(error: Exception) -> Exception:
    """What went wrong: of any failure of HTTP, fsspec first says that there is no file."""
    cause = error.__cause__
    return cause if isinstance(error, FileNotFoundError) and isinstance(cause, Exception) else error


def _status_of(error: Exception) -> int | None:
    """The status of HTTP that an error is about; None of other errors."""
    status = getattr(error, "status", None)  # of aiohttp, which need not be installed for other URLs
    return status if isinstance(status, int) else None


def _is_missing(error: Exception) -> bool:
    # fsspec's file systems say either of a file that is below a file
    return isinstance(error, (FileNotFoundError, FileExistsError, NotADirectoryError)) or _status_of(error) in (
        404,
        410,
    )


def _may_pass(error: Exception) -> bool:
    """Whether the same request may succeed a little later."""
    cause = _cause_of(error)
    if _is_missing(cause) or isinstance(cause, (PermissionError, ValueError, ImportError, TypeError)):
        return False
    status = _status_of(cause)
    return status is None or status >= 500 or status in (408, 429)
