"""FileBytes and Cursor: bytes of a binary file by their place, and numbers one after the other; nothing past its end is read."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from .._errors import FileError
from .._stored.leaf_parts import aligned_memory
from .._stored.locations import open_file
from .._stored.operating_system import read_into
from .._words import quoted

T = TypeVar("T")
_WINDOW = 4096
"""Bytes that a cursor reads ahead: the numbers in front of an array are few, and a call to the system costs more than these."""


class FileBytes:
    """An open binary file of a known size.

    Raises:
        FileError: what is there is no file.
        OSError: the file is not there or cannot be read.
    """

    def __init__(self, path: str):
        self.path = path
        self._file = -1  # set before anything can fail: `__del__` reads it
        self._file = open_file(path)
        self.size = os.fstat(self._file).st_size

    def damage(self, why: str) -> FileError:
        """The error of a file whose bytes make no sense."""
        return FileError(f"cannot read {quoted(self.path)}: {why}", is_damage=True)

    def check_range(self, start: int, count: int, what: str) -> None:
        """Raise FileError unless these bytes are in the file; `what` they are is said in the message."""
        if start < 0 or count < 0 or start + count > self.size:
            raise self.damage(f"it has {self.size:,} bytes, and {what} would end at {start + count:,}")

    def memory(self, start: int, count: int, what: str) -> np.ndarray:
        """Read bytes into new memory, which JAX can use without a copy.

        Raises:
            FileError: the file ends before them.
        """
        self.check_range(start, count, what)
        memory = aligned_memory(count)
        self.fill(memory, start, what)
        return memory

    def fill(self, memory: np.ndarray, start: int, what: str) -> None:
        """Read as many bytes as the memory has into it.

        Raises:
            FileError: the file ends before them.
        """
        self.check_range(start, memory.size, what)
        if self._file < 0:
            raise FileError(f"{quoted(self.path)} is closed")
        got = read_into(self._file, memoryview(memory), start)  # pyright: ignore[reportArgumentType]
        if got < memory.size:  # another program has made it shorter
            raise self.damage(f"it ends at {start + got:,} bytes, and had {self.size:,} when it was opened")

    def bytes(self, start: int, count: int, what: str) -> bytes:
        """Read bytes that are no array: a header, a name.

        Raises:
            FileError: the file ends before them.
        """
        return self.memory(start, count, what).tobytes()

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __del__(self) -> None:
        self.close()


def open_described(path: str, describe: Callable[[FileBytes], T]) -> T:
    """Open a file and describe what is in it; the file is closed again if that raises."""
    file = FileBytes(path)
    try:
        return describe(file)
    except BaseException:
        file.close()
        raise


class Cursor:
    """A place in a file that moves on with each number that is read; all numbers are little-endian."""

    def __init__(self, file: FileBytes, at: int = 0):
        self.file = file
        self.at = at
        self._window = b""
        self._window_start = 0

    def bytes(self, count: int, what: str) -> bytes:
        """Read the next bytes.

        Raises:
            FileError: the file ends before them.
        """
        self.file.check_range(self.at, count, what)
        first = self.at - self._window_start
        if first < 0 or first + count > len(self._window):
            self._refill(count, what)
            first = 0
        self.at += count
        return self._window[first : first + count]

    def _refill(self, count: int, what: str) -> None:
        ahead = min(max(count, _WINDOW), self.file.size - self.at)
        self._window = self.file.bytes(self.at, ahead, what)
        self._window_start = self.at

    def skip(self, count: int, what: str) -> int:
        """Pass over bytes, which must be in the file; return where they begin."""
        self.file.check_range(self.at, count, what)
        start = self.at
        self.at += count
        return start

    def numbers(self, code: str, count: int, what: str) -> tuple[int, ...]:
        """Read integers: `code` is that of `struct`, I and Q for 4 and 8 bytes without a sign, i and q with one."""
        width = struct.calcsize(f"<{code}")
        return struct.unpack(f"<{count}{code}", self.bytes(width * count, what))

    def number(self, code: str, what: str) -> int:
        return self.numbers(code, 1, what)[0]

    def text(self, length: int, what: str) -> str:
        """Read a name in UTF-8.

        Raises:
            FileError: the file ends before it, or it is no UTF-8.
        """
        try:
            return self.bytes(length, what).decode()
        except UnicodeDecodeError as error:
            raise self.file.damage(f"{what} is no UTF-8") from error
