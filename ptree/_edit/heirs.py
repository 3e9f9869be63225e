"""Heirs of a source that is gone: its first alias takes over the leaf, and the others tie to that; the nodes above paths."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from .._tree import MISSING, PyTree, Structure, Tie


def with_heirs(before: Structure, after: Mapping[str, PyTree], tied: str | None = None) -> dict[str, PyTree]:
    """The entries in which the first alias of each source that is gone takes over the leaf.

    A path that is `tied` anew takes over nothing: its tie leads to what its source then is.
    """
    found = dict(after)
    heirs: dict[str, tuple[str, Tie]] = {}
    nodes = nodes_above(path for path, value in after.items() if value is not MISSING)
    for alias, tie in after.items():
        if type(tie) is not Tie or alias == tied or _still_there(tie.source, before, after, nodes):
            continue
        if tie.source not in heirs:
            heirs[tie.source] = alias, tie
            found[alias] = tie.read(_kept_before(before, tie.source))
        else:
            heir, first = heirs[tie.source]
            found[alias] = first.back(heir).then(tie.via)
    return found


def _still_there(source: str, before: Structure, after: Mapping[str, PyTree], nodes: Collection[str]) -> bool:
    """Whether a leaf, or the container that was tied as a whole, is still at the source."""
    if source in nodes:
        return source in before.containers
    return after.get(source, MISSING) is not MISSING and type(after[source]) is not Tie


def _kept_before(before: Structure, path: str) -> PyTree:
    return before.containers[path] if path in before.containers else before.entries[path]


def nodes_above(paths: Iterable[str]) -> set[str]:
    """The paths of all nodes that lie above these paths."""
    nodes: set[str] = set()
    for path in paths:
        above = path.rpartition("/")[0]
        while above and above not in nodes:
            nodes.add(above)
            above = above.rpartition("/")[0]
    return nodes
