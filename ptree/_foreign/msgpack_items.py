"""Items of a MessagePack file, found by their places: maps and lists are walked, and the bytes of extensions are not read."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from .file_bytes import Cursor

MOST_LEVELS = 256


@dataclass(frozen=True)
class Extension:
    """Bytes with a code of the program that wrote them."""

    code: int
    start: int
    length: int


@dataclass(frozen=True)
class Binary:
    """Bytes without a meaning of their own."""

    start: int
    length: int


Value: TypeAlias = "bool | int | float | str | Binary | Extension | None"

_WIDTHS = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
"""Marks of integers: those from 0xD0 on have a sign."""
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
_LENGTHS = {
    0xC4: ("binary", 1), 0xC5: ("binary", 2), 0xC6: ("binary", 4),
    0xC7: ("extension", 1), 0xC8: ("extension", 2), 0xC9: ("extension", 4),
    0xD9: ("text", 1), 0xDA: ("text", 2), 0xDB: ("text", 4),
    0xDC: ("list", 2), 0xDD: ("list", 4), 0xDE: ("map", 2), 0xDF: ("map", 4),
}  # fmt: skip
"""Marks that are followed by a length in 1, 2 or 4 bytes."""
_FIXED_EXTENSIONS = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}


def walk(cursor: Cursor) -> Iterator[tuple[tuple[str, ...], Value]]:
    """Walk the next item of a file, and give each value in it with the keys of the maps and lists around it.

    A place in a list is a key of digits. Maps and lists without a value give nothing.

    Raises:
        FileError: the file is damaged, or nested more than 256 levels deep.
    """
    yield from _walk(cursor, ())


def _walk(cursor: Cursor, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Value]]:
    if len(keys) > MOST_LEVELS:
        raise cursor.file.damage(f"it is nested more than {MOST_LEVELS} levels deep")
    mark = cursor.bytes(1, "an item")[0]
    kind, length = _container(cursor, mark)
    if kind == "map":
        for _ in range(length):
            key = _key(cursor)
            yield from _walk(cursor, (*keys, key))
    elif kind == "list":
        for at in range(length):
            yield from _walk(cursor, (*keys, str(at)))
    else:
        yield keys, _value(cursor, mark)


def _container(cursor: Cursor, mark: int) -> tuple[str, int]:
    """The kind and the length of a map or list that begins with a mark; the kind is "" of any other item."""
    if 0x80 <= mark <= 0x8F:
        return "map", mark & 0x0F
    if 0x90 <= mark <= 0x9F:
        return "list", mark & 0x0F
    kind, width = _LENGTHS.get(mark, ("", 0))
    if kind not in ("map", "list"):
        return "", 0
    return kind, _unsigned(cursor, width)


def _key(cursor: Cursor) -> str:
    value = scalar(cursor)
    if isinstance(value, Binary):  # texts of old versions of MessagePack
        value = cursor.file.bytes(value.start, value.length, "a key").decode("utf-8", "backslashreplace")
    if isinstance(value, Extension):
        raise cursor.file.damage("a key is an extension")
    return str(value)


def scalar(cursor: Cursor) -> Value:
    """Read the next item, which must be no map or list.

    Raises:
        FileError: it is one, or the file is damaged.
    """
    return _value(cursor, cursor.bytes(1, "an item")[0])


def list_length(cursor: Cursor) -> int:
    """Read the beginning of a list, and return its length.

    Raises:
        FileError: the next item is no list, or the file is damaged.
    """
    kind, length = _container(cursor, cursor.bytes(1, "a list")[0])
    if kind != "list":
        raise cursor.file.damage("a list was expected")
    return length


def _value(cursor: Cursor, mark: int) -> Value:
    if mark < 0x80:
        return mark
    if mark >= 0xE0:
        return mark - 0x100
    if mark in _CONSTANTS:
        return _CONSTANTS[mark]
    if mark in _WIDTHS:
        return int.from_bytes(cursor.bytes(_WIDTHS[mark], "a number"), "big", signed=mark >= 0xD0)
    if mark == 0xCA:
        return struct.unpack(">f", cursor.bytes(4, "a number"))[0]
    if mark == 0xCB:
        return struct.unpack(">d", cursor.bytes(8, "a number"))[0]
    if 0xA0 <= mark <= 0xBF:
        return cursor.text(mark & 0x1F, "a text")
    if mark in _FIXED_EXTENSIONS:
        return _extension(cursor, _FIXED_EXTENSIONS[mark])
    return _value_with_length(cursor, mark)


def _value_with_length(cursor: Cursor, mark: int) -> Value:
    kind, width = _LENGTHS.get(mark, ("", 0))
    if kind not in ("binary", "extension", "text"):
        raise cursor.file.damage(f"at {cursor.at - 1:,} there is the mark {mark:#x}, which begins no value")
    length = _unsigned(cursor, width)
    if kind == "text":
        return cursor.text(length, "a text")
    if kind == "binary":
        return Binary(cursor.skip(length, "bytes"), length)
    return _extension(cursor, length)


def _extension(cursor: Cursor, length: int) -> Extension:
    code = int.from_bytes(cursor.bytes(1, "an extension"), "big", signed=True)
    return Extension(code, cursor.skip(length, "an extension"), length)


def _unsigned(cursor: Cursor, width: int) -> int:
    return int.from_bytes(cursor.bytes(width, "a length"), "big")
