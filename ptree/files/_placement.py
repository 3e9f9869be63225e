"""Placing loaded leaves on devices: where each goes, how it is read so that a device reads only its own bytes, and moving."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from .._draw import Shardings, placement, shardings_for
from .._edit import leaves, map_leaves
from .._paths import STACKED
from .._tree import Leaf, PyTree
from ._kinds import JaxArray, abstract, is_cut, kind_named, kind_of, refuse_cut
from ._stored_leaf import StoredLeaf

Block: TypeAlias = tuple[slice, ...]
Shape: TypeAlias = tuple[int, ...]
AxisNames: TypeAlias = "str | tuple[str, ...] | None"
"""What a PartitionSpec says of one axis of an array."""


# ------------------------------------------------------------------------------- where leaves go


def targets_by_rules(tree: PyTree, shardings: Shardings, mesh: Mesh | None) -> dict[str, Sharding]:
    """Path -> sharding for each array of the tree that comes out: `like`, or what is loaded of the file.

    Numbers stay numbers, and what is NumPy's or PyTorch's in `like` stays so: these have no sharding.
    """
    shapes = map_leaves(tree, lambda _, leaf: abstract(leaf))
    chosen = shardings_for(shapes, shardings, mesh)
    return {path: chosen[path] for path, leaf in leaves(tree) if _goes_to_devices(leaf)}


def _goes_to_devices(leaf: Leaf) -> bool:
    if isinstance(leaf, StoredLeaf):
        kind = kind_named(leaf.kind)
        return kind is not None and kind.can_be_placed
    kind = kind_of(leaf)
    return kind is None or isinstance(kind, JaxArray)  # a Param and a ShapeDtypeStruct are of no kind


def targets_of_like(like: PyTree) -> dict[str, Sharding]:
    """Path -> sharding for each leaf of `like` that was put somewhere on purpose."""
    found = ((path, placement(leaf)) for path, leaf in leaves(like))
    return {path: sharding for path, sharding in found if sharding is not None}


# ------------------------------------------------------------------------------- how leaves are read


def read_shardings(
    stored: Mapping[str, StoredLeaf], shapes: Mapping[str, Shape], targets: Mapping[str, Sharding]
) -> dict[str, Sharding]:
    """Name of a stored leaf -> how it is read in parts, for leaves that end up spread over devices.

    Where a stack is loaded into single layers, or the other way round, a leaf is read as its layers are placed. Leaves
    for which there is no such way are read whole, and moved afterwards.

    Args:
        stored: by the paths that the leaves have after `rename`.
        shapes: of the leaves of the tree that comes out.
        targets: where these go.
    """
    spread = {path: sharding for path, sharding in targets.items() if not sharding.is_fully_replicated}
    if not spread:
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
        if way.sharding is not None and leaf.shape == way.shape:
            found[leaf.name] = way.sharding
    return found


@dataclass(frozen=True)
class _Way:
    """How a leaf can be read in parts, if it has this shape; `sharding` is None where it cannot."""

    shape: Shape
    sharding: Sharding | None


_WHOLE = _Way((), None)


def _way_of_stack(stacked: str, layers: list[str], shapes: Mapping[str, Shape], spread: Mapping[str, Sharding]) -> _Way:
    """A stack that is loaded into single layers: all layers are placed alike, so the stack is, along its other axes."""
    chosen = {spread.get(layer) for layer in layers}
    sharding = chosen.pop() if len(chosen) == 1 else None
    axis = _stack_axis(layers[0], stacked) if layers else None
    if axis is None or not isinstance(sharding, NamedSharding):
        return _WHOLE
    shape, spec = shapes[layers[0]], _padded(sharding.spec, len(shapes[layers[0]]))
    spec.insert(axis, None)
    return _Way((*shape[:axis], len(layers), *shape[axis:]), _with_spec(sharding, spec))


def _way_of_layer(path: str, stacked: str, shapes: Mapping[str, Shape], spread: Mapping[str, Sharding]) -> _Way:
    """A single layer that is loaded into a stack: it is placed as the stack is, if that is not cut between the layers."""
    sharding, axis = spread.get(stacked), _stack_axis(path, stacked)
    if axis is None or not isinstance(sharding, NamedSharding):
        return _WHOLE
    shape = shapes[stacked]
    spec = _padded(sharding.spec, len(shape))
    if spec.pop(axis) is not None:
        return _WHOLE
    return _Way((*shape[:axis], *shape[axis + 1 :]), _with_spec(sharding, spec))


def _padded(spec: PartitionSpec, axes: int) -> list[AxisNames]:
    return [*spec, *[None] * (axes - len(spec))]


def _with_spec(sharding: NamedSharding, spec: list[AxisNames]) -> Sharding:
    return NamedSharding(sharding.mesh, PartitionSpec(*spec), memory_kind=sharding.memory_kind)


def _stacks_in(paths: Iterable[str]) -> set[tuple[str, ...]]:
    """Where there are stacks: the segments before each `:` of a path."""
    stacks: set[tuple[str, ...]] = set()
    for path in paths:
        segments = tuple(path.split("/"))
        stacks.update(segments[:at] for at, segment in enumerate(segments) if segment == STACKED)
    return stacks


def _name_in_stack(path: str, stacks: set[tuple[str, ...]]) -> str:
    """The name that a leaf of a single layer has where its layers are a stack: blocks/3/w -> blocks/:/w."""
    segments: list[str] = []
    for segment in path.split("/"):
        is_layer = segment.isdecimal() and tuple(segments) in stacks
        segments.append(STACKED if is_layer else segment)
    return "/".join(segments)


def _grouped_by_stack(paths: Iterable[str], stacks: set[tuple[str, ...]]) -> dict[str, list[str]]:
    """Name in a stack -> the paths of the single layers."""
    layers: defaultdict[str, list[str]] = defaultdict(list)
    for path in paths:
        layers[_name_in_stack(path, stacks)].append(path)
    return layers


def _stack_axis(layer: str, stacked: str) -> int | None:
    """Which axis of the stack counts the layers; None where layers and stack differ in more than one axis."""
    names = stacked.split("/")
    differing = [at for at, segment in enumerate(layer.split("/")) if segment != names[at]]
    return names[: differing[0]].count(STACKED) if len(differing) == 1 else None


# ------------------------------------------------------------------------------- placing


def array_on_devices(read_block: Callable[[Block], np.ndarray], shape: Shape, sharding: Sharding) -> jax.Array:
    """The array of blocks that are read once for all devices that hold the same one."""
    blocks: dict[tuple[tuple[int, int], ...], np.ndarray] = {}

    def block(index: Block | None) -> np.ndarray:
        index = index or ()
        bounds = tuple(along.indices(size)[:2] for along, size in zip(index, shape, strict=True))
        if bounds not in blocks:
            blocks[bounds] = read_block(index)
        return blocks[bounds]

    return jax.make_array_from_callback(shape, sharding, block)


def all_placed(values: Mapping[str, Leaf], targets: Mapping[str, Sharding]) -> dict[str, Leaf]:
    """The leaves, each array where its target says, if it has one.

    Raises:
        FileError: NumPy arrays that JAX would cut to 32 bits.
    """
    arrays = {path: leaf for path, leaf in values.items() if path in targets and isinstance(leaf, _ARRAYS)}
    refuse_cut((path, leaf.dtype) for path, leaf in arrays.items() if isinstance(leaf, np.ndarray))
    return {**values, **{path: _moved(leaf, targets[path]) for path, leaf in arrays.items()}}


_ARRAYS = (jax.Array, np.ndarray)


def _moved(array: jax.Array | np.ndarray, sharding: Sharding) -> jax.Array:
    """The array or key where a sharding says, which may be on devices of other processes too."""
    if isinstance(array, jax.Array) and array.sharding == sharding:
        return array
    if sharding.is_fully_addressable:
        return jax.device_put(array, sharding)
    if isinstance(array, jax.Array) and jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        words = _moved(jax.random.key_data(array), sharding)
        return jax.random.wrap_key_data(words, impl=jax.random.key_impl(array))
    return jax.make_array_from_callback(array.shape, sharding, np.asarray(array).__getitem__)
