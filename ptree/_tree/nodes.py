"""Open a node of any pytree: its names, keys and children in listing order; rebuild containers and mappings of its kind with
other items.

A Tree, a dict, a list, a tuple, a named tuple, a dataclass, a module of another library: whatever JAX
opens is a node, and JAX's key path gives the names of its children.
"""

from __future__ import annotations

import copy
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import jax
import numpy as np
from jax.tree_util import DictKey, all_leaves, keystr, tree_flatten_with_path

from .._errors import StructureError
from .._paths import DEEPEST, in_order
from .._words import describe, listed, quoted
from .layout import MISSING, BareTree, TiedName, make
from .leaf import PyTree

Key: TypeAlias = object
"""A key of a mapping: in a foreign dict anything that JAX can sort."""


_STRINGS = {str, TiedName}


class Node(NamedTuple):
    """The children of a node in the order in which a person lists them."""

    names: Sequence[str]
    values: Sequence[PyTree]
    rebuild: Callable[[Sequence[PyTree]], PyTree]
    """The same node with other values, in this order."""
    can_change_names: Callable[[], bool] = lambda: False
    """Answers `is_mapping`; a function, as of a mapping of another library it takes a trial to know."""

    @property
    def is_mapping(self) -> bool:
        """Whether the node can take and lose names: a list, a tuple or a dataclass cannot."""
        return self.can_change_names()


LEAF_TYPES: set[type] = {bool, int, float, complex, str, np.ndarray, jax.ShapeDtypeStruct}
"""Types that are leaves for certain; those of arrays and tracers join when they are met."""


def opened(node: PyTree) -> Node | None:
    """The node's children, or None for a leaf."""
    kind = type(node)
    if kind in LEAF_TYPES:
        return None
    if isinstance(node, BareTree):
        return _opened_tree(node)
    if kind is dict:
        return _opened_dict(node)
    if kind is list or kind is tuple:
        return Node([str(at) for at in range(len(node))], node, kind)
    if node is None:
        return Node((), (), lambda _: None)
    if isinstance(node, (np.generic, jax.Array)):
        LEAF_TYPES.add(kind)
        return None
    if all_leaves((node,)):  # not remembered: its type may still be registered with JAX later
        return None
    return _opened_registered(node)


def _opened_tree(tree: BareTree) -> Node:
    children, layout = tree._node

    def rebuild(values: Sequence[PyTree]) -> PyTree:
        ordered: list[PyTree] = [MISSING] * len(children)
        for (_, position), value in zip(layout.listing, values, strict=True):
            ordered[position] = value
        return make(layout, ordered)

    names = [name for name, _ in layout.listing]
    values = [children[position] for _, position in layout.listing]
    return Node(names, values, rebuild, lambda: True)


def has_string_keys(node: dict[Key, PyTree]) -> bool:
    """Whether every key is a string, the common case."""
    return {*map(type, node)} <= _STRINGS


def has_plain_keys(node: Mapping[Key, PyTree]) -> bool:
    """Whether every key is nothing but its name: a string, and not one that knows ties."""
    return {*map(type, node)} <= {str}


def listed_keys(node: dict[Key, PyTree]) -> Sequence[Key]:
    """A dict's keys in the order in which a person lists them."""
    keys = tuple(node)
    return in_order(keys) if has_string_keys(node) else keys  # pyright: ignore[reportArgumentType]


def _opened_dict(node: dict[Key, PyTree]) -> Node:
    keys = listed_keys(node)

    def rebuild(values: Sequence[PyTree]) -> PyTree:
        return {**node, **dict(zip(keys, values, strict=True))}  # in the dict's own order

    return Node([str(key) for key in keys], [node[key] for key in keys], rebuild, lambda: True)


def named_children(node: PyTree) -> Sequence[tuple[str, PyTree]] | None:
    """The children of a container that is no Tree, each with its name; None for a leaf.

    For walks that rebuild nothing: of a dict it takes half the time of `opened`.
    """
    if type(node) is dict:
        return [(str(key), node[key]) for key in listed_keys(node)]
    inside = opened(node)
    return None if inside is None else list(zip(inside.names, inside.values, strict=True))


def has_slashes(node: PyTree) -> bool:
    """Whether a mapping that is no Tree has a key that holds a slash, so that the key is more than one segment."""
    if not isinstance(node, Mapping) or isinstance(node, BareTree):
        return False
    try:
        return "/" in "".join(node)
    except TypeError:  # keys that are no strings
        return any("/" in str(key) for key in node)


def _opened_registered(node: PyTree) -> Node:
    children, structure = tree_flatten_with_path(node, is_leaf=lambda inner: inner is not node)
    names = [keystr(path, simple=True, separator="/") for path, _ in children]
    has_keys = isinstance(node, Mapping) and all(isinstance(path[0], DictKey) for path, _ in children)
    order = _listing_order(node, names) if has_keys else range(len(names))

    def rebuild(values: Sequence[PyTree]) -> PyTree:
        in_jax_order: list[PyTree] = [MISSING] * len(names)
        for position, value in zip(order, values, strict=True):
            in_jax_order[position] = value
        try:
            return structure.unflatten(in_jax_order)
        except Exception as error:
            kind, given = type(node).__name__, listed([describe(value) for value in values])
            raise StructureError(f"a {kind} cannot be made with {given} as its children: {error}") from error

    return Node(
        [names[position] for position in order],
        [children[position][1] for position in order],
        rebuild,
        lambda: has_keys and _is_its_items(node, structure),
    )


def _is_its_items(node: Mapping[Key, PyTree], structure: object) -> bool:
    """Whether a mapping is nothing but its items, so that one with other items can be made of its type.

    A chex dataclass is a mapping whose children are attributes; others keep more than their items.
    """
    if isinstance(node, dict):
        return True
    try:
        again = type(node)(dict.fromkeys(node, 0))  # pyright: ignore[reportCallIssue]
    except Exception:
        return False
    return jax.tree.structure(again) == structure


def _listing_order(node: PyTree, names: Sequence[str]) -> Sequence[int]:
    """Positions of names in the order of a listing: JAX sorts the keys of every mapping but an OrderedDict."""
    position = {name: at for at, name in enumerate(names)}
    if isinstance(node, OrderedDict) or len(position) < len(names):
        return range(len(names))
    return [position[name] for name in in_order(tuple(names))]


# ---------------------------------------------------------------------- mappings with other items


def with_items(node: PyTree, items: Mapping[str, PyTree], what: str) -> PyTree:
    """A mapping of the same kind with other items, by name: a key that was there before is the same object.

    `what` was asked for begins the error for a name that cannot be a key beside the others.
    """
    keys = {str(key): key for key in node}
    staying = [keys[name] for name in items if name in keys]
    renewed: dict[Key, PyTree] = {}
    for name, value in items.items():
        key = keys[name] if name in keys else new_key(staying, name, what)
        renewed[key] = value
    return remade(node, renewed)


def new_key(beside: Sequence[Key], name: str, what: str) -> Key:
    """The key for a new name, of the type of the keys beside it: JAX sorts keys, and cannot sort a mixture."""
    types = {type(key) for key in beside}
    if types <= _STRINGS:
        return name
    if types == {int}:
        if re.fullmatch(r"0|-?[1-9][0-9]{0,4000}", name):
            return int(name)
        raise StructureError(f"{what}: the keys beside {quoted(name)} are whole numbers")
    kinds = ", ".join(sorted(kind.__name__ for kind in types))
    raise StructureError(f"{what}: the keys beside {quoted(name)} are of the type {kinds}")


def own_items(node: PyTree) -> dict[Key, PyTree]:
    """The items of a mapping by its own keys, with the children as JAX sees them: an nnx State gives others than it holds."""
    if isinstance(node, dict):
        return dict(node)
    inside = opened(node)
    assert inside is not None
    values = dict(zip(inside.names, inside.values, strict=True))
    return {key: values[str(key)] for key in node}


def remade(node: PyTree, items: Mapping[Key, PyTree]) -> PyTree:
    """A mapping of the same kind with other items; an OrderedDict or a defaultdict keeps what else it holds."""
    if not isinstance(node, dict):  # a FrozenDict, an nnx State
        return type(node)(items)
    renewed = copy.copy(node)
    renewed.clear()
    renewed.update(items)
    return renewed


# ------------------------------------------------------------------------------ children by name


def names_in(node: PyTree) -> list[str] | None:
    """The names that can be read in a node, those of aliases too; None for a leaf."""
    if isinstance(node, BareTree):
        return node._node[1].names()
    inside = opened(node)
    return None if inside is None else list(inside.names)


def child_named(node: PyTree, name: str) -> PyTree:
    """The child of this name, as it reads through ties; the node must have one."""
    if isinstance(node, BareTree):
        return node[name]  # pyright: ignore[reportIndexIssue]
    inside = opened(node)
    assert inside is not None
    return inside.values[list(inside.names).index(name)]


def leads_on(node: dict[Key, PyTree], segments: Sequence[str]) -> bool:
    """Whether a path goes on in a dict to the key that is its first segment, and cannot go on to another one.

    Another one may be a number, or hold slashes. No key is listed: of 1,000 keys that takes a hundredth of the time.
    """
    key = segments[0]
    if key not in node:
        return False
    if key.isdecimal() and len(key) < 10 and int(key) in node:
        return False
    for segment in segments[1:]:
        key = f"{key}/{segment}"
        if key in node:
            return False
    return True


def with_child(node: PyTree, key: Key, value: PyTree) -> PyTree:
    """A container that is no Tree with another value for one child: by key in a dict, else by its position."""
    if type(node) is dict:
        return {**node, key: value}
    inside = opened(node)
    assert inside is not None
    assert isinstance(key, int)
    values = list(inside.values)
    values[key] = value
    return inside.rebuild(values)


def levels_below(node: PyTree) -> int | None:
    """How many levels of mappings there are below a node, itself counted, if it is the same number everywhere."""
    return _levels_below(node, {}, DEEPEST)


def _levels_below(node: PyTree, seen: dict[int, int | None], most: int) -> int | None:
    if not isinstance(node, Mapping):
        return 0
    if most == 0:
        return None
    inside = opened(node)
    if inside is None:
        return 0
    if id(node) not in seen:  # what is shared is seen once, and a circle ends
        seen[id(node)] = None
        below = {_levels_below(value, seen, most - 1) for value in inside.values}
        levels = below.pop() if len(below) == 1 else None
        seen[id(node)] = None if levels is None else levels + 1
    return seen[id(node)]
