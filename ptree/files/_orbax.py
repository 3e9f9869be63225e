"""Save and restore checkpoints with Orbax, imported when needed: folders of arrays sharded over several hosts, a tree's facts
and digest in metadata."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import jax
import numpy as np
from jax.sharding import Sharding

from .._edit import asdict, entries, items, map_leaves, unflatten
from .._errors import FileError, PtreeError
from .._paths import natural, split
from .._stored.checksums import digest
from .._stored.dtypes import UNKNOWN, dtype_named
from .._stored.facts import Facts
from .._stored.locations import is_orbax
from .._stored.operating_system import is_regular, target_status
from .._stored.stored_leaf import StoredLeaf
from .._stored.urls import is_url, name_at, scheme_of
from .._tree import Leaf, PyTree
from .._words import lines, listed, quoted
from ._kinds import UnsavedLeaf, empty_name, leaf_of, refuse_cut, refuse_unreadable, unsaved
from ._saved_tree import Compare, ReadLeaves, SavedTree, ties_of

if TYPE_CHECKING:
    from types import ModuleType

    from etils import epath
    from orbax.checkpoint import AsyncCheckpointer, RestoreArgs


T = TypeVar("T")

_TREE = "_METADATA"
"""A file in the folder of each tree of Orbax."""
CHECKPOINT = "_CHECKPOINT_METADATA"
"""A file in the folder of each checkpoint of Orbax."""
_SCHEMES = ("gs", "s3", "az")
"""The kinds of URLs that Orbax takes."""
_KEYS = ("ptree", "arrays", "ptree_sum")
"""What ptree writes into the metadata of a checkpoint."""


def orbax() -> ModuleType:
    """Import Orbax when it is needed: that takes a second."""
    try:
        import orbax.checkpoint
    except ImportError:
        raise FileError("Orbax is not installed: pip install 'ptree-jax[orbax]'") from None
    return orbax.checkpoint


def place_of(path: str) -> epath.Path:
    """A path or URL as Orbax takes them; raises KeyError for a kind of URL that it does not."""
    orbax()
    from etils import epath  # which Orbax needs

    return epath.Path(path)


def is_whole_checkpoint(place: epath.Path) -> bool:
    """Whether a whole checkpoint by Orbax is at a place; where nothing can be renamed, Orbax marks those that are."""
    return (place / CHECKPOINT).exists() and orbax().utils.is_checkpoint_finalized(place)


def is_checkpoint_at_url(url: str) -> bool:
    """Whether a checkpoint by Orbax is at a URL of a kind that Orbax takes."""
    # before Orbax is imported, which takes a second
    if ".safetensors" in name_at(url) or scheme_of(url) not in _SCHEMES:
        return False
    try:
        return is_whole_checkpoint(place_of(url))
    except (ImportError, FileError):  # nothing here reads it
        return False


def is_tree_of_orbax(path: str) -> bool:
    """Whether a folder holds a tree by Orbax, as an item of a checkpoint."""
    return is_regular(target_status(os.path.join(path, _TREE)))


def refuse_folder_of_checkpoints(path: str) -> None:
    """Raise FileError for a folder that holds nothing but checkpoints by Orbax, as its CheckpointManager makes it."""
    if not os.path.isdir(path):
        return
    inside = sorted(os.listdir(path), key=natural)
    checkpoints = [name for name in inside if is_orbax(os.path.join(path, name))]
    if checkpoints and len(checkpoints) == len(inside):
        latest = os.path.join(path, checkpoints[-1])
        raise FileError(
            f"cannot load {path!r}: it holds checkpoints by Orbax, {listed(checkpoints)}. Load one: {latest!r}"
        )


def begin_save(
    saver: AsyncCheckpointer,
    path: str,
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
    # Orbax refuses arrays of size 0, and has no checksums of dtypes and shapes, so they are in the metadata
    about_arrays = {name: [array.dtype.name, array.shape] for name, array in arrays.items()}
    sums = {name: digest(leaf.bytes()) for name, leaf in leaves.items() if leaf.is_here}
    stored = [replace(leaf.stored, checksum=sums.get(name, "")) for name, leaf in leaves.items()]
    about = replace(facts.about(stored), dtypes={})  # Orbax has all dtypes
    metadata = {**about_step, "ptree": about.to_json(), "arrays": json.dumps(about_arrays)}
    metadata["ptree_sum"] = _digest_of(metadata)
    not_empty = {name: array for name, array in arrays.items() if array.size}
    state = asdict(unflatten(not_empty or {"_": np.uint8(0)}))  # it refuses a tree without arrays too
    saver.save(path, args=orbax().args.StandardSave(state), custom_metadata=metadata, force=True)
    return saver.wait_until_finished


def _digest_of(metadata: Mapping[str, str]) -> str:
    """The checksum of the metadata of a checkpoint."""
    others = sorted((name, text) for name, text in metadata.items() if name != "ptree_sum")
    return digest(json.dumps(others).encode())


def _refuse_joined_names(path: str, names: Iterable[str]) -> None:
    """Raise FileError for paths such as 'a/b.c' and 'a.b/c', which Orbax would write to one place."""
    joined: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        joined[".".join(split(name))].append(name)
    same = [f"Orbax has one name for {listed(names)}" for names in joined.values() if len(names) > 1]
    if same:
        raise FileError(f"cannot save {path!r} with Orbax: {lines(same)}. ptree.rename them")


def _array_for_orbax(leaf: UnsavedLeaf) -> jax.Array | np.ndarray:
    """What Orbax is to save: an array of JAX itself; for other leaves a copy, as training may write to their memory."""
    return leaf.array if isinstance(leaf.array, jax.Array) else np.array(leaf.host_array())


class OrbaxCheckpoint(SavedTree):
    """A checkpoint by Orbax, open for reading: one that ptree wrote, or a tree of arrays by another program.

    Raises:
        FileError: it holds no tree of arrays, or is damaged.
    """

    def __init__(self, path: str, verify: bool = True):
        self.path = path if is_url(path) else os.path.abspath(path)
        self._place = place_of(self.path)
        self._folder = _folder_of_tree(self._place)
        self._reader = orbax().Checkpointer(orbax().PyTreeCheckpointHandler())
        self._empty: dict[str, np.ndarray] = {}
        try:
            _ask_orbax(self.path, "it is not a whole checkpoint by Orbax", lambda: self._read_metadata(verify))
        except FileError:
            self.close()  # the caller gets no object that it could close
            raise

    def _read_metadata(self, verify: bool) -> None:
        metadata = _metadata_of_ptree(self._place, verify)
        about = self._reader.metadata(self._folder).item_metadata
        self.is_foreign = metadata is None
        self.metadata = {name: text for name, text in (metadata or {}).items() if name not in _KEYS}
        if about is None:
            if self.is_foreign:
                raise FileError("it is a checkpoint by Orbax without a tree of arrays")
            raise ValueError("it has no tree")
        self._tree: PyTree = about.tree
        if metadata is None:
            self.facts, self.leaves = _described_by_orbax(self._tree)
            self.ties = {}
            return
        self.facts, self.leaves = _described_by_ptree(metadata)
        self.ties = ties_of(self.facts)
        found = {name: (np.dtype(array.dtype), tuple(array.shape)) for name, array in items(self._tree)}
        for name, leaf in self.leaves.items():
            if 0 in leaf.shape:
                self._empty[name] = np.zeros(leaf.shape, leaf.dtype)
            elif found.get(name) != (leaf.dtype, leaf.shape):
                raise ValueError(f"{quoted(name)} is not the {leaf.dtype}{[*leaf.shape]} that its metadata say")

    def read(
        self,
        leaves: Iterable[StoredLeaf],
        shardings: Mapping[str, Sharding] | None = None,
        compare: Compare = "whole leaves",
    ) -> ReadLeaves:
        shardings = shardings or {}
        leaves = list(leaves)
        refuse_unreadable(leaves)
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
        arguments: dict[str, RestoreArgs] = {}
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
        # in the containers that were saved: those of other programs may be lists, and have keys that hold slashes
        item = map_leaves(self._tree, lambda path, _: arguments.get(path, ocp.PLACEHOLDER))
        restore_args = map_leaves(self._tree, lambda path, _: arguments.get(path, ocp.RestoreArgs()))
        args = ocp.args.PyTreeRestore(item=item, restore_args=restore_args)
        restored = _ask_orbax(self.path, "Orbax cannot read it", lambda: self._reader.restore(self._folder, args=args))
        return {**empty, **dict(items(restored))}

    def close(self) -> None:
        self._reader.close()


def _folder_of_tree(place: epath.Path) -> str:
    """The folder of a checkpoint in which its tree is: the checkpoint itself, or its one item that is a tree.

    Raises:
        FileError: it has several of them.
    """
    path = os.fspath(place)
    if (place / _TREE).is_file():
        return path
    inside = sorted(child.name for child in place.iterdir() if (child / _TREE).is_file())
    if len(inside) > 1:
        raise FileError(f"cannot load {path!r}: it has several trees, {listed(inside)}. Load the folder of one of them")
    return os.fspath(place / inside[0]) if inside else path


def _metadata_of_ptree(place: epath.Path, verify: bool) -> dict[str, str] | None:
    """Read what ptree wrote into the metadata of a checkpoint; None if another program wrote it.

    Read without Orbax, which takes metadata that are no JSON for none: a damaged checkpoint would be another program's.

    Raises:
        ValueError: it is damaged.
    """
    file = place / CHECKPOINT
    if not file.is_file():  # the folder of a tree in another program's checkpoint
        return None
    text = file.read_text()
    metadata = json.loads(text)["custom_metadata"] or {}
    if not any(f'"{key}"' in text for key in _KEYS):
        return None
    missing = [key for key in _KEYS if type(metadata.get(key)) is not str]
    if missing:
        raise ValueError(f"a part of what ptree wrote is missing, {listed(missing)}")
    if verify and _digest_of(metadata) != metadata["ptree_sum"]:
        raise ValueError("its metadata are not what their checksum says")
    return metadata


def _described_by_ptree(metadata: Mapping[str, str]) -> tuple[Facts, dict[str, StoredLeaf]]:
    """Describe the tree of a checkpoint by what ptree wrote into its metadata."""
    facts = Facts.from_json(metadata["ptree"])
    leaves: dict[str, StoredLeaf] = {}
    for name, (dtype, shape) in json.loads(metadata["arrays"]).items():
        kind, checksum = facts.kinds.get(name, ""), facts.sums.get(name, "")
        leaves[name] = StoredLeaf(name, kind, dtype_named(dtype), tuple(shape), checksum=checksum)
    return facts, leaves


def _described_by_orbax(tree: PyTree) -> tuple[Facts, dict[str, StoredLeaf]]:
    """Describe the tree of another program's checkpoint: its order and empty nodes, and its leaves."""
    found = entries(tree)
    empty = {path: empty_name(node) for path, node in found.items() if empty_name(node)}
    leaves = {path: _described_leaf(path, about) for path, about in found.items() if path not in empty}
    return Facts(order=[*found], empty=empty), leaves


def _described_leaf(name: str, about: Leaf) -> StoredLeaf:
    """Describe a leaf by its metadata of Orbax: an array of JAX, if it has a sharding, or of NumPy, or a number."""
    values = orbax().metadata.value
    if isinstance(about, values.ScalarMetadata):
        dtype = np.dtype(about.dtype)
        return StoredLeaf(name, "float" if dtype.kind == "f" else "int", dtype, ())
    if isinstance(about, values.ArrayMetadata):
        kind = "numpy" if about.sharding is None else ""
        return StoredLeaf(name, kind, np.dtype(about.dtype), tuple(about.shape))
    return StoredLeaf(name, "", UNKNOWN, (), unreadable=f"is a {type(about).__name__} of Orbax, and no array")


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
