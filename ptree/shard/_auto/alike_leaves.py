"""Leaves of layers that differ by their number alone: one of them stands for all, so that 100,000 leaves take under a second."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import NamedTuple

from .layer_roles import Shape, separator_in
from .leaf_splits import Split


class AlikeLeaves(NamedTuple):
    """Leaves whose paths differ by numbers alone, and which are split alike."""

    paths: list[str]
    split: Split
    size: int
    """How many numbers one layer of one of them has."""

    @property
    def path(self) -> str:
        """That of the first one."""
        return self.paths[0]


def alike_paths(shapes: Mapping[str, Shape]) -> dict[str, list[str]]:
    """Put together the paths of leaves that are split alike, as they are in equal layers: the first path -> all of them.

    >>> alike_paths({"blocks/0/up/w": (4, 8), "blocks/1/up/w": (4, 8), "blocks/2/up/w": (4, 9), "0/w": (2,)})
    {'blocks/0/up/w': ['blocks/0/up/w', 'blocks/1/up/w'], 'blocks/2/up/w': ['blocks/2/up/w'], '0/w': ['0/w']}

    The role of a layer comes from its neighbours, so the numbered nodes that are compared have no leaves of their own: such a node may
    itself be a layer, with neighbours outside of it.
    """
    with_own_leaves = {node for node in {_node_of(path) for path in shapes} if node and _is_numbered(node)}
    alike: dict[str, list[str]] = {}
    contents: dict[str, list[tuple[str, Shape]]] = {}
    for path, shape in shapes.items():
        node = _numbered_node(path, with_own_leaves)
        if node:
            contents.setdefault(node, []).append((path[len(node) :], shape))
        else:
            alike[path] = [path]
    first_of: dict[object, str] = {}
    for node, content in contents.items():
        first = first_of.setdefault((_NUMBER[node[-1]].sub("0", node), tuple(content)), node)
        for below, _ in content:
            alike.setdefault(first + below, []).append(node + below)
    return {path: alike[path] for path in shapes if path in alike}


_NUMBER = {"/": re.compile(r"(?<![^/])\d+(?=/)"), ".": re.compile(r"(?<![^.])\d+(?=\.)")}
_NUMBERED_NODE = {
    "/": re.compile(r".*(?<![^/])\d+/(?=.)", re.DOTALL),
    ".": re.compile(r".*(?<![^.])\d+\.(?=.)", re.DOTALL),
}
"""By separator: from the start of a path the innermost numbered node that it is in."""


def _node_of(path: str) -> str:
    """The node that a leaf is directly in, with its separator: `blocks/0/` for `blocks/0/w`."""
    return path[: path.rfind(separator_in(path)) + 1]


def _is_numbered(node: str) -> bool:
    return node[:-1].rpartition(node[-1])[2].isdecimal()


def _numbered_node(path: str, with_own_leaves: Collection[str]) -> str:
    """The innermost numbered node without leaves of its own that a leaf is in, with its separator; empty if it is in none."""
    innermost = _NUMBERED_NODE[separator_in(path)]
    found = innermost.match(path)
    while found is not None and found[0] in with_own_leaves:
        found = innermost.match(found[0][:-1])
    return "" if found is None else found[0]
