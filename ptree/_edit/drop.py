"""Drop the selected leaves from a tree, and nodes that this leaves empty: fixed containers (lists, tuples, dataclasses) keep
all children or go."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TypeVar

from .._errors import StructureError
from .._tree import MISSING, BareTree, Node, PyTree, Structure, Tie, assemble, emptied, opened, structure
from .._words import listed
from .heirs import nodes_above, with_heirs
from .leaf_names import names_of_leaves
from .selectors import Selector, choose_names

T = TypeVar("T")


def drop(tree: T, selector: Selector) -> T:
    """A tree without the selected leaves, and without the nodes that this leaves empty.

    >>> from ptree import Tree
    >>> drop(Tree({"enc": {"kernel": 1, "bias": 2}, "head/bias": 3}), "**/bias")
    Tree(
      enc/kernel  1
    )

    In `drop` each name counts by itself: dropping an alias removes the tie, and dropping a source hands
    the leaf to its first alias that stays. A mask drops its leaves under all their names.

    Args:
        tree: any pytree.
        selector: which leaves: a pattern, a regex, a predicate, a mask, or a sequence of these.

    Raises:
        PatternError: the selector is malformed, or a part of it matches nothing.
        PathError: two leaves of a plain tree have one path, or it has more than 256 levels.
        StructureError: a container that cannot lose a child (a list, a tuple, a dataclass).
    """
    names = names_of_leaves(tree)
    gone = {*choose_names(tree, selector, names)}
    if not gone:
        return tree
    if gone == {""}:
        return emptied(tree)
    before = structure(tree)
    after = {path: value for path, value in before.entries.items() if not _is_gone(path, value, before, gone)}
    after = _with_all_children(before, after)
    if not after:
        return emptied(tree)
    return assemble(with_heirs(before, after), before.containers)


def _is_gone(path: str, value: PyTree, before: Structure, gone: Collection[str]) -> bool:
    if path in gone:
        return True
    if type(value) is not Tie or value.source not in before.containers:
        return False
    # an alias of a container goes with the names of all leaves in it
    inside = [name for name in before.entries if name.startswith(f"{value.source}/")]
    return all(path + name[len(value.source) :] in gone for name in inside)


def _with_all_children(before: Structure, after: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """Complete the entries so that each list, tuple or dataclass keeps all its children, or goes as a whole.

    A mapping in it that lost all its leaves stays as an empty one. It goes if no leaf is left in it, from a mapping.
    """
    fixed = _fixed_containers(before)
    if not fixed:
        return dict(after)
    going = _emptied_containers(before, after, fixed)
    found = {path: value for path, value in after.items() if not _is_in(path, going)}
    nodes = nodes_above(path for path, value in found.items() if value is not MISSING)
    for path, inside in fixed.items():
        if path in going or _is_in(path, going):
            continue
        children = [f"{path}/{name}" if path else name for name in inside.names]
        gone = [child for child in children if found.get(child, MISSING) is MISSING and child not in nodes]
        lost = [child for child in gone if child in fixed or child not in before.containers]
        if lost:
            kind = type(before.containers[path]).__name__
            raise StructureError(
                f"cannot drop {listed(lost)}: a {kind} cannot lose a child. ptree.partition leaves None in its place"
            )
        found.update({child: emptied(before.containers[child]) for child in gone})
    return found


def _fixed_containers(before: Structure) -> dict[str, Node]:
    """The containers that keep their names, opened: lists, tuples, dataclasses."""
    fixed: dict[str, Node] = {}
    for path, node in before.containers.items():
        if isinstance(node, dict | BareTree):  # most are
            continue
        inside = opened(node)
        assert inside is not None
        if not inside.is_mapping:
            fixed[path] = inside
    return fixed


def _emptied_containers(before: Structure, after: Mapping[str, PyTree], fixed: Collection[str]) -> set[str]:
    """Which of these containers lie in a mapping and lost their last leaf; what is left in them is empty nodes."""
    touched = nodes_above(path for path in before.entries if path not in after)
    full = nodes_above(path for path, value in after.items() if type(value) is Tie or not _is_no_leaf(value))
    going: set[str] = set()
    for path in fixed:
        if path in touched and path not in full and _container_above(path, before) not in fixed:
            going.add(path)
    return going


def _is_no_leaf(value: PyTree) -> bool:
    """Whether an entry is no leaf: a gap, None, or another node without children."""
    return value is MISSING or opened(value) is not None


def _container_above(path: str, before: Structure) -> str:
    above = path.rpartition("/")[0]
    while above not in before.containers:
        above = above.rpartition("/")[0]
    return above


def _is_in(path: str, nodes: Collection[str]) -> bool:
    """Whether a path lies in any of these nodes."""
    return bool(nodes) and not nodes_above([path]).isdisjoint(nodes)
