"""A checkpoint of Orbax, a folder that many hosts write together, with what ptree knows in its metadata."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np

from .._edit import asdict, items, unflatten
from .._errors import FileError, PtreeError
from .._paths import split
from .._words import lines, listed
from ._format import Facts, digest
from ._source import Compare, Source, Unread
from ._tensor import Tensor, check_bits, leaf_of, tensor_of

_METADATA = "_CHECKPOINT_METADATA"


def is_orbax(path: str | os.PathLike[str]) -> bool:
    """Whether a folder is a checkpoint of Orbax."""
    return os.path.exists(os.path.join(path, _METADATA))


def orbax() -> Any:
    try:
        import orbax.checkpoint
    except ImportError:
        raise FileError("Orbax is not installed: pip install 'ptree-jax[orbax]'") from None
    return orbax.checkpoint


def write(saver: Any, path: Path, tensors: Mapping[str, Tensor], facts: Facts) -> Callable[[], None]:
    """Begin to write with an `AsyncCheckpointer`; what it gives waits for the end.

    What this process has whole gets checksums.

    Raises:
        FileError: names that are one for Orbax, which joins them with dots.
    """
    joined: defaultdict[str, list[str]] = defaultdict(list)
    for name in tensors:
        joined[".".join(split(name))].append(name)
    if same := [f"Orbax has one name for {listed(names)}" for names in joined.values() if len(names) > 1]:
        raise FileError(f"cannot save {str(path)!r} with Orbax: {lines(same)}. ptree.rename them")
    held = {name: _held(tensor) for name, tensor in tensors.items()}
    empty = {name: [leaf.dtype.name, leaf.shape] for name, leaf in held.items() if not leaf.size}  # Orbax refuses these
    sums = {name: digest(tensor.bytes()) for name, tensor in tensors.items() if _is_here(tensor.leaf)}
    told = {"ptree": replace(facts, sums=sums, dtypes={}).to_json(), "empty": json.dumps(empty)}
    state = asdict(unflatten({name: leaf for name, leaf in held.items() if name not in empty} or {"_": np.uint8(0)}))
    saver.save(os.path.abspath(path), args=orbax().args.StandardSave(state), custom_metadata=told, force=True)
    return saver.wait_until_finished


def _is_here(leaf: Any) -> bool:
    """Whether this process has all of a leaf."""
    return not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated


def _held(tensor: Tensor) -> Any:
    """The leaf as Orbax takes it: an array of JAX as it is, of all else a copy of NumPy's."""
    if isinstance(tensor.leaf, jax.Array):
        return tensor.leaf
    if tensor.kind == "torch":
        return tensor.bytes().view(tensor.dtype).reshape(tensor.shape).copy()
    return np.array(tensor.leaf)


class Checkpoint(Source):
    """A checkpoint that ptree wrote with Orbax, open.

    Raises:
        FileError: another program wrote it, or it is damaged.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = os.path.abspath(path)
        self._reader = orbax().Checkpointer(orbax().PyTreeCheckpointHandler())
        try:
            about = self._reader.metadata(self.path)
            self.facts = Facts.from_json(about.custom_metadata["ptree"])
            known = {*self.facts.order}
            self._leaves: dict[str, Any] = {n: leaf for n, leaf in items(about.item_metadata.tree) if n in known}
            for name, (dtype, shape) in json.loads(about.custom_metadata["empty"]).items():
                self._leaves[name] = np.zeros(shape, getattr(ml_dtypes, dtype, dtype))
        except PtreeError as error:
            raise FileError(f"cannot load {self.path!r}: {error}") from error
        except Exception as error:  # Orbax raises many kinds
            told = "it is not a whole checkpoint that ptree wrote with Orbax"
            raise FileError(f"cannot load {self.path!r}: {told}: {error}", is_damage=True) from error

    def names(self) -> Collection[str]:
        return self._leaves.keys()

    def stored(self, name: str) -> Unread:
        leaf = self._leaves[name]
        return Unread(self, name, np.dtype(leaf.dtype), tuple(leaf.shape))

    def _read(
        self, leaves: Sequence[Unread], kinds: Mapping[str, str], shardings: Mapping[str, Any], compare: Compare
    ) -> tuple[dict[str, Any], list[str]]:
        arrays = self._restored(leaves, kinds, shardings)
        wrong = [name for name, array in arrays.items() if self._differs(name, array, compare)]
        placed = {name for name in shardings if not kinds[name].startswith("key:")}
        found = {name: leaf if name in placed else leaf_of(leaf, kinds[name], name) for name, leaf in arrays.items()}
        return found, wrong

    def _restored(self, leaves: Sequence[Unread], kinds: Mapping[str, str], given: Mapping[str, Any]) -> dict[str, Any]:
        """Name -> array, of JAX for what is JAX's or has a sharding."""
        found = {
            leaf.name: self._leaves[leaf.name] for leaf in leaves if isinstance(self._leaves[leaf.name], np.ndarray)
        }
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        in_jax = {leaf.name for leaf in leaves if kinds[leaf.name] == "" or leaf.name in given}
        check_bits({leaf.name: leaf.dtype for leaf in leaves if leaf.name in in_jax})
        wanted = {
            leaf.name: orbax().ArrayRestoreArgs(sharding=given.get(leaf.name, here), dtype=leaf.dtype)
            if leaf.name in in_jax
            else orbax().RestoreArgs(restore_type=np.ndarray)
            for leaf in leaves
            if leaf.name not in found
        }
        if not wanted:
            return found
        arguments = asdict(unflatten(wanted))
        args = orbax().args.PyTreeRestore(item=arguments, restore_args=arguments, partial_restore=True)
        try:
            return found | dict(items(self._reader.restore(self.path, args=args)))
        except Exception as error:  # Orbax raises many kinds, and its bare Exception
            raise FileError(f"cannot load {self.path!r}: Orbax cannot read it: {error}", is_damage=True) from error

    def _differs(self, name: str, leaf: Any, compare: Compare) -> bool:
        """Whether a leaf is not what its checksum says, if that is asked for."""
        if compare == "no leaves" or name not in self.facts.sums or not _is_here(leaf):
            return False
        spread = isinstance(leaf, jax.Array) and not leaf.is_fully_replicated
        if spread and compare != "all leaves":
            return False
        tensor = tensor_of(leaf)
        return not isinstance(tensor, Tensor) or digest(tensor.bytes()) != self.facts.sums[name]

    def close(self) -> None:
        self._reader.close()
