"""Every name of the leaves of a tree, own path or alias, for drop, untie and lists with aliases."""

from __future__ import annotations

from typing import NamedTuple

from .._errors import TieError
from .._tree import Index, Leaf, PyTree, Tie, entries, is_registered_node, layer_of, leaves, shape_only, structure
from .._words import quoted


class LeafName(NamedTuple):
    """One name of a leaf: its own path, or an alias."""

    name: str
    tie: Tie | None
    path: str
    """The leaf's own path."""
    leaf: Leaf
    """The whole leaf, as it is kept."""
    problem: str = ""
    """Why nothing reads under this name: it is inside of a node that an alias shows through a transform."""

    def seen(self, layers: Index = ()) -> Leaf:
        """The leaf, or single layers of it, as it reads under this name.

        Raises:
            TieError: nothing reads under this name.
        """
        if self.problem:
            raise TieError(self.problem)
        seen = self.leaf if self.tie is None else self.tie.read(self.leaf)
        return layer_of(seen, layers) if layers else seen

    def seen_shape(self) -> Leaf:
        """The same without running a transform on an array: of an alias the shape and dtype."""
        return self.leaf if self.tie is None else self.tie.read(shape_only(self.leaf))


def names_of_leaves(tree: PyTree) -> list[LeafName]:
    """Every leaf under all its names, in declared order."""
    kept = dict(leaves(tree))
    found: list[LeafName] = []
    for path, value in entries(tree).items():
        if type(value) is not Tie:
            if path in kept:
                found.append(LeafName(path, None, path, kept[path]))
        elif value.source in kept:
            found.append(LeafName(path, value, value.source, kept[value.source]))
        else:  # of a container in the place of a leaf: a name for each leaf in it
            inside = [name for name in kept if name.startswith(f"{value.source}/")]
            problem = _problem_inside(tree, path, value)
            found += [
                LeafName(path + name[len(value.source) :], Tie(name), name, kept[name], problem) for name in inside
            ]
    return found


def _problem_inside(tree: PyTree, alias: str, tie: Tie) -> str:
    """Why the leaves inside of what an alias is tied to do not read under the alias; empty where they do."""
    node = structure(tree).containers.get(tie.source)
    if not tie.via or not is_registered_node(node):
        return ""
    kind = type(node).__name__
    return f"{quoted(alias)} is {tie.shown()}, a {kind}: its arrays do not read one by one. Leave aliases out, or read {quoted(alias)}"
