"""SafetensorsFile: the header of a safetensors file, and arrays, runs and blocks of its tensors, read or mapped."""

from __future__ import annotations

import mmap as mmap_
from collections.abc import Iterator, Sequence

import numpy as np

from .._errors import FileError, PtreeError
from .byte_source import LocalBytes
from .checksums import digest, digest_of_runs
from .header import Header, header_length, parsed
from .leaf_parts import Ranges, aligned_memory, bytes_of_block, read_block, slices_of
from .salvage import salvaged
from .stored_leaf import StoredLeaf
from .url_bytes import UrlBytes
from .urls import is_url

_RUN = 1 << 24
"""Bytes that are hashed at a time, of a leaf that is not to be in memory as a whole."""


class SafetensorsFile:
    """An open safetensors file; only its header is read until a leaf is asked for.

    With `may_be_damaged` a header that does not fit the file is no error, if any leaf can be read.

    Raises:
        FileError: no file, no whole safetensors file, or one whose header is damaged.
        OSError: the file is not there or cannot be read.

    The path may be a URL, which is read by ranges.
    """

    def __init__(self, path: str, *, verify: bool, mmap: bool, may_be_damaged: bool = False):
        self.bytes_read = 0
        self._map: mmap_.mmap | None = None
        self._source = UrlBytes(path) if is_url(path) else LocalBytes(path)
        self.path, self.size = self._source.path, self._source.size
        try:
            self.header = self._read_header(verify, may_be_damaged)
            if mmap:
                self._map = self._mapped()
        except BaseException:
            self.close()
            raise

    def _mapped(self) -> mmap_.mmap | None:
        if isinstance(self._source, LocalBytes):
            return self._source.mapped()
        raise FileError(f"cannot read {self.path!r} with mmap=True: only files of this machine can be mapped")

    def _read_header(self, verify: bool, may_be_damaged: bool) -> Header:
        first = self.read(0, min(8, self.size)).tobytes()
        try:
            length = header_length(first, self.size)
        except ValueError as error:
            raise self._not_whole(error) from error
        text = self.read(8, length).tobytes()
        try:
            return parsed(text, self.size, verify)
        except PtreeError as error:  # a transform that this process does not know, or a newer format
            raise FileError(f"cannot load {self.path!r}: {error}") from error
        except (ValueError, OverflowError) as error:
            header = salvaged(text, self.size, verify) if may_be_damaged else None
            if header is None:
                raise self._not_whole(error) from error
            return header

    def _not_whole(self, error: Exception) -> FileError:
        problem = f"it is not a whole safetensors file ({self.size:,} bytes): {error}"
        return FileError(f"cannot load {self.path!r}: {problem}", is_damage=True)

    def read(self, start: int, count: int) -> np.ndarray:
        """Read bytes into new memory, aligned so that JAX can use it without a copy; or give those of the mapped file."""
        if self._map is not None:
            return np.frombuffer(self._map, np.uint8, count, start) if count else np.empty(0, np.uint8)
        memory = aligned_memory(count)
        self._fill(memory, start)
        return memory

    def _fill(self, memory: np.ndarray, start: int) -> None:
        """Fill bytes of memory from a place of the file on."""
        self._fill_all([(start, memory)])

    def _fill_all(self, runs: Sequence[tuple[int, np.ndarray]]) -> None:
        self._source.fill(runs)
        self.bytes_read += sum(memory.size for _, memory in runs)

    def chunks(self, leaf: StoredLeaf, most: int) -> Iterator[np.ndarray]:
        """The numbers of a leaf in C order, at most `most` bytes at a time; each is valid until the next one is read."""
        size = leaf.stop - leaf.start
        at_once = min(max(1, most // leaf.dtype.itemsize) * leaf.dtype.itemsize, size)
        # one buffer for all chunks, which stays in the processor's cache: new memory for each takes twice as long
        memory = None if self._map is not None else np.empty(at_once, np.uint8)
        for start in range(leaf.start, leaf.stop, max(1, at_once)):
            count = min(at_once, leaf.stop - start)
            if memory is None:
                yield self.read(start, count).view(leaf.dtype)
                continue
            self._fill(memory[:count], start)
            yield memory[:count].view(leaf.dtype)

    def array(self, leaf: StoredLeaf) -> np.ndarray:
        """A whole leaf, not compared with its checksum."""
        return self.read(leaf.start, leaf.stop - leaf.start).view(leaf.dtype).reshape(leaf.shape)

    def block(self, leaf: StoredLeaf, ranges: Ranges) -> np.ndarray:
        """A block of a leaf, not compared with a checksum; of a mapped file a view of its memory."""
        if self._map is not None:
            return self.array(leaf)[slices_of(ranges)]

        def fill(runs: Sequence[tuple[int, np.ndarray]]) -> None:
            self._fill_all([(leaf.start + start, memory) for start, memory in runs])

        return read_block(ranges, leaf.shape, leaf.dtype, fill, self._source.gap)

    def bytes_of_block(self, leaf: StoredLeaf, ranges: Ranges) -> int:
        """How many bytes `block` reads."""
        return bytes_of_block(ranges, leaf.shape, leaf.dtype.itemsize, self._source.gap)

    def digest_of(self, leaf: StoredLeaf, array: np.ndarray) -> str:
        """The checksum that the file would state of a leaf with these numbers."""
        return digest(np.ascontiguousarray(array).reshape(-1).view(np.uint8))

    def digest_by_runs(self, leaf: StoredLeaf) -> str:
        """The checksum of a leaf's bytes, 16 MiB of which are in memory at a time."""

        def runs() -> Iterator[np.ndarray]:
            for start in range(leaf.start, leaf.stop, _RUN):
                yield self.read(start, min(_RUN, leaf.stop - start))

        return digest_of_runs(runs())

    def close(self) -> None:
        """Close the file; what was mapped stays."""
        self._source.close()
