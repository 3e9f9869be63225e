"""Save and restore checkpoints with Orbax: folders of arrays sharded over several hosts, with ptree's facts in the metadata."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import jax
import numpy as np
from jax.sharding import Sharding

from .._edit import asdict, items, unflatten
from .._errors import FileError, PtreeError
from .._paths import split
from .._tree import Leaf
from .._words import lines, listed
from ._checksums import digest
from ._dtypes import dtype_named
from ._facts import Facts
from ._kinds import UnsavedLeaf, leaf_of, refuse_cut, unsaved
from ._saved_tree import Compare, ReadLeaves, SavedTree
from ._stored_leaf import StoredLeaf

if TYPE_CHECKING:
    from types import ModuleType

    from orbax.checkpoint import AsyncCheckpointer


T = TypeVar("T")


def orbax() -> ModuleType:
    """Import Orbax when it is needed: that takes a second."""
    try:
        import orbax.checkpoint
    except ImportError:
        raise FileError("Orbax is not installed: pip install 'ptree-jax[orbax]'") from None
    return orbax.checkpoint


def begin_save(
    saver: AsyncCheckpointer,
    path: Path,
    leaves: Mapping[str, UnsavedLeaf],
    facts: Facts,
    about_step: Mapping[str, str],
) -> Callable[[], None]:
    """Begin to save with Orbax; call the result to wait for the end. Arrays sharded over several hosts get no checksum.

    Raises:
        FileError: paths that are the same name for Orbax, which joins segments with dots.
    """
    _refuse_joined_names(path, leaves)
    arrays = {name: _array_for_orbax(leaf) for name, leaf in leaves.items()}
    # Orbax refuses arrays of size 0, so their dtypes and shapes are in the metadata
    empty = {name: [array.dtype.name, array.shape] for name, array in arrays.items() if not array.size}
    sums = {name: digest(leaf.bytes()) for name, leaf in leaves.items() if leaf.is_here}
    stored = [replace(leaf.stored, checksum=sums.get(name, "")) for name, leaf in leaves.items()]
    about = replace(facts.about(stored), dtypes={})  # Orbax has all dtypes
    metadata = {**about_step, "ptree": about.to_json(), "empty": json.dumps(empty)}
    not_empty = {name: array for name, array in arrays.items() if name not in empty}
    state = asdict(unflatten(not_empty or {"_": np.uint8(0)}))  # it refuses a tree without arrays too
    saver.save(os.path.abspath(path), args=orbax().args.StandardSave(state), custom_metadata=metadata, force=True)
    return saver.wait_until_finished


def _refuse_joined_names(path: Path, names: Iterable[str]) -> None:
    """Raise FileError for paths such as 'a/b.c' and 'a.b/c', which Orbax would write to one place."""
    joined: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        joined[".".join(split(name))].append(name)
    same = [f"Orbax has one name for {listed(names)}" for names in joined.values() if len(names) > 1]
    if same:
        raise FileError(f"cannot save {str(path)!r} with Orbax: {lines(same)}. ptree.rename them")


def _array_for_orbax(leaf: UnsavedLeaf) -> jax.Array | np.ndarray:
    """What Orbax is to save: an array of JAX itself; for other leaves a copy, as training may write to their memory."""
    return leaf.array if isinstance(leaf.array, jax.Array) else np.array(leaf.host_array())


class OrbaxCheckpoint(SavedTree):
    """A checkpoint that ptree wrote with Orbax, open for reading.

    Raises:
        FileError: another program wrote it, or it is damaged.
    """

    def __init__(self, path: str):
        self.path = os.path.abspath(path)
        self._reader = orbax().Checkpointer(orbax().PyTreeCheckpointHandler())
        self._empty: dict[str, np.ndarray] = {}
        try:
            _ask_orbax(self.path, "it is not a whole checkpoint that ptree wrote with Orbax", self._read_metadata)
        except FileError:
            self.close()  # the caller gets no object that it could close
            raise

    def _read_metadata(self) -> None:
        about = self._reader.metadata(self.path)
        self.facts = Facts.from_json(about.custom_metadata["ptree"])
        self.metadata = {name: text for name, text in about.custom_metadata.items() if type(text) is str}
        for name, (dtype, shape) in json.loads(about.custom_metadata["empty"]).items():
            self._empty[name] = np.zeros(shape, dtype_named(dtype))
        arrays = {**dict(items(about.item_metadata.tree)), **self._empty}
        self.leaves = {name: self._stored(name, arrays[name]) for name in self.facts.order if name in arrays}

    def _stored(self, name: str, array: np.ndarray) -> StoredLeaf:
        kind, checksum = self.facts.kinds.get(name, ""), self.facts.sums.get(name, "")
        return StoredLeaf(name, kind, np.dtype(array.dtype), tuple(array.shape), checksum=checksum)

    def read(
        self,
        leaves: Iterable[StoredLeaf],
        shardings: Mapping[str, Sharding] | None = None,
        compare: Compare = "whole leaves",
    ) -> ReadLeaves:
        shardings = shardings or {}
        leaves = list(leaves)
        arrays = self._restored(leaves, shardings)
        damaged = [leaf.name for leaf in leaves if _is_damaged(arrays[leaf.name], leaf, compare)]
        values = {leaf.name: _leaf_of(arrays[leaf.name], leaf) for leaf in leaves}
        return ReadLeaves(values, damaged)

    def _restored(
        self, leaves: Iterable[StoredLeaf], shardings: Mapping[str, Sharding]
    ) -> dict[str, jax.Array | np.ndarray]:
        """Name -> array, restored by Orbax: as JAX's for leaves of JAX and those with a sharding, else as NumPy's."""
        ocp = orbax()
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        in_jax = {leaf.name: leaf.dtype for leaf in leaves if leaf.kind == "" or leaf.name in shardings}
        refuse_cut(in_jax.items())
        arguments = {}
        for leaf in leaves:
            if leaf.name in self._empty:
                continue
            if leaf.name in in_jax:
                sharding = shardings.get(leaf.name, here)
                arguments[leaf.name] = ocp.ArrayRestoreArgs(sharding=sharding, dtype=leaf.dtype)
            else:
                arguments[leaf.name] = ocp.RestoreArgs(restore_type=np.ndarray)
        empty = {leaf.name: self._empty[leaf.name] for leaf in leaves if leaf.name in self._empty}
        if not arguments:  # there is nothing that Orbax could read
            return {**empty}
        nested = asdict(unflatten(arguments))
        args = ocp.args.PyTreeRestore(item=nested, restore_args=nested, partial_restore=True)
        restored = _ask_orbax(self.path, "Orbax cannot read it", lambda: self._reader.restore(self.path, args=args))
        return {**empty, **dict(items(restored))}

    def close(self) -> None:
        self._reader.close()


def _ask_orbax(path: str, problem: str, ask: Callable[[], T]) -> T:
    """Call Orbax, and raise any error of it as a FileError that counts as damage of the checkpoint."""
    try:
        return ask()
    except PtreeError as error:  # a newer format, or an unknown transform: the checkpoint itself is whole
        raise FileError(f"cannot load {path!r}: {error}") from error
    except Exception as error:  # Orbax raises many kinds, and its bare Exception
        raise FileError(f"cannot load {path!r}: {problem}: {error}", is_damage=True) from error


def _leaf_of(array: jax.Array | np.ndarray, stored: StoredLeaf) -> Leaf:
    """Make a leaf of an array that Orbax restored; arrays of JAX are leaves already."""
    return array if isinstance(array, jax.Array) else leaf_of(array, stored)


def _is_damaged(array: jax.Array | np.ndarray, stored: StoredLeaf, compare: Compare) -> bool:
    """Whether an array that Orbax restored differs from its checksum, if it is to be compared."""
    if compare == "no leaves" or not stored.checksum:
        return False
    is_spread = isinstance(array, jax.Array) and not array.is_fully_replicated
    if is_spread and compare != "all leaves":  # to hash it, all its parts would have to come to the host
        return False
    # described as for saving, so that the same bytes are hashed as then
    leaf = unsaved(stored.name, array, may_be_spread=True)
    if not isinstance(leaf, UnsavedLeaf):
        return True
    return leaf.is_here and digest(leaf.bytes()) != stored.checksum
