"""Read leaves in blocks, as devices hold them: by which sharding each is read, also a stack as its layers; the blocks of a process."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from .._paths import STACKED
from .._stored.leaf_parts import Ranges, ranges_of
from .._stored.stored_leaf import StoredLeaf
from .._tree import Entry, spec_entries
from ._kinds import is_cut

Block: TypeAlias = tuple[slice, ...]
Shape: TypeAlias = tuple[int, ...]


def read_shardings(
    stored: Mapping[str, StoredLeaf], shapes: Mapping[str, Shape], targets: Mapping[str, Sharding]
) -> dict[str, Sharding]:
    """Find the sharding by which a leaf is read in parts, for leaves that are placed over several devices: name -> sharding.

    If a stack is loaded into single layers, or the other way round, a leaf is read as its layers are placed. A leaf that
    cannot be read in parts is read whole, and moved afterwards.

    Args:
        stored: the leaves of the file, by their paths after `rename`.
        shapes: the shapes of the leaves of the loaded tree, by path.
        targets: the shardings of the leaves of the loaded tree, by path.
    """
    spread = {path: sharding for path, sharding in targets.items() if not sharding.is_fully_replicated}
    if not spread:  # fast path: on one device all is read whole
        return {}
    stacks = _stacks_in([*stored, *shapes])
    layers = _grouped_by_stack(shapes, stacks)
    found: dict[str, Sharding] = {}
    for path, leaf in stored.items():
        if leaf.kind not in ("", "numpy") or is_cut(leaf.dtype):
            continue  # it becomes an array of JAX, of this dtype, only after it was read
        stacked = _name_in_stack(path, stacks)
        if path in shapes:
            way = _Way(shapes[path], spread.get(path))
        elif path == stacked:
            way = _way_of_stack(stacked, layers.get(stacked, []), shapes, spread)
        else:
            way = _way_of_layer(path, stacked, shapes, spread)
        # another shape in the file is an error or is kept by `mismatch`; both are decided after reading
        if way.sharding is not None and leaf.shape == way.shape:
            found[leaf.name] = way.sharding
    return found


@dataclass(frozen=True)
class _Way:
    """The sharding by which a leaf of this shape can be read in parts; None if it has to be read whole."""

    shape: Shape
    sharding: Sharding | None


_WHOLE = _Way((), None)


def _way_of_stack(stacked: str, layers: list[str], shapes: Mapping[str, Shape], spread: Mapping[str, Sharding]) -> _Way:
    """The sharding to read a stack that is loaded into layers: that of each layer, if all are placed alike, on its axes."""
    chosen = {spread.get(layer) for layer in layers}
    if len(chosen) != 1:  # no layers, or layers that are placed in different ways
        return _WHOLE
    sharding, axis = chosen.pop(), _stack_axis(layers[0], stacked)
    if axis is None or not isinstance(sharding, NamedSharding):
        return _WHOLE
    shape, spec = shapes[layers[0]], spec_entries(sharding.spec, len(shapes[layers[0]]))
    spec.insert(axis, None)
    return _Way((*shape[:axis], len(layers), *shape[axis:]), _with_spec(sharding, spec))


def _way_of_layer(path: str, stacked: str, shapes: Mapping[str, Shape], spread: Mapping[str, Sharding]) -> _Way:
    """The sharding to read a layer that is loaded into a stack: that of the stack, if this is not cut between layers."""
    sharding, axis = spread.get(stacked), _stack_axis(path, stacked)
    if axis is None or not isinstance(sharding, NamedSharding):
        return _WHOLE
    shape = shapes[stacked]
    spec = spec_entries(sharding.spec, len(shape))
    # otherwise each device holds some of the layers, which no sharding of a single layer can say
    if spec.pop(axis) is not None:
        return _WHOLE
    return _Way((*shape[:axis], *shape[axis + 1 :]), _with_spec(sharding, spec))


def _with_spec(sharding: NamedSharding, spec: list[Entry]) -> Sharding:
    return NamedSharding(sharding.mesh, PartitionSpec(*spec), memory_kind=sharding.memory_kind)


def _stacks_in(paths: Iterable[str]) -> set[tuple[str, ...]]:
    """Find the stacks that leaves are placed in: the segments before each `:` of a path."""
    stacks: set[tuple[str, ...]] = set()
    for path in paths:
        segments = tuple(path.split("/"))
        stacks.update(segments[:at] for at, segment in enumerate(segments) if segment == STACKED)
    return stacks


def _name_in_stack(path: str, stacks: set[tuple[str, ...]]) -> str:
    """The path of a layer's leaf when the layers are loaded as a stack: blocks/3/w -> blocks/:/w."""
    segments: list[str] = []
    for segment in path.split("/"):
        is_layer = segment.isdecimal() and tuple(segments) in stacks
        segments.append(STACKED if is_layer else segment)
    return "/".join(segments)


def _grouped_by_stack(paths: Iterable[str], stacks: set[tuple[str, ...]]) -> dict[str, list[str]]:
    """Group the paths of single layers by their path in the stack: blocks/:/w -> [blocks/0/w, ...]."""
    layers: defaultdict[str, list[str]] = defaultdict(list)
    for path in paths:
        layers[_name_in_stack(path, stacks)].append(path)
    return layers


def _stack_axis(layer: str, stacked: str) -> int | None:
    """Find the axis of the stack that counts the layers; None if layers and stack differ in more than one axis."""
    names = stacked.split("/")
    differing = [at for at, segment in enumerate(layer.split("/")) if segment != names[at]]
    return names[: differing[0]].count(STACKED) if len(differing) == 1 else None


def blocks_here(sharding: Sharding, shape: Shape) -> list[Ranges]:
    """The blocks that devices of this process hold, each once."""
    indices = sharding.addressable_devices_indices_map(shape).values()
    return list(dict.fromkeys(ranges_of(index or (), shape) for index in indices))


def block_around(blocks: Sequence[Ranges]) -> Ranges:
    """The smallest block that holds all of these."""
    return [range(min(one.start for one in along), max(one.stop for one in along)) for along in zip(*blocks)]


def array_on_devices(
    read_block: Callable[[Block], np.ndarray], shape: Shape, dtype: np.dtype, sharding: Sharding
) -> jax.Array:
    """Make an array on devices, part by part; a block that several devices hold is read once."""
    blocks: dict[tuple[tuple[int, int], ...], np.ndarray] = {}

    # JAX calls this for each device, also for those that hold the same block
    def block(index: Block | None) -> np.ndarray:
        index = index or ()
        bounds = tuple(along.indices(size)[:2] for along, size in zip(index, shape, strict=True))
        if bounds not in blocks:
            blocks[bounds] = read_block(index)
        return blocks[bounds]

    # a process without a device of the sharding reads no block that would say the dtype
    return jax.make_array_from_callback(shape, sharding, block, dtype=dtype)
