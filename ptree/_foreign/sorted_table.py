"""Read and write sorted tables of LevelDB's format, the index files of TensorFlow: keys with values, in blocks with checksums.

A block is a run of entries: the number of bytes that a key shares with the one before, the lengths of the rest of it and of the value,
then both; after them places where nothing is shared, and their number. Behind a block follow a byte, 0 if it is not compressed, and its checksum.
At the end of the file lie the places of two blocks: of properties, and of the last key and the place of each block of entries.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

from .crc32c import masked_crc32c
from .protobuf_fields import varint, varint_bytes

_FOOTER = 48
_MARK = (0xDB4775248B80FB57).to_bytes(8, "little")
_TRAILER = 5
_COMPRESSIONS = {1: "snappy"}
_BLOCK_BYTES = 1 << 12
"""A reader goes through a block from its beginning, so blocks that are written are short."""


def is_table(data: bytes) -> bool:
    """Whether bytes end as a sorted table does."""
    return len(data) >= _FOOTER and data.endswith(_MARK)


def table_entries(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The entries of a sorted table, in the order of their keys.

    Raises:
        ValueError: the table is damaged, or compressed.
    """
    if not is_table(data):
        raise ValueError("it does not end as a sorted table does")
    footer = data[-_FOOTER:]
    _, at = _handle(footer, 0)  # the properties
    index, _ = _handle(footer, at)
    for _, value in _block_entries(_block(data, *index)):
        place, _ = _handle(value, 0)
        yield from _block_entries(_block(data, *place))


def _handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    """The offset and the length of a block, and the place behind them."""
    offset, at = varint(data, at)
    length, at = varint(data, at)
    return (offset, length), at


def _block(data: bytes, offset: int, length: int) -> bytes:
    end = offset + length
    if end + _TRAILER > len(data):
        raise ValueError("it is cut short")
    content, compression = data[offset:end], data[end]
    stored = int.from_bytes(data[end + 1 : end + _TRAILER], "little")
    if stored != masked_crc32c(data[offset : end + 1]):
        raise ValueError("a block does not have its checksum")
    if compression:
        raise ValueError(f"it is compressed ({_COMPRESSIONS.get(compression, compression)}), which is not read")
    return content


def _block_entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    if len(block) < 4:
        raise ValueError("a block is too short")
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 - 4 * restarts
    if end < 0:
        raise ValueError("a block is too short")
    key, at = b"", 0
    while at < end:
        shared, at = varint(block, at)
        rest, at = varint(block, at)
        length, at = varint(block, at)
        if shared > len(key) or at + rest + length > end:
            raise ValueError("an entry does not end")
        key = key[:shared] + block[at : at + rest]
        at += rest
        yield key, block[at : at + length]
        at += length


def table_bytes(entries: Mapping[bytes, bytes]) -> bytes:
    """Write a sorted table."""
    table = bytearray()
    index: dict[bytes, bytes] = {}
    block: dict[bytes, bytes] = {}
    size = 0
    for key in sorted(entries):
        if size > _BLOCK_BYTES:
            index[max(block)] = _append_block(table, block)
            block, size = {}, 0
        block[key] = entries[key]
        size += len(key) + len(entries[key])
    if block:
        index[max(block)] = _append_block(table, block)
    properties = _append_block(table, {})
    footer = properties + _append_block(table, index)
    return bytes(table) + footer.ljust(_FOOTER - len(_MARK), b"\0") + _MARK


def _append_block(table: bytearray, entries: Mapping[bytes, bytes]) -> bytes:
    """Append a block in which no key shares bytes with another, and return its place."""
    block = bytearray()
    starts: list[int] = []
    for key, value in entries.items():
        starts.append(len(block))
        block += varint_bytes(0) + varint_bytes(len(key)) + varint_bytes(len(value)) + key + value
    starts = starts or [0]
    block += struct.pack(f"<{len(starts)}II", *starts, len(starts))
    place = varint_bytes(len(table)) + varint_bytes(len(block))
    block.append(0)
    table += block + masked_crc32c(bytes(block)).to_bytes(4, "little")
    return place
