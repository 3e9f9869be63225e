"""Merge trees, the parts of one, with their entries and containers; the inverse of partition; refuse paths in more than one
tree."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from .._errors import PathError, StructureError
from .._paths import natural, split
from .._tree import (
    MISSING,
    BareTree,
    PyTree,
    Structure,
    Tie,
    Tree,
    assemble,
    has_plain_keys,
    has_slashes,
    locate,
    opened,
    own_items,
    remade,
    structure,
    write,
)
from .._words import listed, quoted
from .heirs import nodes_above


def merge(*trees: PyTree) -> PyTree:
    """One tree with the leaves of all; the inverse of `partition`.

    >>> merge(Tree({"enc": {"kernel": 1}}), Tree({"enc": {"bias": 2}, "head/bias": 3}))
    Tree(
      enc/kernel  1
      enc/bias    2
      head/bias   3
    )

    Ties of every tree stay. An empty node, or None, gives way to whatever another tree has there. The keys of
    a plain dict come in the order of the trees.

    Args:
        *trees: pytrees that share no leaf.

    Raises:
        StructureError: a path that is in more than one tree, or containers that do not fit.
        PathError: trees that together have one path twice, or more than 256 levels.
    """
    if not trees:
        raise StructureError("cannot merge: no tree was given")
    filled = [tree for tree in trees if not _has_no_children(tree)]
    if not filled:
        return next((tree for tree in trees if isinstance(tree, BareTree)), trees[-1])
    if len(filled) == 1:
        return filled[0]
    parts = _alike([structure(tree) for tree in filled])
    containers = parts[0].containers
    for part in parts[1:]:
        containers = _merged_containers(containers, part.containers)
    merged = _merged_entries(parts)
    _check_not_twice(merged)
    try:
        return assemble(merged.entries, containers)
    except (PathError, StructureError) as error:
        raise type(error)(f"cannot merge: {error}") from None


# --------------------------------------------------------------------------------------- entries


class _Merged(NamedTuple):
    """The entries of several trees, and the paths that more than one of them has."""

    entries: dict[str, PyTree]
    twice: set[str]


def _merged_entries(parts: Sequence[Structure]) -> _Merged:
    entries: dict[str, PyTree] = {}
    twice: set[str] = set()
    for part in parts:
        for path, value in part.entries.items():
            there = entries.get(path, MISSING)
            if _are_one_tie(there, value):
                continue
            # the first entry of a path gives it its place in the declared order, also a gap
            if path not in entries or _precedence(value) > _precedence(there):
                entries[path] = value
            elif _precedence(value) == _LEAF:
                twice.add(path)
    return _Merged(entries, twice)


def _are_one_tie(a: PyTree, b: PyTree) -> bool:
    return type(a) is Tie and type(b) is Tie and a == b


def _check_not_twice(merged: _Merged) -> None:
    """Raise for paths that are in more than one tree, and for leaves that lie above entries of another tree."""
    entries = merged.entries
    nodes = nodes_above(path for path, value in entries.items() if value is not MISSING)
    above = {path for path, value in entries.items() if path in nodes and _precedence(value) == _LEAF}
    if "" in entries and len(entries) > 1:  # one tree is a single leaf
        above.add("")
    names = sorted(merged.twice | above, key=natural)
    if names:
        raise StructureError(
            f"cannot merge: {listed(names)} {'is' if len(names) == 1 else 'are'} in more than one tree."
            " Drop one side first, or use ptree.set to replace values",
            unexpected=names,
        )


def _has_no_children(tree: PyTree) -> bool:
    """Whether this is a node without children and ties."""
    inside = opened(tree)
    return inside is not None and not inside.names and not (isinstance(tree, BareTree) and len(tree._node[1].names()))


_GAP, _NONE, _EMPTY_NODE, _LEAF = range(4)


def _precedence(value: PyTree) -> int:
    """Choose which of two entries of one path stays in a merge: only two leaves, or ties, exclude each other."""
    if value is MISSING:
        return _GAP
    if value is None:
        return _NONE
    return _EMPTY_NODE if type(value) is not Tie and _has_no_children(value) else _LEAF


# ------------------------------------------------------------------------------------ containers


def _alike(parts: Sequence[Structure]) -> list[Structure]:
    """The parts, in which every mapping is a Tree where another of them has a Tree."""
    tree_paths: set[str] = set()
    for part in parts:
        tree_paths.update(path for path, node in part.containers.items() if isinstance(node, BareTree))
    return [_with_trees_at(part, tree_paths) for part in parts]


def _with_trees_at(part: Structure, paths: Collection[str]) -> Structure:
    """The part with a Tree in the place of each mapping at one of these paths."""
    for path, node in part.containers.items():
        if path in paths and isinstance(node, Mapping) and not isinstance(node, BareTree):
            whole = assemble(part.entries, part.containers)
            place = locate(whole, split(path))
            assert place is not None
            return _with_trees_at(structure(write(place, Tree(place.kept))), paths)
    return part


def _merged_containers(first: Mapping[str, PyTree], second: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """The containers of two trees; those at one path must be of one kind."""
    merged = dict(first)
    for path, node in second.items():
        there = merged.setdefault(path, node)
        if there is node:
            continue
        if isinstance(there, BareTree) or isinstance(node, BareTree):
            if not (isinstance(there, Mapping) and isinstance(node, Mapping)):
                raise _unlike(path, there, node)
            merged[path] = there if isinstance(there, BareTree) else node
            continue
        if type(there) is not type(node):
            raise _unlike(path, there, node)
        if _has_keys_to_know(path, there, node):
            # by name, as 1 and "1" are one; assembly then knows all the keys
            by_name = {str(key): (key, value) for key, value in (*own_items(node).items(), *own_items(there).items())}
            merged[path] = remade(there, dict(by_name.values()))
    return merged


def _has_keys_to_know(path: str, there: PyTree, node: PyTree) -> bool:
    """Whether two containers of one type have keys that their names do not tell, as they hold slashes, know ties or are no strings.

    Raises where they have names of their own that differ.
    """
    if type(there) is not dict:  # most are, and take any name
        left, right = opened(there), opened(node)
        assert left is not None
        assert right is not None
        is_mapping = left.is_mapping
        if not is_mapping and list(left.names) != list(right.names):
            raise _unlike(path, there, node)
        if not is_mapping:
            return False
    if has_slashes(there) or has_slashes(node):
        return True
    return not (has_plain_keys(there) and has_plain_keys(node))


def _unlike(path: str, a: PyTree, b: PyTree) -> StructureError:
    left, right = opened(a), opened(b)
    assert left is not None
    assert right is not None
    return StructureError(
        f"cannot merge at {quoted(path)}: a {type(a).__name__} with {listed(left.names)}"
        f" and a {type(b).__name__} with {listed(right.names)}"
    )
