"""Branches: nest values by the segments of their paths, in declared order, with gaps; find and set the value at a path."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .._errors import PathError, StructureError
from .._paths import DEEPEST
from .._words import describe, quoted
from .layout import MISSING, BareTree
from .leaf import PyTree
from .nodes import opened
from .tie import Tie


class Branch(dict[str, PyTree]):
    """The names in a node that is being put together, in declared order: branches, leaves, ties, `MISSING` for a gap."""


def plant(root: Branch, segments: Sequence[str], value: PyTree, prefix: str) -> Branch | None:
    """Plant a value into a branch at new segments; raises where another value is. A gap, or an empty node, gives way.

    Returns:
        The branch that the value is in; None for a gap below a leaf, which has no place.
    """
    if prefix.count("/") + len(segments) > DEEPEST:
        raise PathError(f"no path can have more than {DEEPEST} segments; got {quoted(prefix + '/'.join(segments))}")
    *above, name = segments
    node = root
    for depth, segment in enumerate(above):
        below = node.get(segment, MISSING)
        if type(below) is Branch:
            node = below
            continue
        if below is MISSING or is_empty(below):
            node[segment] = node = Branch()
        elif value is MISSING:
            return None
        else:
            raise clash(prefix + "/".join(above[: depth + 1]), below, ", and a node with keys below it")
    there = node.get(name, MISSING)
    if there is MISSING or _is_gap(there):
        node[name] = value
    elif value is not MISSING and not (type(there) is Branch and is_empty(value)):
        raise clash(prefix + "/".join(segments), there, f" and {_kind(value)}")
    return node


def _is_gap(value: PyTree) -> bool:
    """Whether a branch has nothing but gaps in it."""
    if type(value) is not Branch or not value:
        return False
    return all(leaf is MISSING for _, leaf in leaves_of(value))


def is_empty(value: PyTree) -> bool:
    """Whether a value is a node without children, such as None or an empty Tree."""
    if isinstance(value, Branch | Tie):
        return False
    inside = opened(value)
    return inside is not None and not inside.names


def clash(path: str, there: PyTree, new: str) -> StructureError:
    return StructureError(f"two keys land on the path {quoted(path)}: {_kind(there)}{new}")


def _kind(value: PyTree) -> str:
    if isinstance(value, (Branch, BareTree)):
        return "a node"
    return "an alias" if type(value) is Tie else describe(value)


def branch_at(root: Branch, segments: Sequence[str], prefix: str) -> Branch:
    """The branch at these segments, made where it is new."""
    node = root
    if prefix.count("/") + len(segments) > DEEPEST:
        raise PathError(f"no path can have more than {DEEPEST} segments; got {quoted(prefix + '/'.join(segments))}")
    for depth, segment in enumerate(segments):
        below = node.get(segment, MISSING)
        if below is MISSING:
            below = node[segment] = Branch()
        elif type(below) is not Branch:
            raise clash(prefix + "/".join(segments[: depth + 1]), below, ", and a node with keys below it")
        node = below
    return node


Segments = tuple[str, ...]


def everything_below(branch: Branch, above: Segments = ()) -> Iterator[tuple[Segments, PyTree]]:
    """Everything below a branch with its path: each branch, then what is in it."""
    waiting = [((*above, name), value) for name, value in reversed(branch.items())]
    while waiting:
        path, value = waiting.pop()
        yield path, value
        if type(value) is Branch:
            waiting += [((*path, name), inside) for name, inside in reversed(value.items())]


def leaves_of(branch: Branch, above: Segments = ()) -> list[tuple[Segments, PyTree]]:
    """The leaves, ties, gaps and empty branches below a branch."""
    return [(path, value) for path, value in everything_below(branch, above) if type(value) is not Branch or not value]


def ties_in(branch: Branch) -> list[tuple[Segments, Tie]]:
    return [(path, value) for path, value in everything_below(branch) if type(value) is Tie]


def value_at(root: Branch, path: str) -> PyTree:
    """The leaf, the tie or the branch at a path, `MISSING` where there is none."""
    node: PyTree = root
    for segment in path.split("/"):
        node = node.get(segment, MISSING) if type(node) is Branch else MISSING
    return node


def set_at(root: Branch, path: Segments, value: PyTree) -> None:
    for segment in path[:-1]:
        root = root[segment]
    root[path[-1]] = value


def paths_in(branch: Branch) -> list[str]:
    return ["/".join(path) for path, _ in everything_below(branch)]
