"""Where loaded leaves go: the target sharding of each, by rules or as in `like`; arrays moved there."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import Mesh, Sharding

from .._edit import leaves, map_leaves
from .._shardings import Shardings, placement, put, shardings_for
from .._stored.stored_leaf import StoredLeaf
from .._tree import Leaf, PyTree
from ._kinds import JaxArray, abstract, is_static, kind_named, kind_of, refuse_cut


def targets_by_rules(tree: PyTree, shardings: Shardings, mesh: Mesh | None) -> dict[str, Sharding]:
    """Target sharding for each array of the loaded tree, by rules: path -> sharding.

    Numbers stay numbers, and leaves of `like` that are NumPy's or PyTorch's stay so: these are not placed on devices.
    """
    chosen = shardings_for(shapes_of(tree), shardings, mesh)
    return {path: chosen[path] for path, leaf in leaves(tree) if _goes_to_devices(leaf)}


def shapes_of(tree: PyTree) -> PyTree:
    """The tree with a shape at each leaf; None is no leaf: what is no array, such as a function in a module, has no place on a device."""
    return map_leaves(tree, lambda _, leaf: None if is_static(leaf) else abstract(leaf))


def _goes_to_devices(leaf: Leaf) -> bool:
    if isinstance(leaf, StoredLeaf):
        kind = kind_named(leaf.kind)
        return kind is not None and kind.can_be_placed
    if is_static(leaf):
        return False
    kind = kind_of(leaf)
    return kind is None or isinstance(kind, JaxArray)  # a Param and a ShapeDtypeStruct are of no kind


def targets_of_like(like: PyTree) -> dict[str, Sharding]:
    """Target sharding for each leaf of `like` that was placed on devices on purpose: path -> sharding."""
    shardings = {path: placement(leaf) for path, leaf in leaves(like)}
    return {path: sharding for path, sharding in shardings.items() if sharding is not None}


def all_placed(values: Mapping[str, Leaf], targets: Mapping[str, Sharding]) -> dict[str, Leaf]:
    """Place each array on the devices of its target sharding, if it has one; return all leaves.

    Raises:
        FileError: NumPy arrays that JAX would cut to 32 bits.
    """
    # a number is not an array, whatever its target says
    arrays = {path: leaf for path, leaf in values.items() if path in targets and isinstance(leaf, _ARRAYS)}
    refuse_cut((path, leaf.dtype) for path, leaf in arrays.items() if isinstance(leaf, np.ndarray))
    placed = {path: _moved(leaf, targets[path]) for path, leaf in arrays.items()}
    return {**values, **placed}


_ARRAYS = (jax.Array, np.ndarray)


def _moved(array: jax.Array | np.ndarray, sharding: Sharding) -> jax.Array:
    """Move an array or key to the devices of a sharding, also to those of other processes."""
    if isinstance(array, jax.Array) and array.sharding == sharding:  # read in parts by this sharding already
        return array
    return put(array, sharding)
