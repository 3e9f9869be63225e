"""Where the leaves of a saved state go: a parameter, its slots and its average to the devices of the parameter in `like`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from ..._shardings import home_of
from ..._tree import Leaf, PyTree, Tree, leaves, map_leaves
from .moved_slots import Shape
from .origins import Origin, origins, shape_of


def file_places(file: PyTree, like: PyTree, renames: Mapping[Any, str] | None) -> PyTree:
    """The sharding of each leaf of a saved state, as a tree.

    Args:
        file: the shapes in the file.
        like: the parameters of the model that it is loaded into, or their shapes.
        renames: names of parameters in the file -> those in `like`.
    """
    rest = _place_of_rest(like)
    params = _places_of_params(file["params"], like, renames) if isinstance(file, Tree) and "params" in file else {}

    def place(path: str, leaf: Leaf) -> Sharding:
        segments = path.split("/")
        for start in range(len(segments)):
            found = params.get("/".join(segments[start:]))
            if found is not None:
                return _fitted(*found, shape_of(leaf), rest)
        return rest

    return map_leaves(file, place)


def _place_of_rest(like: PyTree) -> Sharding:
    """The sharding of what belongs to no parameter: whole, where a leaf goes that was put nowhere."""
    home = home_of(like)
    return SingleDeviceSharding(jax.local_devices()[0]) if home is None else home


def _sharding(leaf: Leaf) -> Sharding | None:
    return leaf.sharding if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct) else None


def _places_of_params(
    old: PyTree, like: PyTree, renames: Mapping[Any, str] | None
) -> dict[str, tuple[Shape, Sharding]]:
    """Parameter in the file -> its shape, and where it goes."""
    shapes = {path: shape_of(leaf) for path, leaf in leaves(old)}
    new = dict(leaves(like))
    found: dict[str, tuple[Shape, Sharding]] = {}
    for path, origin in origins(old, like, renames).items():
        sharding = _sharding(new[path])
        if sharding is None:
            continue
        for piece in origin.pieces:
            if not piece.via:
                found[piece.path] = shapes[piece.path], _of_piece(sharding, origin, len(piece.layer))
    return found


def _of_piece(sharding: Sharding, origin: Origin, layer_axes: int) -> Sharding:
    """The sharding of a leaf in the file that becomes a layer of a stack, or whose layers come apart."""
    if not isinstance(sharding, NamedSharding) or (not origin.grid and not layer_axes):
        return sharding
    spec = [None] * layer_axes + [*sharding.spec][len(origin.grid) :]
    return sharding.update(spec=PartitionSpec(*spec))


def _fitted(param_shape: Shape, sharding: Sharding, shape: Shape, rest: Sharding) -> Sharding:
    """The sharding of a parameter for a slot of it, which may have axes more in front; `rest` where that is not possible."""
    extra = len(shape) - len(param_shape)
    if extra < 0 or shape[extra:] != param_shape:
        return rest
    if extra and isinstance(sharding, NamedSharding):
        sharding = sharding.update(spec=PartitionSpec(*[None] * extra, *sharding.spec))
    try:
        sharding.shard_shape(shape)
    except ValueError:  # another size in the file, which the devices do not divide
        return rest
    return sharding
