"""The devices that the leaves of a tree are on: where one goes that was put nowhere, the mesh of all, whether one is on several."""

from __future__ import annotations

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from .._tree import Leaf, PyTree, leaves


def is_on_several(sharding: Sharding) -> bool:
    """Whether an array with this sharding is on several devices."""
    return len(sharding.device_set) > 1


def is_spread(leaf: Leaf) -> bool:
    """Whether it is an array on several devices."""
    return isinstance(leaf, jax.Array) and is_on_several(leaf.sharding)


def home_of(tree: PyTree) -> Sharding | None:
    """Where a leaf goes that was put nowhere: on every device of the first leaf on a mesh of several, else of the first one that was put
    somewhere.

    None if that is a sharding of another kind over several devices.

    Args:
        tree: arrays, or shapes with a sharding; other leaves do not count.
    """
    placed = [leaf for _, leaf in leaves(tree) if _has_sharding(leaf)]
    for leaf in placed:
        if is_on_several(leaf.sharding) and isinstance(leaf.sharding, NamedSharding):
            return NamedSharding(leaf.sharding.mesh, PartitionSpec())
    if not placed:
        return None
    first = next((leaf for leaf in placed if _is_committed(leaf)), placed[0]).sharding
    if isinstance(first, NamedSharding):
        return NamedSharding(first.mesh, PartitionSpec())
    return None if is_on_several(first) else SingleDeviceSharding(*first.device_set)


def _has_sharding(leaf: Leaf) -> bool:
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return leaf.sharding is not None
    return isinstance(leaf, jax.Array)


def _is_committed(leaf: Leaf) -> bool:
    return isinstance(leaf, jax.ShapeDtypeStruct) or leaf.committed


def mesh_of(tree: PyTree) -> Mesh | None:
    """The mesh that the leaves of a tree are on; None if they are on none."""
    home = home_of(tree)
    if isinstance(home, NamedSharding) and isinstance(home.mesh, Mesh):
        return home.mesh
    return None
