"""Arrays on a mesh with explicit axes: which mesh axes split each of their axes, another placement, and operations that JAX
leaves to its compiler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

from .derived_leaf import DerivedLeaf
from .leaf import Leaf, PyTree
from .specs import Entry, has_explicit_axes, spec_entries


def explicit_mesh() -> AbstractMesh | None:
    """The mesh of `jax.set_mesh`, if some of its axes are explicit."""
    mesh = jax.sharding.get_abstract_mesh()  # 0.3 us
    return mesh if AxisType.Explicit in mesh.axis_types else None


def explicit_sharding(array: Leaf) -> NamedSharding | None:
    """The sharding that an array has by its type: on a mesh with explicit axes; None for all others."""
    if not isinstance(array, jax.Array):
        return None
    sharding = getattr(jax.typeof(array), "sharding", None)
    return sharding if has_explicit_axes(sharding) else None


def entries_of(array: Leaf) -> tuple[Entry, ...]:
    """What splits each axis of an array by its type, an entry for each axis."""
    count = len(getattr(array, "shape", ()))
    sharding = explicit_sharding(array.split_like if isinstance(array, DerivedLeaf) else array)
    return (None,) * count if sharding is None else tuple(spec_entries(sharding.spec, count))


def automatic(function: Callable[..., PyTree], shardings: PyTree, *inputs: PyTree) -> PyTree:
    """Call a function, inside of which JAX's compiler chooses how all is split, and give its results these shardings.

    Operations over explicit axes raise where the sharding of their result is not clear; over the same axes as automatic ones
    they do not.

    Args:
        shardings: PartitionSpecs for the mesh of `jax.set_mesh`, or NamedShardings of one mesh, in the form of the results.
    """
    first = jax.tree.leaves(shardings)[0]
    mesh = first.mesh if isinstance(first, NamedSharding) else jax.sharding.get_abstract_mesh()
    axes = tuple(mesh.explicit_axes)  # those of `jax.shard_map` are manual, and stay so
    leaves, structure = jax.tree.flatten(inputs)
    # Only what JAX holds has a place on the mesh; flags and arrays of NumPy go to the function as they are.
    places = [at for at, leaf in enumerate(leaves) if isinstance(leaf, jax.Array)]

    def run(*arrays: jax.Array) -> PyTree:
        filled = list(leaves)
        for at, array in zip(places, arrays, strict=True):
            filled[at] = array
        return function(*jax.tree.unflatten(structure, filled))

    return jax.sharding.auto_axes(run, axes=axes, out_sharding=shardings)(*[leaves[at] for at in places])


def written(array: jax.Array, index: Any, value: Leaf) -> jax.Array:
    """`array.at[index].set(value)`, with the sharding that the array has."""
    sharding = explicit_sharding(array)
    if sharding is None:
        return array.at[index].set(value)
    return automatic(lambda array, index, value: array.at[index].set(value), sharding, array, index, value)


def like_placed(value: PyTree, like: PyTree) -> PyTree:
    """Arrays with the explicit shardings of others; a tree of another structure or other shapes stays as it is."""
    if jax.tree.structure(value) != jax.tree.structure(like):
        return value
    return jax.tree.map(_placed, value, like)


def _placed(value: Leaf, like: Leaf) -> Leaf:
    sharding = explicit_sharding(like)
    if sharding is None or explicit_sharding(value) in (None, sharding) or value.shape != like.shape:
        return value
    return jax.sharding.reshard(value, sharding)


def with_whole_first_axis(tree: PyTree) -> PyTree:
    """Arrays whose first axis no mesh axis splits, as `jax.lax.scan` takes them: their layers are gathered."""
    return jax.tree.map(_with_whole_first_axis, tree)


def _with_whole_first_axis(array: Leaf) -> Leaf:
    sharding = explicit_sharding(array)
    if sharding is None or not array.ndim or entries_of(array)[0] is None:
        return array
    return jax.sharding.reshard(array, sharding.update(spec=PartitionSpec(None, *entries_of(array)[1:])))
