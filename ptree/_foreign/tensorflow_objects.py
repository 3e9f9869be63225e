"""The text that a checkpoint of TensorFlow holds beside its arrays: the graph of the objects whose attributes they are."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from .crc32c import masked_crc32c
from .protobuf_fields import bytes_field, number_field, varint_bytes


def object_graph(keys: Iterable[tuple[str, str]]) -> bytes:
    """Write the graph of the objects of a checkpoint, a message TrackableObjectGraph.

    Args:
        keys: the name of each array, `model/dense/kernel`, whose parts are attributes of objects, and its key in the index.
    """
    numbers = {"": 0}
    children: dict[str, list[str]] = {"": []}
    key_of = dict(keys)
    for name in key_of:
        parts = name.split("/")
        for depth in range(len(parts)):
            above, path = "/".join(parts[:depth]), "/".join(parts[: depth + 1])
            if path not in numbers:
                numbers[path] = len(numbers)
                children[path] = []
                children[above].append(path)
    nodes: list[bytes] = []
    for path in numbers:
        links = [_child(numbers[child], child.rpartition("/")[2]) for child in children[path]]
        attributes = [_attribute(path, key_of[path])] if path in key_of else []
        nodes.append(bytes_field(1, b"".join([*links, *attributes])))
    return b"".join(nodes)


def _child(number: int, name: str) -> bytes:
    return bytes_field(1, number_field(1, number) + bytes_field(2, name.encode()))


def _attribute(name: str, key: str) -> bytes:
    full_name, checkpoint_key = bytes_field(2, name.encode()), bytes_field(3, key.encode())
    return bytes_field(2, bytes_field(1, b"VARIABLE_VALUE") + full_name + checkpoint_key)


def text_tensor(text: bytes) -> tuple[bytes, int]:
    """The bytes of a tensor that holds one text, and their checksum: the length, its checksum, and the text.

    The checksums are of the length in four bytes, though it is stored in fewer.
    """
    length = struct.pack("<I", len(text))
    length_checksum = struct.pack("<I", masked_crc32c(length))
    return varint_bytes(len(text)) + length_checksum + text, masked_crc32c(length + length_checksum + text)
