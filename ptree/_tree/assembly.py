"""Assemble a tree of entries, path -> leaf, tie, gap or empty node: nest them into branches, resolve ties, make the nodes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from .branches import Branch, plant
from .chains import ties_by_home
from .layout import MISSING, BareTree, Layout, make
from .leaf import PyTree
from .node_maker import NodeMaker
from .nodes import opened, remade
from .path_keys import Containers, KeySplitter
from .tie import Tie


def assemble(
    entries: Mapping[str, PyTree], containers: Containers = MappingProxyType({}), *, allowed_ties: int = 0
) -> PyTree:
    """Assemble the tree of entries: path -> leaf, `Tie`, node without children, or `MISSING` for a gap in the declared order.

    Nodes are Trees where `containers` does not say otherwise. Ties of nodes may stand for `allowed_ties` leaves at least.

    Raises:
        StructureError: an entry above another, or a container that cannot have these names.
        TieError: a tie without a source, or in a circle.
    """
    if [*entries] == [""]:
        return entries[""]
    keys = KeySplitter(containers)
    root = Branch()
    last: str | None = None
    branch: Branch | None = None
    for path, value in entries.items():
        above, _, name = path.rpartition("/")
        if branch is not None and above == last and name not in branch:
            # a fast path: beside the last entry, so in the same branch
            branch[name] = value
            continue
        branch = plant(root, keys.of(path, value), value, "")
        last = None if keys.slashed else above
    ties = [value for value in entries.values() if type(value) is Tie]
    return grown_tree(root, containers, keys, has_ties=bool(ties), allowed_ties=allowed_ties)


def grown_tree(
    root: Branch, containers: Containers, keys: KeySplitter, *, has_ties: bool, allowed_ties: int = 0
) -> PyTree:
    """Assemble the tree of a branch: resolve its ties, if it `has_ties`, and make its nodes."""
    homes = ties_by_home(root, containers, keys, allowed_ties) if has_ties else {}
    tree = NodeMaker(containers, homes).node(root, "")
    if tree is not MISSING:
        return tree
    return emptied(containers.get("", make(Layout.of((), ()), ())))


def emptied(tree: PyTree) -> PyTree:
    """Empty a tree: the same kind of mapping without entries; None for a container that cannot be empty."""
    if isinstance(tree, BareTree):
        return make(Layout.of((), ()), ())
    inside = opened(tree)
    return remade(tree, {}) if inside is not None and inside.is_mapping else None
