"""Read any pytree by path: get one leaf or node; items and paths of the selected leaves, in declaration order; count numbers;
flatten to one flat dict."""

from __future__ import annotations

import math

from .._paths import split
from .._tree import (
    NOT_PLAIN,
    Index,
    Leaf,
    PyTree,
    Tie,
    Tree,
    entries,
    locate,
    no_path,
    plain_child,
    read,
    stacked_axes,
)
from .leaf_names import LeafName, names_of_leaves
from .pattern_walk import layer_path
from .selectors import Selector, choose, choose_layers, choose_values


def get(tree: PyTree, path: str | int) -> PyTree:
    """What is at the path: a leaf, or the node with all that is below it.

    >>> get({"enc": [{"kernel": 1}, {"kernel": 2}]}, "enc/1/kernel")
    2

    Through a tie it reads the source's own object; the number of a layer reads one layer of a stack. Nothing else is
    copied. It takes a path, no pattern: `items` reads what a pattern matches.

    Args:
        tree: any pytree.
        path: the names from the root to the leaf or node, joined by `/`; an int is one name.

    Raises:
        PathError: there is no such path; it says where the path stops and what is there.
    """
    segments = split(path)
    value = plain_child(tree, segments)
    if value is not NOT_PLAIN:
        return value
    if type(tree) is Tree:
        return tree[path]  # it keeps nodes that were put together
    place = locate(tree, segments)
    if place is None:
        raise no_path(tree, segments)
    return read(place)


def get_or(tree: PyTree, path: str | int, default: PyTree) -> PyTree:
    """What is at the path, or the default."""
    place = locate(tree, split(path))
    return default if place is None else read(place)


def items(tree: PyTree, selector: Selector | None = None, *, aliases: bool = False) -> list[tuple[str, Leaf]]:
    """The selected leaves with their paths, as a list of pairs in declaration order.

    >>> from ptree import Tree
    >>> params = Tree({"enc": {"kernel": 1, "bias": 2}, "head": {"kernel": 3}})
    >>> items(params, "**/kernel")
    [('enc/kernel', 1), ('head/kernel', 3)]

    A tied leaf is listed once, under its source's path; with `aliases` under its other names as well. A number in the
    place of a stack's `:` selects a single layer.

    Args:
        tree: any pytree.
        selector: which leaves: a pattern, a regex, a predicate, a mask, or a sequence of these; all by default.
        aliases: list a tied leaf under each of its names.

    Raises:
        PatternError: the selector is malformed, or a part of it matches nothing.
        PathError: two leaves of a plain tree have one path, or it has more than 256 levels.
    """
    if not aliases:
        return choose_values(tree, selector)
    return [(path, name.seen(layers)) for path, name, layers in _selected_names(tree, selector)]


def paths(tree: PyTree, selector: Selector | None = None, *, aliases: bool = False) -> list[str]:
    """The paths of the selected leaves, in declaration order.

    >>> from ptree import Tree
    >>> paths(Tree({"layer_1": {"bias": 0}, "layer_0": {"bias": 0}}))
    ['layer_1/bias', 'layer_0/bias']

    The order is not that of `jax.tree.leaves`, which sorts the keys of each node.

    Args:
        tree: any pytree.
        selector: which leaves: a pattern, a regex, a predicate, a mask, or a sequence of these; all by default.
        aliases: list a tied leaf under each of its names.

    Raises:
        PatternError: the selector is malformed, or a part of it matches nothing.
        PathError: two leaves of a plain tree have one path, or it has more than 256 levels.
    """
    if not aliases:
        return [path for path, _ in choose_values(tree, selector)]
    return [path for path, _, _ in _selected_names(tree, selector)]


def _selected_names(tree: PyTree, selector: Selector | None) -> list[tuple[str, LeafName, Index]]:
    """Every name of each selected leaf, or of each single layer: path, name of the whole leaf, layers."""
    names = names_of_leaves(tree)
    if selector is None:
        return [(name.name, name, ()) for name in names]
    chosen: dict[str, list[Index]] = {}
    for one in choose_layers(tree, selector):
        chosen.setdefault(one.own_path, []).append(one.layers)
    found: list[tuple[str, LeafName, Index]] = []
    for name in names:
        for layers in chosen.get(name.path, ()):
            if len(layers) <= stacked_axes(name.name):
                found.append((layer_path(name.name, layers), name, layers))
    return found


def count(tree: PyTree, selector: Selector | None = None) -> int:
    """How many numbers the selected leaves hold; a tied leaf counts once.

    >>> import numpy as np
    >>> from ptree import Tree
    >>> count(Tree({"enc": {"kernel": np.ones((4, 8)), "bias": np.ones(8)}}), "**/kernel")
    32

    A Python number counts as one, and what is no number, such as a text or a function, does not count. Works on specs and
    abstract trees.

    Args:
        tree: any pytree; a spec or an abstract tree too.
        selector: which leaves: a pattern, a regex, a predicate, a mask, or a sequence of these; all by default.

    Raises:
        PatternError: the selector is malformed, or a part of it matches nothing.
        PathError: two leaves of a plain tree have one path, or it has more than 256 levels.
    """
    return sum(_numbers_in(leaf) for _, leaf in choose_values(tree, selector))


def _numbers_in(leaf: Leaf) -> int:
    shape = getattr(leaf, "shape", None)
    if shape is not None:
        return math.prod(shape)
    return 1 if isinstance(leaf, (bool, int, float, complex)) else 0


def flatten(tree: PyTree, selector: Selector | None = None) -> dict[str, PyTree]:
    """The tree as one flat dict, path -> leaf, that `unflatten` turns back.

    >>> from ptree import Tree
    >>> flatten(Tree({"enc": {"kernel": 1, "bias": 2}}))
    {'enc/kernel': 1, 'enc/bias': 2}

    So that nothing is lost, an alias stands in it as a `Tie` and a node without leaves as itself; to JAX
    neither is a leaf. For arrays under every name use `dict(items(tree, aliases=True))`.

    Args:
        tree: any pytree.
        selector: which leaves: a pattern, a regex, a predicate, a mask, or a sequence of these; all by default.

    Raises:
        PatternError: the selector is malformed, or a part of it matches nothing.
        PathError: two leaves of a plain tree have one path, or it has more than 256 levels.
    """
    if selector is None:
        return entries(tree)
    kept = {path for path, _ in choose(tree, selector)}
    found: dict[str, PyTree] = {}
    for path, value in entries(tree).items():
        own_path = value.source if type(value) is Tie else path
        if own_path in kept:
            found[path] = value
    return found
