"""ForeignTree: a file of another framework, such as PyTorch, as a mapping from names to leaves, and as a tree that `load` reads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from math import prod
from typing import TypeVar

import numpy as np
from jax.sharding import Sharding

from .._errors import FileError, PathError
from .._foreign import ForeignArray, ForeignFile, open_foreign
from .._foreign.formats import format_of
from .._paths.dotted_names import hint_of_name
from .._stored.facts import Facts
from .._stored.leaf_parts import Index, aligned_memory
from .._stored.locations import file_path, is_saved
from .._stored.stored_leaf import StoredLeaf
from .._tree import Leaf, Tie
from .._words import describe, lines, quoted
from ._block_reading import array_on_devices
from ._kinds import JAX_ARRAY, leaf_of, refuse_cut, refuse_unreadable, without_cut
from ._saved_tree import Compare, ReadLeaves, SavedTree

T = TypeVar("T")


def is_foreign_file(path: str) -> bool:
    """Whether a file of another framework, or a checkpoint of several, is at a path, in a format that ptree reads."""
    if os.path.isdir(path) and is_saved(file_path(path)):
        return False
    return format_of(path) is not None


class ForeignTree(SavedTree, Mapping[str, "ForeignLeaf"]):
    """An open file of another framework: name -> leaf, in the file's order; closed by `with`, or by `close`."""

    is_foreign = True

    def __init__(self, path: str, *, verify: bool = True, mmap: bool = False):
        self._file = open_foreign(path, verify=verify)
        self._is_mapped = mmap
        self.path, self.metadata = self._file.path, self._file.metadata
        self.leaves = {name: _stored(array) for name, array in self._file.arrays.items()}
        self.ties = {alias: Tie(source, ()) for alias, source in self._file.aliases.items()}
        self.facts = Facts(order=[*self.leaves, *self.ties])
        self.containers: dict[str, str] = {}
        """As an open file of ptree has it: no framework states any."""

    @property
    def foreign_file(self) -> ForeignFile:
        """The open file with the arrays as its framework has them."""
        return self._file

    @property
    def size(self) -> int:
        """How many bytes the file has."""
        return os.path.getsize(self.path)

    def __getitem__(self, path: str) -> ForeignLeaf:
        source = self.ties[path].source if path in self.ties else path
        if source not in self.leaves:
            near = hint_of_name(path, self.facts.order) if isinstance(path, str) else ""
            raise PathError(f"no leaf {quoted(path)} in {self.path!r}.{near}")
        return ForeignLeaf(path, self.leaves[source], self)

    def __iter__(self) -> Iterator[str]:
        return iter(self.facts.order)

    def __len__(self) -> int:
        return len(self.facts.order)

    # a Mapping would compare all items, and reading them is not what `==` should do
    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return id(self)

    def read(
        self,
        leaves: Iterable[StoredLeaf],
        shardings: Mapping[str, Sharding] | None = None,
        compare: Compare = "whole leaves",
    ) -> ReadLeaves:
        """Read leaves; the reader compares those that are read whole with the checksums that its format has."""
        shardings = shardings or {}
        leaves = list(leaves)
        refuse_unreadable(leaves)
        refuse_cut((leaf.name, leaf.dtype) for leaf in leaves if leaf.kind == "" or leaf.name in shardings)
        reads = {leaf.name: partial(self._value, leaf, shardings.get(leaf.name)) for leaf in leaves}
        return ReadLeaves(read_each(reads), [])

    def _value(self, leaf: StoredLeaf, sharding: Sharding | None) -> Leaf:
        if sharding is None:
            return leaf_of(self.part(leaf, ...), leaf)
        return array_on_devices(lambda index: self.part(leaf, index), leaf.shape, leaf.dtype, sharding)

    def part(self, leaf: StoredLeaf, index: Index) -> np.ndarray:
        """A part of a leaf, in memory of its own unless the file is to be mapped; `...` is all of it, compared with its checksum."""
        array = self._file.read(leaf.name) if index is ... else np.asarray(self._file.part(leaf.name, index))
        return array if self._is_mapped or array.flags.owndata else _copied(array)

    def close(self) -> None:
        """Close the file; arrays that use its mapped memory stay."""
        self._file.close()

    def __enter__(self) -> ForeignTree:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{len(self.leaves)} arrays, {self.size:,} bytes, {self._file.format}, in {self.path!r}>"


class ForeignLeaf:
    """A leaf in an open file of another framework, or a name that shares its numbers; `[...]` reads it, `[:8]` a part."""

    def __init__(self, name: str, stored: StoredLeaf, tree: ForeignTree):
        self.name, self.stored, self._tree = name, stored, tree
        self.shape, self.dtype, self.nbytes = stored.shape, stored.dtype, stored.nbytes

    def __getitem__(self, index: Index) -> Leaf:
        refuse_unreadable([self.stored])
        array = self._tree.part(self.stored, index)
        if index is ...:
            return leaf_of(array, without_cut(self.stored))
        return array if without_cut(self.stored).kind else JAX_ARRAY.leaf_of(array, self.stored)

    def __array__(self, dtype: np.typing.DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        refuse_unreadable([self.stored])
        return np.asarray(self._tree.part(self.stored, ...), dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        problem = f", which {self.stored.unreadable}" if self.stored.unreadable else ""
        return f"{quoted(self.name)}: {describe(self.stored)} in {self._tree.path!r}{problem}"


def read_each(reads: Mapping[str, Callable[[], T]]) -> dict[str, T]:
    """What each of the reads gives.

    Raises:
        FileError: some are of damaged leaves; it lists all of them.
    """
    values: dict[str, T] = {}
    damages: list[FileError] = []
    for name, read in reads.items():
        try:
            values[name] = read()
        except FileError as error:
            if not error.is_damage:
                raise
            damages.append(error)
    if damages:
        raise _all_damages(damages)
    return values


def _all_damages(errors: Sequence[FileError]) -> FileError:
    """One error of all damaged leaves; each names its leaf, and where that is in the file."""
    if len(errors) == 1:
        return errors[0]
    error = FileError(lines([str(error) for error in errors]), is_damage=True)
    error.damaged = [name for one in errors for name in one.damaged]
    return error


def _stored(array: ForeignArray) -> StoredLeaf:
    nbytes = prod(array.shape) * array.dtype.itemsize
    # no offsets: only the reader knows where the numbers are
    return StoredLeaf(array.name, "", array.dtype, array.shape, 0, nbytes, unreadable=array.problem)


def _copied(array: np.ndarray) -> np.ndarray:
    """A copy in new memory, which JAX on a CPU can use without another one."""
    memory = aligned_memory(array.nbytes).view(array.dtype).reshape(array.shape)
    memory[...] = array
    return memory
