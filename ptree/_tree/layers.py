"""Single layers of a stack by index: which segment numbers a layer, layer counts, one layer of a leaf or of all leaves, a leaf
with another layer.

A stack is a node whose one name is `:`. Its leaves have an axis more in front, one for each stack on the way to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

import jax
import numpy as np
from jax.core import Tracer
from jax.sharding import PartitionSpec

from .._paths import STACKED
from .explicit_axes import automatic, entries_of, explicit_sharding, written
from .leaf import Leaf, PyTree

Index: TypeAlias = tuple[int | slice, ...]
"""Into the axes of the stacks on the way to a leaf, from outside in: a layer, or all layers as `slice(None)`."""

ALL_LAYERS = slice(None)


def is_stack(names: Sequence[str]) -> bool:
    """Whether a node with these names is a stack."""
    return len(names) == 1 and names[0] == STACKED


def is_numbered(names: Sequence[str]) -> bool:
    """Whether these are the names of layers that are not stacked: "0", "1", ..."""
    return bool(names) and {*names} == {str(number) for number in range(len(names))}


def stacked_axes(path: str) -> int:
    """How many stacks there are on a path: how many leading axes of the leaf count layers."""
    return path.split("/").count(STACKED)


def layer_number(segment: str) -> int | None:
    """The layer that a path segment names: ASCII digits without leading zeros; None for any other segment."""
    if not (segment.isascii() and segment.isdecimal()) or len(segment) > 9:
        return None
    if segment[0] == "0" and len(segment) > 1:
        return None
    return int(segment)


def layer_counts(node: PyTree, axis: int) -> set[int]:
    """The sizes of an axis over the leaves below a node: one number, in a stack that is whole."""
    leaves = jax.tree.leaves(node)
    try:
        return {leaf.shape[axis] for leaf in leaves}  # half of the time of the way below
    except (AttributeError, IndexError):  # labels, and leaves with fewer axes
        shapes = [getattr(leaf, "shape", ()) for leaf in leaves]
        return {shape[axis] for shape in shapes if len(shape) > axis}


def layer_count(node: PyTree, axis: int) -> int | None:
    """How many layers all leaves with this axis have; None where none has it, as in a mask: then any number reads."""
    return min(layer_counts(node, axis), default=None)


def trimmed(index: Sequence[int | slice]) -> Index:
    """An index without the stacks at its end of which all layers are taken."""
    end = len(index)
    while end and isinstance(index[end - 1], slice):
        end -= 1
    return tuple(index[:end])


def has_layer(node: PyTree, index: Index) -> bool:
    """Whether all leaves below a node have the layers of an index."""
    for axis, at in enumerate(index):
        if not isinstance(at, slice) and any(size <= at for size in layer_counts(node, axis)):
            return False
    return True


def layers_of(node: PyTree, index: Index) -> PyTree:
    """The node with one layer of each leaf."""
    return jax.tree.map(lambda leaf: layer_of(leaf, index), node)


def layer_of(leaf: Leaf, index: Index) -> Leaf:
    """One layer of a stacked leaf; a leaf without these axes, such as a label, is the same in all layers."""
    shape = getattr(leaf, "shape", None)
    if shape is None or len(shape) < len(index):
        return leaf
    if hasattr(leaf, "__array__"):
        return _layer_of_array(leaf, index)
    kept = [size for size, at in zip(shape, index, strict=False) if isinstance(at, slice)]
    rest = (*kept, *shape[len(index) :])
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(rest, leaf.dtype)
    return replace(leaf, shape=rest)  # a Param


def _layer_of_array(array: Leaf, index: Index) -> Leaf:
    sharding = explicit_sharding(array)
    if sharding is not None and any(entries_of(array)[: len(index)]):
        kept = [entry for entry, at in zip(entries_of(array), index) if isinstance(at, slice)]
        of_layer = sharding.update(spec=PartitionSpec(*kept, *entries_of(array)[len(index) :]))
        return automatic(lambda array: _layer_of_array(array, index), of_layer, array)
    first = index[0]
    if len(index) > 1 or isinstance(first, slice) or not isinstance(array, jax.Array):
        return array[index]
    if isinstance(array, Tracer):
        return jax.lax.index_in_dim(array, first, keepdims=False)
    # indexing an array by a Python number compiles a program for each number, this one for all
    return jax.lax.dynamic_index_in_dim(array, first, keepdims=False)


def with_layer(leaf: Leaf, index: Index, value: Leaf) -> Leaf:
    """A stacked leaf with another value for one layer; a leaf that is no array stays."""
    if isinstance(leaf, jax.Array):
        return written(leaf, index, value)
    if isinstance(leaf, np.ndarray):
        leaf = leaf.copy()
        leaf[index] = value
    return leaf
