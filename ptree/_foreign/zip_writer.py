"""ZipWriter: write a zip archive with uncompressed, aligned members, one after the other, into an open file."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from struct import Struct, pack

import numpy as np

from .._stored.operating_system import write_all

_LOCAL = Struct("<4s5H3L2H")
_ENTRY = Struct("<4s6H3L5H2L")
_END = Struct("<4s4H2LH")
_END_64 = Struct("<4sQ2H2L4Q")
_LOCATOR = Struct("<4sLQL")
_UTF_8 = 0x800
_VERSION, _VERSION_64 = 20, 45  # of the format that is needed to read it
_FIRST_DAY = (1 << 5) | 1  # 1 January 1980: the same tensors give the same file
_FULL, _FULL_COUNT = 0xFFFFFFFF, 0xFFFF
_PADDING = b"FB"  # the extra field that PyTorch pads with


@dataclass(frozen=True)
class _Written:
    name: bytes
    header: int
    size: int
    crc: int


class ZipWriter:
    """Write members, then `finish` with the directory."""

    def __init__(self, file: int, alignment: int):
        self._file, self._alignment = file, alignment
        self._written: list[_Written] = []
        self._at = 0

    def add(self, name: str, data: bytes | np.ndarray) -> None:
        """Write a member; the first byte of its data is aligned.

        Args:
            name: its name in the archive.
            data: bytes, or a flat array of them.
        """
        size = len(data)
        member = _Written(name.encode("utf-8"), self._at, size, zlib.crc32(memoryview(data)))  # pyright: ignore[reportArgumentType]
        header = self._local_header(member)
        write_all(self._file, header, self._at)
        self._at += len(header)
        write_all(self._file, data, self._at)
        self._at += size
        self._written.append(member)

    def _local_header(self, member: _Written) -> bytes:
        extra = pack("<2H2Q", 1, 16, member.size, member.size) if member.size >= _FULL else b""
        start = member.header + _LOCAL.size + len(member.name) + len(extra) + 4
        padding = -start % self._alignment
        extra += pack("<2s1H", _PADDING, padding) + b"Z" * padding
        size = min(member.size, _FULL)
        version = _VERSION_64 if member.size >= _FULL else _VERSION
        fields = (b"PK\x03\x04", version, _UTF_8, 0, 0, _FIRST_DAY)
        return _LOCAL.pack(*fields, member.crc, size, size, len(member.name), len(extra)) + member.name + extra

    def finish(self) -> None:
        """Write the directory, which is read first."""
        directory = b"".join(map(_entry, self._written))
        start, size, count = self._at, len(directory), len(self._written)
        end = b""
        if start + size >= _FULL or count >= _FULL_COUNT:
            end = _END_64.pack(b"PK\x06\x06", 44, _VERSION_64, _VERSION_64, 0, 0, count, count, size, start)
            end += _LOCATOR.pack(b"PK\x06\x07", 0, start + size, 1)
        shown = min(count, _FULL_COUNT)
        end += _END.pack(b"PK\x05\x06", 0, 0, shown, shown, min(size, _FULL), min(start, _FULL), 0)
        write_all(self._file, directory + end, start)


def _entry(member: _Written) -> bytes:
    numbers = []
    if member.size >= _FULL:
        numbers += [member.size, member.size]
    if member.header >= _FULL:
        numbers.append(member.header)
    extra = pack(f"<2H{len(numbers)}Q", 1, 8 * len(numbers), *numbers) if numbers else b""
    version = _VERSION_64 if numbers else _VERSION
    size, header = min(member.size, _FULL), min(member.header, _FULL)
    fields = (b"PK\x01\x02", version, version, _UTF_8, 0, 0, _FIRST_DAY)
    lengths = (len(member.name), len(extra), 0, 0, 0)
    return _ENTRY.pack(*fields, member.crc, size, size, *lengths, 0, header) + member.name + extra
