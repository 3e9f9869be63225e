"""Prefix trees: one value in the place of a whole node, for in_axes of `jax.vmap` and labels of optax; the table path nearest
above each leaf."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import jax
from jax.tree_util import KeyPath, keystr

from .._edit import leaves
from .._errors import PathError, StructureError
from .._paths import split
from .._tree import Leaf, Place, PyTree, aliases, locate, no_path
from .._words import describe, listed, quoted
from .tables import path_or_above

T = TypeVar("T")


def prefix(tree: T, table: Mapping[str, Leaf]) -> T:
    """A tree with one value for all below each path of a table: a prefix of the tree, with its containers and ties.

    >>> import jax.numpy as jnp
    >>> from ptree import tie, transposed
    >>> lm = {"embed": {"table": jnp.ones((5, 3))}, "head": {"kernel": jnp.ones((3, 5)), "bias": jnp.ones(5)}}
    >>> lm = tie(lm, {"head/kernel": transposed("embed/table")})
    >>> axes = prefix(lm, {"embed": None, "head": 0})
    >>> heads = jax.tree.map(lambda axis, node: node if axis is None else jax.tree.map(lambda leaf: jnp.stack([leaf] * 4), node),
    ...                      axes, lm, is_leaf=lambda axis: axis is None)
    >>> jax.vmap(lambda params: params["head"]["kernel"].sum() + params["head"]["bias"], in_axes=(axes,))(heads).shape
    (4, 5)

    JAX takes a prefix only if its nodes are those of the tree, ties included, so that a dict written by hand does not do.
    Of two paths the deeper one wins: in `{"": None, "head": 0}` all but the head has None. A tied leaf goes with its
    source's path, as that is where JAX sees it; a node of aliases alone can have no other value than their sources.
    For a value at every leaf, by pattern, there is `label`.

    Args:
        tree: any pytree.
        table: path -> the value for all leaves at and below it; `""` is the root.

    Raises:
        PathError: a path that is not there, or is one layer of a stack.
        StructureError: no mapping; leaves that no path of the table is at or above; two values for one tied leaf.
    """
    if not isinstance(table, Mapping):
        raise StructureError(f"prefix takes a dict, path -> value; got {describe(table)}")
    values = {"/".join(split(path)): value for path, value in table.items()}
    places = {path: _place(tree, path) for path in values}
    _check_all_covered(tree, values)
    for path in _of_aliases_alone(tree, values):
        _check_value_of_sources(tree, path, values)
    ends = [place.kept for path, place in places.items() if not _has_deeper(path, values)]
    whole = {id(node) for node in ends if node is not None}

    def value_at(keys: KeyPath, node: PyTree) -> PyTree:
        path = keystr(keys, simple=True, separator="/")
        if _has_deeper(path, values):  # the same node as one in the table, at another path
            return jax.tree_util.tree_map_with_path(lambda below, leaf: value_at((*keys, *below), leaf), node)
        return values[_nearest(path, values)]

    return jax.tree_util.tree_map_with_path(value_at, tree, is_leaf=lambda node: id(node) in whole)


def _place(tree: PyTree, path: str) -> Place:
    """The place in the tree that a path of the table leads to."""
    place = locate(tree, split(path))
    if place is None:
        raise no_path(tree, split(path))
    if place.layers:
        raise PathError(f"{quoted(path)} is one layer of {quoted(place.spelt)}: a prefix has one value for all layers")
    return place


def _of_aliases_alone(tree: PyTree, values: Mapping[str, Leaf]) -> list[str]:
    """The paths of the table at which JAX sees nothing: an alias, or a node with nothing but aliases."""
    tied = aliases(tree)
    own_paths = [path for path, _ in leaves(tree)]
    found: list[str] = []
    for path in values:
        has_leaves = any(_is_at_or_above(path, own_path) for own_path in own_paths)
        if not has_leaves and any(_is_at_or_above(path, alias) for alias in tied):
            found.append(path)
    return found


def _check_value_of_sources(tree: PyTree, path: str, values: Mapping[str, Leaf]) -> None:
    """Raise where aliases alone get another value in the table than their source."""
    for alias, tie in aliases(tree).items():
        if not _is_at_or_above(path, alias):
            continue
        value = values[_nearest(tie.source, values)]
        if value is not values[path] and value != values[path]:
            raise StructureError(
                f"the prefix has {quoted(values[path])} at {quoted(path)} and {quoted(value)} at {quoted(tie.source)}, which"
                f" are one leaf: {quoted(alias)} is tied to {quoted(tie.shown())}. Leave {quoted(path)} out"
            )


def _check_all_covered(tree: PyTree, values: Mapping[str, Leaf]) -> None:
    uncovered = [path for path, _ in leaves(tree) if not _nearest(path, values) and "" not in values]
    if uncovered:
        raise StructureError(
            f"the prefix has no value for {listed(uncovered)}. Name them, or give a value for all others at ''",
            missing=uncovered,
        )


def _is_at_or_above(path: str, other: str) -> bool:
    return path in ("", other) or other.startswith(f"{path}/")


def _has_deeper(path: str, values: Mapping[str, Leaf]) -> bool:
    """Whether the table has a path below this one."""
    return any(other != path and _is_at_or_above(path, other) for other in values)


def _nearest(path: str, values: Mapping[str, Leaf]) -> str:
    """The path of the table that is this one or the nearest above it; '' where there is none but the root."""
    return path_or_above(path, values) or ""
