"""Every name of the leaves of a tree, own path or alias, for drop, untie and lists with aliases."""

from __future__ import annotations

from typing import NamedTuple

from .._tree import Index, Leaf, PyTree, Tie, entries, layer_of, leaves, shape_only


class LeafName(NamedTuple):
    """One name of a leaf: its own path, or an alias."""

    name: str
    tie: Tie | None
    path: str
    """The leaf's own path."""
    leaf: Leaf
    """The whole leaf, as it is kept."""

    def seen(self, layers: Index = ()) -> Leaf:
        """The leaf, or single layers of it, as it reads under this name."""
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
            found += [LeafName(path + name[len(value.source) :], Tie(name), name, kept[name]) for name in inside]
    return found
