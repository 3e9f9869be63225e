"""One node of any pytree: its children by name, and the same kind of node with other children.

A Tree, a dict, a list, a tuple, a named tuple, a dataclass, a module of another library: whatever JAX
opens is a node, and JAX's key path gives the names of its children.
"""

from __future__ import annotations

import copy
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.tree_util import all_leaves, keystr, tree_flatten_with_path

from .._errors import StructureError
from .._paths import DEEPEST, in_order
from .._words import quoted
from .tree import MISSING, Tree, find, indexed, make, prune


class Node(NamedTuple):
    """The children of a node in the order in which a person lists them."""

    names: Sequence[str]
    values: Sequence[Any]
    rebuild: Callable[[Sequence[Any]], Any]
    """The same node with other values, in this order."""
    keep: Callable[[Sequence[Any]], Any]
    """The same, without the children whose value is `MISSING`; None stands for them where it is `fixed`."""
    fixed: bool = False
    """Whether the node cannot lose a child: a list, a tuple, a dataclass."""


LEAF_TYPES: set[type] = {bool, int, float, complex, str, np.ndarray, jax.ShapeDtypeStruct}
"""Types that are leaves for certain; those of arrays and tracers join when they are met."""


def opened(node: Any) -> Node | None:
    """The node's children, or None for a leaf."""
    kind = type(node)
    if kind in LEAF_TYPES:
        return None
    if kind is Tree:
        return _tree(node)
    if kind is dict:
        return _dict(node)
    if kind is list or kind is tuple:
        return Node([str(at) for at in range(len(node))], node, kind, lambda values: kind(map(_none, values)), True)
    if node is None:
        return Node((), (), lambda _: None, lambda _: None)
    if isinstance(node, (np.generic, jax.Array)):
        LEAF_TYPES.add(kind)
        return None
    if all_leaves((node,)):  # its type may still be registered with JAX later
        return None
    return _registered(node)


def _none(value: Any) -> Any:
    return None if value is MISSING else value


def _tree(tree: Tree) -> Node:
    layout = tree._layout
    places = [at for _, at in layout.listing]

    def ordered(values: Sequence[Any]) -> list[Any]:
        children: list[Any] = [None] * len(places)
        for at, value in zip(places, values, strict=True):
            children[at] = value
        return children

    return Node(
        [name for name, _ in layout.listing],
        [tree._children[at] for at in places],
        lambda values: make(layout, ordered(values)),
        lambda values: prune(tree, ordered(values)),
    )


def dict_items(node: dict[Any, Any]) -> list[tuple[str, Any]]:
    """A plain dict's items as a person lists them, every key as a string."""
    if {*map(type, node)} == {str}:
        return [(key, node[key]) for key in in_order(tuple(node))]
    return [(str(key), value) for key, value in node.items()]


def _dict(node: dict[Any, Any]) -> Node:
    keys: Sequence[Any] = in_order(tuple(node)) if {*map(type, node)} == {str} else tuple(node)
    return Node(
        [str(key) for key in keys],
        [node[key] for key in keys],
        lambda values: {**node, **dict(zip(keys, values, strict=True))},  # in the dict's own order
        lambda values: {k: v for k, v in zip(keys, values, strict=True) if v is not MISSING},
    )


def _registered(node: Any) -> Node:
    children, structure = tree_flatten_with_path(node, is_leaf=lambda inner: inner is not node)
    names = [keystr(path, simple=True, separator="/") for path, _ in children]
    place = {name: at for at, name in enumerate(names)}
    order: Sequence[int] = range(len(names))
    if isinstance(node, Mapping) and not isinstance(node, OrderedDict) and len(place) == len(names):  # JAX sorts keys
        order = [place[name] for name in in_order(tuple(names))]

    def as_jax(values: Sequence[Any]) -> list[Any]:
        return [value for _, value in sorted(zip(order, values, strict=True), key=itemgetter(0))]

    def keep(values: Sequence[Any]) -> Any:
        values = as_jax(values)
        if isinstance(node, Mapping) and any(value is MISSING for value in values):
            gone = [path[0].key for (path, _), value in zip(children, values, strict=True) if value is MISSING]
            rest = structure.unflatten(values)
            return remade(node, {key: _none(value) for key, value in rest.items() if key not in gone})
        try:
            return structure.unflatten(map(_none, values))
        except Exception as error:
            raise StructureError(
                f"a {type(node).__name__} cannot have None in the place of a child: {error}"
            ) from error

    return Node(
        [names[at] for at in order],
        [children[at][1] for at in order],
        lambda values: structure.unflatten(as_jax(values)),
        keep,
        not isinstance(node, Mapping),
    )


def emptied(tree: Any) -> Any:
    """The same kind of mapping without anything in it; None for a container that cannot be empty."""
    return Tree() if type(tree) is Tree else remade(tree, {}) if isinstance(tree, Mapping) else None


def new_key(node: Mapping[Any, Any], name: str, asked: str, key: Any = MISSING) -> Any:
    """The key for a new name, of the kind of those beside it: JAX sorts keys, and cannot sort a mixture."""
    kinds = {type(key) for key in node}
    if key is not MISSING and (not kinds or type(key) in kinds):
        return key
    if not kinds or kinds == {str}:
        return name
    if kinds == {int}:
        if re.fullmatch(r"0|-?[1-9][0-9]{0,4000}", name):
            return int(name)
        raise StructureError(f"{asked}: the keys beside {quoted(name)} are whole numbers")
    raise StructureError(
        f"{asked}: the keys beside {quoted(name)} are of the type {', '.join(sorted(k.__name__ for k in kinds))}"
    )


def remade(node: Mapping[Any, Any], items: Mapping[Any, Any]) -> Any:
    """A mapping of the same kind with other items; whatever else an OrderedDict or a defaultdict holds, it keeps."""
    if not isinstance(node, dict):  # a FrozenDict, an nnx State
        return type(node)(items)  # pyright: ignore[reportCallIssue]
    new = copy.copy(node)
    new.clear()
    new.update(items)
    return new


def names_in(node: Any) -> list[str] | None:
    """The names that can be read in a node, those of aliases too; None for a leaf."""
    if type(node) is Tree:
        return list(node)
    inside = opened(node)
    return None if inside is None else list(inside.names)


def child_named(node: Any, name: str) -> Any:
    """What has a name in a node that has it."""
    if type(node) is Tree:
        return find(node, [name])
    inside = opened(node)
    assert inside is not None
    return inside.values[list(inside.names).index(name)]


def layer_at(tree: Any, segments: Sequence[str]) -> tuple[list[str], tuple[Any, ...]] | None:
    """`indexed`, in any pytree: the whole stacks that a path is one layer of, and the index; None where it is none."""
    return indexed(tree, segments, names_in, child_named)


def levels_below(node: Any, known: dict[int, int | None] | None = None, most: int = DEEPEST) -> int | None:
    """How many levels of mappings a node stands for, where it is the same number everywhere; otherwise None."""
    if not isinstance(node, Mapping):
        return 0
    known = {} if known is None else known  # so that what is shared is seen once, and a circle ends
    if id(node) not in known:
        known[id(node)] = None
        below = {levels_below(value, known, most - 1) for value in node.values()} if most else {None}
        only = below.pop() if len(below) == 1 else None
        known[id(node)] = None if only is None else only + 1
    return known[id(node)]
