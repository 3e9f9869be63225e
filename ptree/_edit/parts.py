"""Parts of a tree: select leaves under their own paths, or partition into two trees, the selected leaves and the rest."""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeVar

from .._tree import MISSING, BareTree, PyTree, Structure, Tie, assemble, emptied, structure
from .heirs import nodes_above
from .selectors import Selector, choose

T = TypeVar("T")


def select(tree: T, selector: Selector) -> T:
    """A tree of the selected leaves only, under their own paths.

    >>> from ptree import Tree
    >>> select(Tree({"enc": {"kernel": 1, "bias": 2}, "head/bias": 3}), "**/bias")
    Tree(
      enc/bias   2
      head/bias  3
    )

    Aliases come along with their source. Where a container cannot lose a child, None stands in its place. A mask, a tree of
    bools with the same paths as optax takes it, selects the leaves at which it is True:

    >>> select({"kernel": 1, "bias": 2}, {"kernel": True, "bias": False})
    {'kernel': 1}

    Args:
        tree: any pytree.
        selector: which leaves: a pattern, a regex, a predicate, a mask, or a sequence of these.

    Raises:
        PatternError: the selector is malformed, a part of it matches nothing, or it names single layers of a stack.
        PathError: two leaves of a plain tree have one path, or it has more than 256 levels.
    """
    chosen = {path for path, _ in choose(tree, selector)}
    return _part(tree, structure(tree), chosen)


def partition(tree: T, selector: Selector) -> tuple[T, T]:
    """Two trees: the selected leaves, and the rest. `merge` puts them together again.

    >>> from ptree import Tree
    >>> head, body = partition(Tree({"enc": {"kernel": 1}, "head": {"kernel": 2}}), "head")
    >>> head["head/kernel"], body["enc/kernel"]
    (2, 1)

    Nodes that were empty before stay in the rest.

    Args:
        tree: any pytree.
        selector: which leaves the first tree has: a pattern, a regex, a predicate, a mask, or a sequence of these.

    Raises:
        PatternError: the selector is malformed, a part of it matches nothing, or it names single layers of a stack.
        PathError: two leaves of a plain tree have one path, or it has more than 256 levels.
    """
    chosen = {path for path, _ in choose(tree, selector)}
    whole = structure(tree)
    rest: set[str] = set()
    for path, value in whole.entries.items():
        if path not in chosen and type(value) is not Tie:
            rest.add(path)
    return _part(tree, whole, chosen), _part(tree, whole, rest)


def _part(tree: PyTree, whole: Structure, chosen: Collection[str]) -> PyTree:
    """The tree with the chosen entries; the others leave gaps, so that `merge` keeps the declared order."""
    nodes = nodes_above(chosen)
    found: dict[str, PyTree] = {}
    for path, value in whole.entries.items():
        if type(value) is Tie:
            is_chosen = value.source in chosen or value.source in nodes
        else:
            is_chosen = path in chosen
        found[path] = value if is_chosen else MISSING
    if all(value is MISSING for value in found.values()) and not isinstance(tree, BareTree):
        return emptied(tree) if found else tree
    return assemble(found, whole.containers)
