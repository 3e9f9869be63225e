"""Zip archives: opened with errors that name the file; members that are stored uncompressed, by their place in the archive."""

from __future__ import annotations

import io
import os
import zipfile
import zlib

from .._errors import FileError
from .._stored.locations import regular_file
from .._words import quoted
from .file_bytes import FileBytes

ZIP_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    ValueError,
    NotImplementedError,
    RuntimeError,
    OverflowError,
    OSError,
)
"""Errors of Python's zipfile for an archive that is damaged or encrypted, or compressed in a way that Python does not know."""

_LOCAL_HEADER = 30
"""Bytes in front of the name of a member; the lengths of the name and of what follows it are in its last four."""
_RUN = 1 << 24
"""Bytes that are compared with a checksum at a time."""


def open_archive(path: str, kind: str) -> zipfile.ZipFile:
    """Open a zip archive; `kind` is what it should be, for the message: "npz file".

    Raises:
        FileError: it is no whole archive.
        OSError: the file is not there or cannot be read.
    """
    with open(regular_file(path), "rb"):  # first: its errors are not those of a damaged archive
        pass
    try:
        return zipfile.ZipFile(path)
    except ZIP_DAMAGE as error:
        size = f"{os.path.getsize(path):,} bytes"
        raise FileError(
            f"cannot read {quoted(path)}: it is not a whole {kind} ({size}): {error}", is_damage=True
        ) from error


def member_start(file: FileBytes, member: zipfile.ZipInfo) -> int:
    """The place of the first byte of a member's content.

    Raises:
        FileError: the archive ends before the member does, or the member does not begin where the archive says.
    """
    what = f"the member {member.filename!r}"
    header = file.bytes(member.header_offset, _LOCAL_HEADER, what)
    if not header.startswith(b"PK\x03\x04"):
        raise file.damage(f"{what} does not begin where the archive says")
    name_length = int.from_bytes(header[26:28], "little")
    extra_length = int.from_bytes(header[28:30], "little")
    start = member.header_offset + _LOCAL_HEADER + name_length + extra_length
    file.check_range(start, member.compress_size, what)
    return start


def is_stored(member: zipfile.ZipInfo) -> bool:
    """Whether a member is neither compressed nor encrypted, so that its bytes lie in the archive as they are."""
    is_encrypted = member.flag_bits & 0x1
    return member.compress_type == zipfile.ZIP_STORED and not is_encrypted and member.file_size == member.compress_size


class MemberFile(io.RawIOBase):
    """A member of an archive that is stored uncompressed, as a file to read in place; it closes the archive's file."""

    def __init__(self, file: FileBytes, member: zipfile.ZipInfo):
        self._outer, self._start = file, member_start(file, member)
        self._size, self._crc = member.file_size, member.CRC
        self._at = 0

    def has_its_checksum(self) -> bool:
        """Whether its bytes are those of the archive's CRC-32 of it; all are read."""
        crc = 0
        for first in range(0, self._size, _RUN):
            count = min(_RUN, self._size - first)
            data = self._outer.memory(self._start + first, count, "a member of the archive")
            crc = zlib.crc32(data.data, crc)
        return crc == self._crc

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._size - self._at))
        view[:count] = self._outer.bytes(self._start + self._at, count, "a member of the archive")
        self._at += count
        return count

    def close(self) -> None:
        self._outer.close()
        super().close()
