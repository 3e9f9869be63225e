"""ByteSource: the bytes of a file by their place, read into memory; LocalBytes, those of a file of this machine."""

from __future__ import annotations

import mmap as mmap_
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np

from .._errors import FileError
from .leaf_parts import GAP
from .locations import open_file
from .operating_system import read_into


class ByteSource(ABC):
    """The bytes of an open file."""

    path: str
    """For messages."""
    size: int
    gap: int
    """Bytes: where less lies between two runs, they are read as one."""

    @abstractmethod
    def fill(self, runs: Sequence[tuple[int, np.ndarray]]) -> None:
        """Fill memory with bytes of the file: pairs of their place and memory of bytes."""

    @abstractmethod
    def close(self) -> None:
        """Close it; nothing more can be read."""


class LocalBytes(ByteSource):
    """The bytes of a file of this machine.

    Raises:
        FileError: a folder, FIFO, socket or device is there.
        OSError: nothing is there, or it cannot be read.
    """

    gap = GAP

    def __init__(self, path: str):
        self.path = path
        self._file = -1  # its descriptor, set before anything can fail: `__del__` reads it
        self._file = open_file(path)
        self.size = os.fstat(self._file).st_size

    def fill(self, runs: Sequence[tuple[int, np.ndarray]]) -> None:
        if self._file < 0:
            raise FileError(f"{self.path!r} is closed")
        for start, memory in runs:
            try:
                got = read_into(self._file, memoryview(memory), start)  # pyright: ignore[reportArgumentType]
            except OSError as error:
                error.filename = self.path  # errors of calls with a descriptor name no file
                raise
            # another program has made the file shorter since it was opened
            if got < memory.size:
                raise FileError(
                    f"cannot load {self.path!r}: it ends at {start + got:,} bytes, and had {self.size:,} when opened",
                    is_damage=True,
                )

    def mapped(self) -> mmap_.mmap | None:
        """The file as memory; None if it is empty, which the system refuses to map."""
        return mmap_.mmap(self._file, 0, access=mmap_.ACCESS_READ) if self.size else None

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        # at the exit of Python the module's names may be gone, hence the default
        if self._file >= 0:
            close(self._file)
            self._file = -1
