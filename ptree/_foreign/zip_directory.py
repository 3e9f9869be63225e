"""ZipDirectory: the members of a zip archive whose data are stored uncompressed, as places in the mapped file.

Python's `zipfile` copies what it reads, and decompresses whatever a file says; here a member is a range of bytes. Members
that are compressed or encrypted, that overlap, or that share a name are refused, so that no archive is larger read than stored.
"""

from __future__ import annotations

import mmap
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from struct import Struct

_END = Struct("<4s4H2LH")  # of the central directory: the last record of an archive
_END_MARK = b"PK\x05\x06"
_LONGEST_COMMENT = 0xFFFF
_LOCATOR = Struct("<4sLQL")  # where the 64-bit end record is, directly before the end record
_END_64 = Struct("<4sQ2H2L4Q")
_ENTRY = Struct("<4s4B4HL2L5H2L")
_LOCAL = Struct("<4s2B4HL2L2H")
_EXTRA = Struct("<2H")
_UTF_8, _ENCRYPTED = 0x800, 0x1
_ZIP_64 = 0x0001  # the extra field that holds 64-bit sizes and offsets
_FULL = 0xFFFFFFFF  # says that the number is in that field
_CRC_RUN = 1 << 24
"""Bytes that are compared with a checksum at a time: pages of the file that were read can go again."""


class ZipError(ValueError):
    """An archive that is damaged or that is not read; the text says why."""


@dataclass(frozen=True, slots=True)
class ZipMember:
    """One file in an archive."""

    name: str
    raw_name: bytes
    header: int
    """Where its own header begins, counted from the start of the archive."""
    size: int
    stored_size: int
    compression: int
    is_encrypted: bool
    crc: int
    """The CRC-32 of its bytes; 0 where the writer computed none."""

    @property
    def has_checksum(self) -> bool:
        """Whether its bytes are compared with the CRC-32; that of no bytes is 0."""
        return self.crc != 0 or self.size == 0

    def refuse_packed(self) -> None:
        """Raise unless the bytes of the member are in the archive as they are."""
        if self.is_encrypted:
            raise ZipError(f"its member {self.name!a} is encrypted")
        if self.compression:
            raise ZipError(
                f"its member {self.name!a} is compressed, and PyTorch and NumPy write members uncompressed:"
                " unpack the archive, and pack it again with `zip -0 -r`"
            )
        if self.size != self.stored_size:
            raise ZipError(f"the sizes of its member {self.name!a} disagree")


class ZipDirectory:
    """The members of an archive in a mapped file, in the archive's order."""

    def __init__(self, data: mmap.mmap):
        self._data = data
        start, size, count = _directory_place(data)
        entries = data[start : start + size]
        members = _members(entries, count)
        _refuse_overlaps(members, start)
        self.members = {member.name: member for member in members}
        if len(self.members) < len(members):
            raise ZipError("two of its members have the same name")

    def start_of(self, member: ZipMember) -> int:
        """The first byte of the data of a member; its own header must agree with the directory."""
        member.refuse_packed()
        fields = self._data[member.header : member.header + _LOCAL.size]
        if len(fields) < _LOCAL.size or not fields.startswith(b"PK\x03\x04"):
            raise ZipError(f"its member {member.name!a} is not where the directory says")
        name_length, extra_length = _LOCAL.unpack(fields)[-2:]
        name_start = member.header + _LOCAL.size
        start = name_start + name_length + extra_length
        if self._data[name_start : name_start + name_length] != member.raw_name:
            raise ZipError(f"its member {member.name!a} has another name in its own header")
        if start + member.size > len(self._data):
            raise ZipError(f"its member {member.name!a} ends behind the end of the file")
        return start

    def read(self, name: str, most: int) -> bytes:
        """The bytes of a small member, compared with its checksum."""
        member = self.members[name]
        if member.size > most:
            raise ZipError(f"its member {name!a} has {member.size:,} bytes, and at most {most:,} are read")
        start = self.start_of(member)
        self.refuse_changed(member, start)
        return self._data[start : start + member.size]

    def refuse_changed(self, member: ZipMember, start: int) -> None:
        """Raise if the bytes of a member are not those of its checksum."""
        if not member.has_checksum:  # torch.serialization.set_crc32_options(False)
            return
        crc = 0
        with memoryview(self._data) as view:
            for first in range(start, start + member.size, _CRC_RUN):
                last = min(first + _CRC_RUN, start + member.size)
                crc = zlib.crc32(view[first:last], crc)
        if crc != member.crc:
            raise ZipError(f"its member {member.name!a} is damaged: its bytes are not what its checksum says")


def member_names(data: mmap.mmap) -> tuple[str, ...]:
    """The names in an archive; empty if it is no whole archive."""
    try:
        start, size, count = _directory_place(data)
        return tuple(member.name for member in _members(data[start : start + size], count))
    except ZipError:
        return ()


def _directory_place(data: mmap.mmap) -> tuple[int, int, int]:
    """Where the central directory starts, its size, and the number of its entries."""
    place = data.rfind(_END_MARK, max(0, len(data) - _LONGEST_COMMENT - _END.size))
    if place < 0 or place + _END.size > len(data):
        raise ZipError("it has no directory at its end: it is cut short, or no zip archive")
    *_, count, size, start, _ = _END.unpack_from(data, place)
    locator = place - _LOCATOR.size
    if locator >= 0 and data[locator : locator + 4] == b"PK\x06\x07":
        start, size, count, place = _place_64(data, locator)
    if start + size > place:
        raise ZipError("its directory is not where its end says: it is cut short, or something was put before it")
    if size < count * _ENTRY.size:
        raise ZipError(f"its directory of {size:,} bytes cannot hold {count:,} members")
    return start, size, count


def _place_64(data: mmap.mmap, locator: int) -> tuple[int, int, int, int]:
    """The same of an archive with 64-bit sizes, and where the directory has to end."""
    _, _, place, _ = _LOCATOR.unpack_from(data, locator)
    if place + _END_64.size > locator or data[place : place + 4] != b"PK\x06\x06":
        raise ZipError("its 64-bit directory is not where its end says")
    *_, count, size, start = _END_64.unpack_from(data, place)
    return start, size, count, place


def _members(entries: bytes, count: int) -> list[ZipMember]:
    members: list[ZipMember] = []
    at = 0
    for _ in range(count):
        if at + _ENTRY.size > len(entries):
            raise ZipError("its directory is cut short")
        member, at = _member(entries, at)
        members.append(member)
    if at != len(entries):
        raise ZipError("its directory has more members than it says")
    return members


def _member(entries: bytes, at: int) -> tuple[ZipMember, int]:
    """The member whose entry begins at a byte of the directory, and where the next entry begins."""
    fields = _ENTRY.unpack_from(entries, at)
    mark, flags, compression, crc = fields[0], fields[5], fields[6], fields[9]
    stored_size, size, name_length, extra_length, comment_length = fields[10:15]
    header = fields[18]
    if mark != b"PK\x01\x02":
        raise ZipError("its directory is damaged")
    name_start = at + _ENTRY.size
    extra_start = name_start + name_length
    stop = extra_start + extra_length + comment_length
    if stop > len(entries):
        raise ZipError("its directory is cut short")
    raw_name = entries[name_start:extra_start]
    if _FULL in (size, stored_size, header):
        extra = entries[extra_start : extra_start + extra_length]
        size, stored_size, header = _sizes_64(extra, size, stored_size, header)
    name = _decoded(raw_name, flags)
    is_encrypted = bool(flags & _ENCRYPTED)
    return ZipMember(name, raw_name, header, size, stored_size, compression, is_encrypted, crc), stop


def _decoded(raw_name: bytes, flags: int) -> str:
    try:
        return raw_name.decode("utf-8" if flags & _UTF_8 else "cp437")
    except UnicodeDecodeError:
        raise ZipError("the name of one of its members is no UTF-8") from None


def _sizes_64(extra: bytes, *fields: int) -> list[int]:
    """Sizes and offset with those that take 64 bits, which are in an extra field, in this order."""
    left = iter(_numbers_64(extra))
    found = [next(left, None) if field == _FULL else field for field in fields]
    numbers = [number for number in found if number is not None]
    if len(numbers) < len(fields):
        raise ZipError("the 64-bit size of one of its members is missing")
    return numbers


def _numbers_64(extra: bytes) -> Iterable[int]:
    at = 0
    while at + _EXTRA.size <= len(extra):
        kind, length = _EXTRA.unpack_from(extra, at)
        at += _EXTRA.size
        if kind == _ZIP_64:
            content = extra[at : at + length]
            return [int.from_bytes(content[first : first + 8], "little") for first in range(0, len(content) - 7, 8)]
        at += length
    return []


def _refuse_overlaps(members: list[ZipMember], directory: int) -> None:
    """Raise if two members share bytes, as in archives that are small on the disk and vast when read."""
    spans = sorted((member.header, member.header + _LOCAL.size + member.stored_size) for member in members)
    spans.append((directory, directory))
    for (_, stop), (start, _) in pairwise(spans):
        if stop > start:
            raise ZipError("two of its members overlap, or reach into its directory")
