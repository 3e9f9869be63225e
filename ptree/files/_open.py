"""open, a file of which only what is asked for is read."""

from __future__ import annotations

import mmap as mmap_
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

import jax
import numpy as np

from .._errors import FileError, PathError, PtreeError, listed, quoted, suggestion
from .._select import entry_dict
from .._tie import Tie
from .._tree import Tree
from ._format import ALIGNED, Entry, Facts, Header, digest_beside, header_length, parsed, put_together, stored_as
from ._tensor import leaf_of, to_jax


def open(path: str | os.PathLike[str], *, verify: bool = True, mmap: bool = False) -> File:
    """A file whose names, shapes, sizes and metadata are known at once, and whose data are read when asked for.

    >>> import tempfile, ptree as pt, numpy as np
    >>> path = tempfile.mkdtemp() + "/m.safetensors"
    >>> pt.save(path, {"enc": {"kernel": np.arange(12.0).reshape(4, 3)}}, metadata={"run": "7"})
    >>> with pt.open(path) as file:
    ...     print(list(file), file["enc/kernel"].shape, file.metadata)
    ...     file["enc/kernel"][1]
    ['enc/kernel'] (4, 3) {'run': '7'}
    array([3., 4., 5.])

    A leaf is read whole with `[...]`, and then compared with its checksum; a slice reads only the bytes it lies in, and is
    not. A name that is tied reads as it was tied.

    Args:
        path: a file that `ptree.save` or any other program wrote.
        verify: compare what is read with the checksums.
        mmap: map the file instead of reading it: arrays are backed by it, and need no memory of their own. `save` to the
            same path leaves them as they are; a program that writes into the file changes them.

    Raises:
        FileError: no whole safetensors file, or one whose header is damaged.
        OSError: the file is not there or cannot be read.
    """
    return File(path, verify=verify, mmap=mmap)


@dataclass(frozen=True, eq=False)
class Stored:
    """A leaf in an open file; `[...]` reads it, `[:8]` reads a part."""

    file: File
    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """How many bytes it takes in the file."""
        entry = self.file.entries[self.name]
        return entry.stop - entry.start

    @property
    def kind(self) -> str:
        return self.file.facts.kinds.get(self.name, "")

    def __getitem__(self, index: Any) -> Any:
        if index is ...:
            return self.file.read([self])[self.name]
        return leaf_of(np.asarray(self.part(index)), "" if not self.kind else "numpy", self.name)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return np.asarray(self.file.array(self.name), dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def part(self, index: Any) -> np.ndarray[Any, Any]:
        """A part, as NumPy's: the bytes from its first to its last number along the first axes are read."""
        index = index if isinstance(index, tuple) else (index,)
        at = next((at for at, one in enumerate(index) if one is ...), len(index))
        start, shape, rest = 0, list(self.shape), list(index)
        # what was asked for at one place of an axis leaves the next axis contiguous
        for axis in range(min(at, len(shape))):
            one = index[axis]
            if isinstance(one, (int, np.integer)) and -self.shape[axis] <= one < self.shape[axis]:
                start += int(one) % self.shape[axis] * prod(self.shape[axis + 1 :])
                shape[axis], rest[axis] = 1, 0
                continue
            if isinstance(one, slice):
                places = range(self.shape[axis])[one]
                low, high = (min(places), max(places) + 1) if places else (0, 0)
                start += low * prod(self.shape[axis + 1 :])
                shape[axis] = high - low
                step = one.step or 1
                rest[axis] = slice(None, None, step)
            break
        flat = self.file.numbers(self.name, start, prod(shape))
        return flat.reshape(shape)[tuple(rest)]

    def __repr__(self) -> str:
        return f"{self.name!r}: {self.dtype}{[*self.shape]} in {self.file.path!r}"


class File(Mapping[str, Stored]):
    """An open file: path -> what is stored there, in declared order; closed by `with`, or by `close`."""

    def __init__(self, path: str | os.PathLike[str], *, verify: bool = True, mmap: bool = False):
        self.path, self.verify, self._file = os.fspath(path), verify, -1
        self.bytes_read = 0
        """How many bytes were read so far, the header's included."""
        self._file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        self._map: mmap_.mmap | None = None
        try:
            self.size = os.fstat(self._file).st_size
            self._header = self._read_header()
            if mmap and self.size:
                self._map = mmap_.mmap(self._file, 0, access=mmap_.ACCESS_READ)
        except BaseException:
            self.close()
            raise

    def _read_header(self) -> Header:
        try:
            length = header_length(self._bytes(0, min(8, self.size)).tobytes(), self.size)
            return parsed(self._bytes(8, length).tobytes(), self.size, self.verify)
        except PtreeError as error:  # a transform that this process does not know
            raise FileError(f"cannot load {self.path!r}: {error}") from error
        except (ValueError, OverflowError) as error:
            raise FileError(
                f"cannot load {self.path!r}: it is not a whole safetensors file ({self.size:,} bytes): {error}"
            ) from error

    @property
    def entries(self) -> dict[str, Entry]:
        return self._header.entries

    @property
    def metadata(self) -> dict[str, str]:
        """The text that was saved beside the leaves."""
        return self._header.metadata

    @cached_property
    def facts(self) -> Facts:
        """What ptree knows of the tree; of a file by another program, its names."""
        return self._header.facts or Facts(sorted(self.entries, key=lambda name: self.entries[name].start))

    @property
    def containers(self) -> dict[str, str]:
        """Path -> type, of each node that was no Tree and no dict when it was saved."""
        return self.facts.containers

    @cached_property
    def tree(self) -> Tree:
        """All that is in the file, unread: a Tree of what is stored, ties included."""
        return self.tree_of(())

    def tree_of(self, apart: Collection[str]) -> Tree:
        """The tree in which these aliases are leaves of their own."""
        ties = {alias: tie for alias, tie in self.facts.ties.items() if alias not in apart}
        try:
            return put_together(
                {name: self.stored(name) for name in self.entries if name not in ties}, replace(self.facts, ties=ties)
            )
        except (PtreeError, ValueError, TypeError) as error:
            raise FileError(f"cannot load {self.path!r}: {error}") from error

    @cached_property
    def _stored_by_path(self) -> dict[str, Any]:
        return {path: value for path, value in entry_dict(self.tree).items() if value is not None}

    def stored(self, name: str) -> Stored:
        entry = self.entries[name]
        dtype, shape = entry.dtype, entry.shape
        if (own := stored_as(name, self.facts)) is not None:
            dtype, behind = own
            shape = shape[: len(shape) - len(behind)]
        return Stored(self, name, dtype, shape)

    # ---------------------------------------------------------------------------- a mapping

    def __getitem__(self, path: str) -> Stored:
        value = self._stored_by_path.get(path)
        if value is None:
            raise PathError(f"no leaf {quoted(path)} in {self.path!r}.{suggestion(path, self._stored_by_path)}")
        return _Tied(self, path, value) if isinstance(value, Tie) else value  # pyright: ignore[reportReturnType]

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored_by_path)

    def __len__(self) -> int:
        return len(self._stored_by_path)

    def __enter__(self) -> File:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing more can be read; what was mapped stays."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __del__(self) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{len(self.entries)} tensors, {self.size:,} bytes, in {self.path!r}>"

    # ---------------------------------------------------------------------------- reading

    def _bytes(self, start: int, count: int) -> np.ndarray[Any, Any]:
        """Bytes of the file in memory of their own, aligned as JAX wants it; or the file's, mapped."""
        if self._map is not None:
            return np.frombuffer(self._map, np.uint8, count, start) if count else np.empty(0, np.uint8)
        if self._file < 0:
            raise FileError(f"{self.path!r} is closed")
        room = np.empty(count + ALIGNED, np.uint8)
        first = -room.ctypes.data % ALIGNED
        room = room[first : first + count]
        view, at = memoryview(room), start  # pyright: ignore[reportArgumentType]
        while view:
            got = os.preadv(self._file, [view[: 1 << 26]], at)
            if not got:
                raise FileError(
                    f"cannot load {self.path!r}: it ends at {at:,} bytes, and had {self.size:,} when opened"
                )
            view, at = view[got:], at + got
        self.bytes_read += count
        return room

    def numbers(self, name: str, start: int, count: int) -> np.ndarray[Any, Any]:
        """A run of numbers of a leaf, counted in C order."""
        entry, own = self.entries[name], stored_as(name, self.facts)
        each = entry.dtype.itemsize * prod(own[1] if own else ())
        data = self._bytes(entry.start + start * each, count * each)
        return data.view(own[0] if own else entry.dtype)

    def array(self, name: str) -> np.ndarray[Any, Any]:
        """A whole leaf, unverified."""
        stored = self.stored(name)
        return self.numbers(name, 0, prod(stored.shape)).reshape(stored.shape)

    def read(
        self,
        leaves: Iterable[Stored],
        shardings: Mapping[str, Any] | None = None,
        damaged: list[str] | None = None,
        torch: bool = True,
    ) -> dict[str, Any]:
        """Name -> leaf, as it was saved (without `torch`, arrays of JAX instead of PyTorch's), each compared with its checksum while the next is read.

        With a sharding, only what goes to the devices of this process is read, and not compared.

        Raises:
            FileError: leaves that are damaged; it lists all of them. With a list as `damaged` they are added to that.
        """
        shardings, found = shardings or {}, dict[str, Any]()
        sums: dict[str, Callable[[], str]] = {}
        with ThreadPoolExecutor(1, "ptree.sum") as pool:
            for stored in sorted(leaves, key=lambda stored: self.entries[stored.name].start):
                name = stored.name
                if name in shardings:
                    found[name] = self._sharded(stored, shardings[name])
                    continue
                array = self.array(name)
                if self.verify and name in self.facts.sums:
                    sums[name] = digest_beside(pool, array.reshape(-1).view(np.uint8))
                kind = "" if stored.kind == "torch" and not torch else stored.kind
                try:
                    found[name] = leaf_of(array, kind, name)
                except FileError as error:
                    raise FileError(f"cannot load {self.path!r}: {error}") from None
        wrong = [name for name, found in sums.items() if found() != self.facts.sums[name]]
        if damaged is not None:
            damaged += wrong
        elif wrong:
            raise damage(self.path, wrong)
        return found

    def _sharded(self, stored: Stored, sharding: Any) -> jax.Array:
        parts: dict[Any, np.ndarray[Any, Any]] = {}  # devices that hold the same part share one reading of it

        def part(index: Any) -> np.ndarray[Any, Any]:
            known = tuple(one.indices(size)[:2] for one, size in zip(index, stored.shape, strict=True))
            if known not in parts:
                parts[known] = stored.part(index)
            return parts[known]

        to_jax(np.zeros(0, stored.dtype), stored.name)  # or 64 bits would be cut
        return jax.make_array_from_callback(stored.shape, sharding, part)


class _Tied:
    """A name that is tied, in an open file: its source, as it reads through the tie."""

    def __init__(self, file: File, path: str, tie: Tie):
        self.file, self.path, self.tie, self.source = file, path, tie, file[tie.source]

    def __getitem__(self, index: Any) -> Any:
        whole = self.tie.read(self.source[...])
        return whole if index is ... else whole[index]

    @cached_property
    def _like(self) -> Any:
        return jax.eval_shape(self.tie.read, jax.ShapeDtypeStruct(self.source.shape, self.source.dtype))

    @property
    def shape(self) -> tuple[int, ...]:
        return self._like.shape

    @property
    def dtype(self) -> Any:
        return self._like.dtype

    @property
    def nbytes(self) -> int:
        return 0

    def __repr__(self) -> str:
        return f"{self.path!r}: {self.tie.shown()!r} in {self.file.path!r}"


def damage(path: str, names: list[str]) -> FileError:
    """The error for leaves that are not what their checksums say."""
    error = FileError(f"cannot load {path!r}: damaged, their bytes are not what their checksums say: {listed(names)}")
    error.damaged = names
    return error
