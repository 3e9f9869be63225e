"""Split paths into the keys of nodes, where keys of foreign mappings may hold slashes; how many segments a new key takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .._errors import PathError
from .._words import quoted
from .layout import MISSING
from .leaf import PyTree
from .nodes import has_slashes, levels_below

Containers = Mapping[str, PyTree]
"""Path -> the node whose kind, and declared order, the new node there gets; kept itself where nothing in it is new."""


class KeySplitter:
    """Splits paths into the keys of nodes: segments, but for foreign mappings whose keys hold slashes."""

    def __init__(self, containers: Containers):
        self.containers = containers
        self.slashed: dict[str, PyTree] = {}
        """Path -> foreign mapping with a key that holds a slash."""
        for path, node in containers.items():
            if has_slashes(node):
                self.slashed[path] = node

    def of(self, path: str, value: PyTree = MISSING) -> list[str]:
        """Split the path of an entry with this value."""
        if not self.slashed:
            return path.split("/")
        keys: list[str] = []
        above, rest = "", path.split("/")
        while rest:
            length = self._key_length(above, rest, value) if above in self.slashed else 1
            keys.append("/".join(rest[:length]))
            above, rest = "/".join(keys), rest[length:]
        return keys

    def _key_length(self, above: str, rest: Sequence[str], value: PyTree) -> int:
        """How many segments the next key takes: of a key that is there, of a moved container, or as many as beside it."""
        node = self.slashed[above]
        names = {str(key) for key in node}
        there: list[int] = []
        nodes: list[int] = []
        for length in range(1, len(rest) + 1):
            key = "/".join(rest[:length])
            if key in names:
                there.append(length)
            if (f"{above}/{key}" if above else key) in self.containers:
                nodes.append(length)
        if len(rest) in there:
            return len(rest)
        staying = [length for length in there if length in nodes]
        if staying:
            return staying[-1]
        if nodes:
            return nodes[0]  # those after it lie inside of it
        if there:
            return there[-1]
        return new_key_length(node, rest, value, f"{quoted(above)}: " if above else "")


def new_key_length(node: Mapping[object, PyTree], rest: Sequence[str], value: PyTree, attempt: str) -> int:
    """How many segments a new key takes: among keys that hold `/` as many as leave a path as deep as its neighbours'."""
    slashed = [str(key) for key in node if "/" in str(key)]
    if not slashed:
        return 1
    below, inside = levels_below(node), levels_below(value)
    if below is None or inside is None or below - inside > len(rest):
        raise PathError(
            f"{attempt}keys such as {quoted(slashed[0])} hold '/', and"
            " what is below them is not equally deep, so what the new key should be is not known"
        )
    return len(rest) - max(below - 1 - inside, 0)
