"""A shard, one safetensors file that is open: what is in it, and its bytes when they are asked for."""

from __future__ import annotations

import mmap as mmap_
import os
from typing import Any

import numpy as np

from .._errors import FileError, PtreeError
from ._format import ALIGNED, Header, header_length, parsed


class Shard:
    """One file; nothing but its header is read until it is asked for.

    Raises:
        FileError: no whole safetensors file, or one whose header is damaged.
        OSError: the file is not there or cannot be read.
    """

    def __init__(self, path: str, *, verify: bool, mmap: bool):
        self.path, self.bytes_read, self._file, self._map = path, 0, -1, None
        self._file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.size = os.fstat(self._file).st_size
            self.header = self._read_header(verify)
            if mmap and self.size:
                self._map = mmap_.mmap(self._file, 0, access=mmap_.ACCESS_READ)
        except BaseException:
            self.close()
            raise

    def _read_header(self, verify: bool) -> Header:
        try:
            length = header_length(self.bytes(0, min(8, self.size)).tobytes(), self.size)
            return parsed(self.bytes(8, length).tobytes(), self.size, verify)
        except PtreeError as error:  # a transform that this process does not know
            raise FileError(f"cannot load {self.path!r}: {error}") from error
        except (ValueError, OverflowError) as error:
            raise FileError(
                f"cannot load {self.path!r}: it is not a whole safetensors file ({self.size:,} bytes): {error}",
                is_damage=True,
            ) from error

    def bytes(self, start: int, count: int) -> np.ndarray[Any, Any]:
        """Bytes of the file in memory of their own, aligned as JAX wants it; or the file's, mapped."""
        if self._map is not None:
            return np.frombuffer(self._map, np.uint8, count, start) if count else np.empty(0, np.uint8)
        if self._file < 0:
            raise FileError(f"{self.path!r} is closed")
        room = np.empty(count + ALIGNED, np.uint8)
        first = -room.ctypes.data % ALIGNED
        room = room[first : first + count]
        view, at = memoryview(room), start  # pyright: ignore[reportArgumentType]
        while view:
            try:
                got = os.preadv(self._file, [view[: 1 << 26]], at)
            except OSError as error:
                error.filename = self.path
                raise
            if not got:
                raise FileError(
                    f"cannot load {self.path!r}: it ends at {at:,} bytes, and had {self.size:,} when opened",
                    is_damage=True,
                )
            view, at = view[got:], at + got
        self.bytes_read += count
        return room

    def close(self) -> None:
        """Nothing more can be read; what was mapped stays."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __del__(self) -> None:
        self.close()
