"""Sources that read files: safetensors, shards, npz, folders of checkpoints by ptree and by Orbax. Only for Orbax JAX is imported."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from .._errors import FileError
from .._stored.facts import Facts, StoredTie
from .._stored.leaf_parts import run_of
from .._stored.locations import checked_path, is_orbax, regular_file
from .._stored.steps import SavedStep, saved_steps
from .._stored.stored import Stored, open_stored
from .._stored.stored_leaf import StoredLeaf
from .._words import in_bytes, printable, quoted, short_dtype, shortened, suggestion
from ._sources import CHUNK, Alias, LeafInfo, Source, in_chunks

_LONGEST_METADATA = 60  # characters of a value that is shown
_KEY_TAGS = {"threefry2x32": "fry", "rbg": "rbg", "unsafe_rbg": "urbg"}
"""JAX's name of a kind of PRNG keys -> how it writes their dtype in short."""


def file_source(path: str | os.PathLike[str]) -> Source:
    """Open what is at a path: a file, shards by their index or folder, or the latest step of a folder of checkpoints."""
    text = checked_path(path, "look at a file")
    if not os.path.exists(text) and not os.path.exists(f"{text}.index.json"):
        raise FileNotFoundError(f"no file {quoted(text)}.{_nearest_file(text)}")
    steps = saved_steps(Path(text)) if os.path.isdir(text) else []
    if steps:
        return _of_step(steps[0], steps)
    if is_orbax(text):
        return _of_orbax(text)
    if os.path.isfile(text) and zipfile.is_zipfile(text):
        return NpzSource(text)
    return StoredSource(open_stored(text, verify=True, mmap=False))


def _of_step(step: SavedStep, steps: list[SavedStep]) -> Source:
    """The latest step of a folder of checkpoints."""
    is_by_orbax = is_orbax(step.path)
    source = (
        _of_orbax(str(step.path)) if is_by_orbax else StoredSource(open_stored(str(step.path), verify=True, mmap=False))
    )
    numbers = sorted({saved.number for saved in steps})
    source.title = f"{step.path.parent.name}/{step.path.name}"
    source.about = f"the latest of {len(numbers)} steps, {numbers[0]} to {numbers[-1]}; {source.about}"
    return source


def _of_orbax(path: str) -> Source:
    # a room beside this one: Orbax is read by the code that loads its checkpoints
    from ..files._orbax import OrbaxCheckpoint
    from ._tree_source import SavedTreeSource

    return SavedTreeSource(OrbaxCheckpoint(path), os.path.basename(os.path.abspath(path)), "checkpoint by Orbax")


def _nearest_file(path: str) -> str:
    folder, name = os.path.split(path)
    try:
        beside = os.listdir(folder or ".")
    except OSError:
        return ""
    return suggestion(name, beside, f"{folder}/" if folder else "")


# ------------------------------------------------------------------------------ safetensors


class StoredSource(Source):
    """A safetensors file, or its shards."""

    is_file = True

    def __init__(self, stored: Stored):
        self.stored = stored
        self.title = os.path.basename(stored.path)
        self.about = _about_stored(stored)
        facts = stored.facts or Facts(order=stored.names_by_place())
        leaves = {name: file.header.leaves[name] for name, file in stored.by_leaf.items()}
        self.stored_leaves = {name: leaf for name, leaf in leaves.items() if name not in facts.ties}
        self.order = [name for name in facts.order if name in self.stored_leaves or name in facts.ties]
        self.leaves = {name: info_of(self.stored_leaves[name]) for name in self.order if name in self.stored_leaves}
        self.aliases = {
            name: alias_of(name, facts.ties[name], self.leaves) for name in self.order if name in facts.ties
        }

    def chunks(self, path: str, most: int = CHUNK) -> Iterator[np.ndarray]:
        leaf = self._readable(path)
        return self.stored.by_leaf[path].chunks(leaf, most)

    def part(self, path: str, index: Any = ...) -> np.ndarray:
        leaf = self._readable(path)
        file = self.stored.by_leaf[path]
        return run_of(index, leaf.shape).read(lambda first, count: file.run(leaf, first, count))

    def block(self, path: str, index: tuple[slice, ...]) -> np.ndarray:
        leaf = self._readable(path)
        return self.stored.by_leaf[path].block(leaf, index)

    def checksum(self, path: str) -> str:
        return self.stored_leaves[path].checksum

    def _readable(self, path: str) -> StoredLeaf:
        leaf = self.stored_leaves[path]
        if leaf.unreadable:
            raise FileError(f"{quoted(path)} {leaf.unreadable}")
        return leaf

    def close(self) -> None:
        self.stored.close()


def info_of(leaf: StoredLeaf) -> LeafInfo:
    """What a file states about a leaf; of PRNG keys their shape without the axis of their words, as JAX has it."""
    shape, dtype = leaf.shape, _short_name(leaf.dtype)
    if leaf.kind.startswith("key:"):
        name = leaf.kind.removeprefix("key:")
        shape, dtype = shape[:-1], f"key<{_KEY_TAGS.get(name, name)}>"
    if leaf.unreadable:
        dtype = "?"
    return LeafInfo(leaf.name, shape, dtype, prod(shape), leaf.nbytes, problem=leaf.unreadable)


@lru_cache  # a tenth of the time: files of 100,000 leaves have a few dtypes
def _short_name(dtype: np.dtype) -> str:
    return short_dtype(dtype)


def alias_of(path: str, tie: StoredTie, leaves: dict[str, LeafInfo]) -> Alias:
    """A tie that a file states."""
    shown = tie.source
    for transform in tie.transforms:
        name, _, order = transform.partition("(")
        shown = f"{name}({shown}, ({order})" if order else f"{name}({shown})"
    orders = [_order_of_axes(transform) for transform in tie.transforms]
    axes = tuple(order for order in orders if order is not None)
    if len(axes) < len(orders):
        return Alias(path, tie.source, shown, None, None)
    source = leaves.get(tie.source)
    shape = source.shape if source is not None else None
    for order in axes:
        shape = _permuted(shape, order)
    return Alias(path, tie.source, shown, shape, axes)


def _order_of_axes(transform: str) -> tuple[int, ...] | None:
    """The order of axes in the name of a transposition; None of a transform that is known by its name alone."""
    if not transform.startswith("transposed"):
        return None
    inside = transform.removeprefix("transposed").strip("()")
    return tuple(int(axis) for axis in inside.split(", ")) if inside else (1, 0)


def _permuted(shape: tuple[int, ...] | None, order: tuple[int, ...]) -> tuple[int, ...] | None:
    if shape is None or len(shape) < len(order):
        return shape
    before = len(shape) - len(order)
    return (*shape[:before], *(shape[before + axis] for axis in order))


def _about_stored(stored: Stored) -> str:
    size = sum(shard.size for shard in stored.shards)
    words = ["safetensors", in_bytes(size)]
    if len(stored.shards) > 1:
        words.append(f"{len(stored.shards)} shards")
    for name, value in stored.metadata.items():
        words.append(shortened(printable(f"{name}={value}"), _LONGEST_METADATA))
    return ", ".join(words)


# ------------------------------------------------------------------------------ npz


class NpzSource(Source):
    """An archive of NumPy: each `.npy` in it is a leaf. Nothing in it is unpickled."""

    is_file = True

    def __init__(self, path: str):
        self.path = path
        self.title = os.path.basename(path)
        try:
            self._archive = zipfile.ZipFile(regular_file(path))
            members = [member for member in self._archive.namelist() if member.endswith(".npy")]
            self._members = {member.removesuffix(".npy"): member for member in members}
            self._headers = {name: self._header(member) for name, member in self._members.items()}
        except (zipfile.BadZipFile, ValueError, EOFError) as error:
            raise FileError(
                f"cannot read {quoted(path)}: it is not a whole npz file: {error}", is_damage=True
            ) from error
        self.about = f"npz, {in_bytes(os.path.getsize(path))}"
        self.order = [*self._members]
        self.leaves = {name: self._info(name) for name in self.order}
        self.aliases = {}

    def _header(self, member: str) -> tuple[tuple[int, ...], bool, np.dtype]:
        with self._archive.open(member) as file:
            return _npy_header(file)

    def _info(self, name: str) -> LeafInfo:
        shape, _, dtype = self._headers[name]
        problem = "holds Python objects, which are not read" if dtype.hasobject else ""
        count = prod(shape)
        return LeafInfo(name, shape, short_dtype(dtype), count, count * dtype.itemsize, problem=problem)

    def chunks(self, path: str, most: int = CHUNK) -> Iterator[np.ndarray]:
        self._refuse_objects(path)
        shape, is_fortran, dtype = self._headers[path]
        if is_fortran and len(shape) > 1:
            flat = self.part(path).reshape(-1)
            yield from in_chunks(flat, most)
            return
        left, at_once = prod(shape), max(1, most // max(1, dtype.itemsize))
        with self._archive.open(self._members[path]) as file:
            _npy_header(file)
            while left:
                count = min(left, at_once)
                yield np.frombuffer(self._bytes(file, path, count * dtype.itemsize), dtype)
                left -= count

    def _bytes(self, file: IO[bytes], path: str, count: int) -> bytes:
        try:
            data = file.read(count)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise self._damage(path, error) from error
        if len(data) < count:
            raise self._damage(path, "it is cut short")
        return data

    def _damage(self, path: str, why: object) -> FileError:
        return FileError(f"cannot read {quoted(self.path)}: {quoted(path)}: {why}", is_damage=True)

    def part(self, path: str, index: Any = ...) -> np.ndarray:
        self._refuse_objects(path)
        try:
            with self._archive.open(self._members[path]) as file:
                return np.lib.format.read_array(file, allow_pickle=False)[index]
        except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise self._damage(path, error) from error

    def _refuse_objects(self, path: str) -> None:
        if self.leaves[path].problem:
            raise FileError(f"{quoted(path)} {self.leaves[path].problem}")

    def close(self) -> None:
        self._archive.close()


def _npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read the header of an array: its shape, whether its first axis is the fastest, and its dtype."""
    version = np.lib.format.read_magic(file)
    readers: dict[tuple[int, int], Callable[[IO[bytes]], Any]] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"version {version} of the npy format is not read")
    return readers[version](file)
