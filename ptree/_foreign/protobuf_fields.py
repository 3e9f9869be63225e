"""Fields of a protobuf message, one after the other, and how to write them; what a field means is left to who reads the message."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_FIXED = {FIXED64: 8, FIXED32: 4}
_LONGEST_VARINT = 10

Field: TypeAlias = "tuple[int, int | bytes]"
"""The number of a field, and its value: an integer without sign, or the bytes of a text or of a message inside."""


def varint(data: bytes, at: int) -> tuple[int, int]:
    """Read an integer of 7 bits a byte, the lowest first; return it and the place behind it.

    >>> varint(bytes([0b10101100, 0b00000010]), 0)
    (300, 2)

    Raises:
        ValueError: the bytes end before it does, or it has more than 64 bits.
    """
    value = 0
    for place, byte in enumerate(data[at : at + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80 and value < 1 << 64:
            return value, at + place + 1
    raise ValueError("a number does not end")


def varint_bytes(value: int) -> bytes:
    """Write an integer of 7 bits a byte.

    >>> list(varint_bytes(300))
    [172, 2]
    """
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def fields(message: bytes) -> Iterator[Field]:
    """The fields of a message.

    Raises:
        ValueError: the message ends before a field does, or has a field of an unknown kind.
    """
    at = 0
    while at < len(message):
        tag, at = varint(message, at)
        number, kind = tag >> 3, tag & 7
        if kind == VARINT:
            value, at = varint(message, at)
            yield number, value
            continue
        if kind == BYTES:
            length, at = varint(message, at)
        elif kind in _FIXED:
            length = _FIXED[kind]
        else:
            raise ValueError(f"a field has the unknown kind {kind}")
        content, at = message[at : at + length], at + length
        if at > len(message):
            raise ValueError("a field does not end")
        yield number, content if kind == BYTES else int.from_bytes(content, "little")


def number_field(number: int, value: int) -> bytes:
    """Write a field that holds an integer; nothing for zero, which is what a missing field means."""
    return varint_bytes(number << 3 | VARINT) + varint_bytes(value) if value else b""


def fixed32_field(number: int, value: int) -> bytes:
    return varint_bytes(number << 3 | FIXED32) + value.to_bytes(4, "little")


def bytes_field(number: int, content: bytes) -> bytes:
    """Write a field that holds bytes, a text or a message."""
    return varint_bytes(number << 3 | BYTES) + varint_bytes(len(content)) + content
