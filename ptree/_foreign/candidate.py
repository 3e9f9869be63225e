"""Candidate: what is at a path, of which the first bytes or the names in an archive tell the format."""

from __future__ import annotations

import mmap
import os
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

from .._stored.header import LONGEST_HEADER
from .zip_directory import member_names

_FIRST_BYTES = 64
LENGTH_BYTES = 8
"""Bytes in front of the header of a safetensors file, which say how long it is."""


@dataclass(frozen=True)
class Candidate:
    """What is at a path, looked at to find its format: a file, a folder, or the beginning of the names of several files."""

    path: str

    @cached_property
    def first_bytes(self) -> bytes:
        """The first 64 bytes of a file; none of a folder, and where nothing is there."""
        if not os.path.isfile(self.path):
            return b""
        # another process may be replacing the file by shards
        with suppress(FileNotFoundError), open(self.path, "rb") as file:
            return file.read(_FIRST_BYTES)
        return b""

    @property
    def begins_as_safetensors(self) -> bool:
        """Whether a header of safetensors may be there: a JSON object after the 8 bytes of its length."""
        # the length too: a GGUF of 123 tensors has the same byte at this place
        return self.first_bytes[LENGTH_BYTES : LENGTH_BYTES + 1] == b"{" and self.header_length <= LONGEST_HEADER

    @property
    def header_length(self) -> int:
        """How many bytes the header has, if it is a file of safetensors."""
        return int.from_bytes(self.first_bytes[:LENGTH_BYTES], "little")

    @cached_property
    def zip_members(self) -> tuple[str, ...]:
        """The names in a zip archive; empty if it is none, or a damaged one."""
        if not self.first_bytes.startswith(b"PK"):
            return ()
        with open(self.path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return member_names(data)
