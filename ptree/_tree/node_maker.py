"""Make the node of each branch, from the leaves up: of the kind of container that was there, or a Tree; what is unchanged is kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from operator import is_

import jax

from .._errors import StructureError
from .._words import listed, quoted
from .branches import Branch, leaves_of
from .chains import TiesByHome
from .extra_axes import made_stack_axes
from .layout import MISSING, BareTree, Layout, make
from .leaf import PyTree
from .nodes import Key, Node, has_plain_keys, listed_keys, opened, remade, with_items
from .path_keys import Containers
from .tie import Tie


class NodeMaker:
    """Makes the node of each branch: of the kind that `containers` says, a Tree where it says nothing."""

    def __init__(self, containers: Containers, homes: TiesByHome):
        self.containers, self.homes = containers, homes

    def node(self, branch: Branch, path: str, beside: PyTree = MISSING) -> PyTree:
        """Make the node of a branch, `MISSING` where nothing is left of it; a new one is like the dict that it lies in."""
        like = self.containers.get(path, MISSING)
        if like is MISSING and beside is not MISSING:
            like = remade(beside, {}) if isinstance(beside, dict) else {}
        if like is MISSING or isinstance(like, BareTree):
            return self._tree(branch, path, like)
        values = self._values(branch, path, like)
        kept = {name: value for name, value in values.items() if value is not MISSING}
        if values and not kept:
            return MISSING
        if type(like) is dict and has_plain_keys(like):
            return _plain_dict(like, kept)
        return self._container(values, kept, path, like)

    def _values(self, branch: Branch, path: str, beside: PyTree = MISSING) -> dict[str, PyTree]:
        """The values by name in the node of a branch: the nodes of branches in it are made first."""
        prefix = f"{path}/" if path else ""
        values: dict[str, PyTree] = {}
        for name, value in branch.items():
            values[name] = self.node(value, prefix + name, beside) if type(value) is Branch else value
        return values

    def _tree(self, branch: Branch, path: str, before: PyTree) -> PyTree:
        children: dict[str, PyTree] = {}
        for name, child in self._values(branch, path).items():
            if child is not MISSING and type(child) is not Tie:
                children[name] = child
        ties = self.homes.get(path, ())
        if path and branch and not children and not ties:
            return MISSING  # nothing but gaps and aliases of leaves elsewhere: no child at all
        layout = Layout.of(_declared_order(branch, children), children, ties, made_stack_axes(children, path, before))
        ordered = tuple([children[key] for key in layout.keys])
        if before is not MISSING:
            old_children, old_layout = before._node
            if old_layout is layout and all(map(is_, old_children, ordered)):
                return before
        return make(layout, ordered)

    def _container(self, all_values: dict[str, PyTree], kept: dict[str, PyTree], path: str, like: PyTree) -> PyTree:
        inside = opened(like)
        assert inside is not None
        values = kept
        if not inside.is_mapping or isinstance(like, OrderedDict):  # where order is structure, None stands in a gap
            values = {name: kept.get(name) for name in all_values}
        place = f"in {quoted(path)}" if path else "at the root"
        if values.keys() == {*inside.names}:
            new = [values[name] for name in inside.names]
            if not all(map(is_, new, inside.values)):
                return self._rebuilt(like, inside, new, place)
            if [*values] == [*inside.names]:
                return like
        if not inside.is_mapping:
            raise StructureError(f"{place}: a {type(like).__name__} keeps its own names, {listed(inside.names)}")
        return with_items(like, values, place)

    def _rebuilt(self, like: PyTree, inside: Node, values: list[PyTree], place: str) -> PyTree:
        try:
            return inside.rebuild(values)
        except StructureError as error:
            why = error.__cause__
        # some need the nodes that are empty now, as a Partial its tuple of arguments: with None for each leaf
        hollow = [_hollowed(old) if new is None else new for old, new in zip(inside.values, values, strict=True)]
        try:
            return inside.rebuild(hollow)
        except StructureError:
            kind = type(like).__name__
            raise StructureError(f"{place}: a {kind} cannot have None in the place of a child: {why}") from why


def _hollowed(node: PyTree) -> PyTree:
    """The node with None in the place of each leaf."""
    return jax.tree.map(lambda leaf: None, node)


def _plain_dict(like: dict[Key, PyTree], new: dict[str, PyTree]) -> PyTree:
    """A dict with other values: itself where none is new, in its own order where no name is.

    Most containers are such dicts, and the general way through `opened` takes twice the time.
    """
    if new.keys() != like.keys():
        return new
    if any(new[name] is not value for name, value in like.items()):  # pyright: ignore[reportArgumentType]
        return {**like, **new}
    return like if [*new] == [*listed_keys(like)] else new


def _declared_order(branch: Branch, children: Mapping[str, PyTree]) -> list[str]:
    """The names in a branch, and the paths in each branch that becomes no child."""
    order: list[str] = []
    for name, value in branch.items():
        order.append(name)
        if type(value) is Branch and name not in children:
            order += _paths_beside_gaps(value, name)
    return order


def _paths_beside_gaps(branch: Branch, name: str) -> list[str]:
    """The paths in a branch that becomes no node, as it has nothing but aliases and gaps; the order of aliases alone is known."""
    inside = leaves_of(branch, (name,))
    if all(type(leaf) is Tie for _, leaf in inside):
        return []
    return ["/".join(path) for path, _ in inside]
