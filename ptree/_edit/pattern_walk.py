"""Walk a pattern over a tree: visit its children, layers and nodes of aliases, and collect selected leaves with their layer
paths."""

from __future__ import annotations

from typing import NamedTuple

from .._paths import STACKED, Pattern, State
from .._tree import (
    ALL_LAYERS,
    LEAF_TYPES,
    Aliases,
    BareTree,
    Index,
    Leaf,
    Leaves,
    PyTree,
    Tie,
    check_depth,
    check_no_extra_axes,
    check_source,
    collect_leaves,
    is_stack,
    layer_count,
    layer_of,
    named_children,
    source_of,
    stacked_axes,
    trimmed,
)


class Selected(NamedTuple):
    """A selected leaf, or one layer of a leaf in a stack."""

    own_path: str
    """The leaf's own path, with `:` for layers."""
    leaf: Leaf
    """The whole leaf."""
    layers: Index = ()
    """The layers of stacks that are meant; empty for the whole leaf."""
    alias: str = ""
    """The alias by which the leaf was matched, with `:` for layers; empty where its own path matches."""

    @property
    def path(self) -> str:
        """The leaf's own path, with the number of a single layer; of a leaf outside of stacks an alias in one has that."""
        if len(self.layers) > stacked_axes(self.own_path):
            return layer_path(self.alias, self.layers)
        return layer_path(self.own_path, self.layers) if self.layers else self.own_path

    @property
    def name(self) -> str:
        """The name by which the leaf was matched, with the number of a single layer."""
        if not self.alias or len(self.layers) > stacked_axes(self.alias):
            return self.path
        return layer_path(self.alias, self.layers) if self.layers else self.alias

    def value(self) -> Leaf:
        """The leaf, or its one layer."""
        return layer_of(self.leaf, self.layers) if self.layers else self.leaf


def layer_path(path: str, index: Index) -> str:
    """A leaf's path with the numbers of its layers in the place of `:`."""
    numbers = iter(index)
    segments = path.split("/")
    for position, segment in enumerate(segments):
        if segment == STACKED:
            number = next(numbers, ALL_LAYERS)
            segments[position] = STACKED if isinstance(number, slice) else str(number)
    return "/".join(segments)


class PatternWalk:
    """Collects what a pattern matches; a branch in which nothing can match is not entered."""

    def __init__(self, pattern: Pattern):
        self.pattern = pattern
        self.whole: Leaves = []
        """Whole leaves that match by their own paths, in listing order."""
        self.others: list[Selected] = []
        """Matches that are single layers, or that an alias matched."""

    def visit(self, node: PyTree, prefix: str, state: State, index: Index, alias: str = "") -> None:
        """Collect below a node at which the pattern is in a state; `alias` is the prefix by which it is read here."""
        if state.accepts:
            self._collect(node, prefix, index, alias)
            return
        check_depth(node, prefix)
        if isinstance(node, BareTree):
            self._visit_tree(node, prefix, state, index, alias)
        elif type(node) is dict and state.names is not None and _has_plain_names(node):
            self._visit_keys(node, state.names, prefix, state, index, alias)
        else:
            self._visit_container(node, prefix, state, index, alias)

    def _visit_tree(self, node: BareTree, prefix: str, state: State, index: Index, alias: str) -> None:
        children, layout = node._node
        listing = layout.listing
        if state.names is not None:  # only these can lead on
            listing = [(name, layout.index[name]) for name in state.names if name in layout.index]
        after_names = state.next
        for name, position in listing:
            after = after_names[name] if name in after_names else self.pattern.step(state, name)
            if after is None:
                continue
            child = children[position]
            if type(child) in LEAF_TYPES and not after.accepts:
                continue  # this spares the call for most leaves: a third of the time
            below = (*index, ALL_LAYERS) if name == STACKED else index
            self.visit(child, f"{prefix}{name}/", after, below, alias and f"{alias}{name}/")
        if is_stack(layout.keys):
            self._visit_layers(children[0], prefix, state, index, alias, node)
        if layout.aliases:
            self._visit_aliases(_AliasNode(node, prefix, alias or prefix, layout.aliases), state, index)

    def _visit_keys(
        self, node: dict[str, PyTree], names: list[str], prefix: str, state: State, index: Index, alias: str
    ) -> None:
        """Visit the children of a plain dict by the only names that lead on: no other key is looked at."""
        for name in names:
            after = self.pattern.step(state, name) if name in node else None
            if after is not None:
                below = (*index, ALL_LAYERS) if name == STACKED else index
                self.visit(node[name], f"{prefix}{name}/", after, below, alias and f"{alias}{name}/")
        if is_stack([*node]):
            self._visit_layers(node[STACKED], prefix, state, index, alias)

    def _visit_container(self, node: PyTree, prefix: str, state: State, index: Index, alias: str) -> None:
        children = named_children(node)
        if children is None:
            return
        after_names = state.next
        for name, child in children:
            after = after_names[name] if name in after_names else self._after_name(state, name)
            if after is None or (type(child) in LEAF_TYPES and not after.accepts):
                continue  # as in `_visit_tree`
            below = (*index, ALL_LAYERS) if name == STACKED else index
            self.visit(child, f"{prefix}{name}/", after, below, alias and f"{alias}{name}/")
        if is_stack([name for name, _ in children[:2]]):
            self._visit_layers(children[0][1], prefix, state, index, alias)

    def _after_name(self, state: State, name: str) -> State | None:
        """The state after a name, which holds slashes in some foreign dicts; None where nothing below can match."""
        after: State | None = state
        for segment in name.split("/"):
            if after is None or after.accepts:
                break
            after = self.pattern.step(after, segment)
        return after

    def _visit_layers(
        self, child: PyTree, prefix: str, state: State, index: Index, alias: str, stack: BareTree | None = None
    ) -> None:
        """Visit the single layers of a stack that the pattern names by number."""
        count = layer_count(child, len(index))
        numbers = self.pattern.layers(state, count)
        if numbers and stack is not None:
            check_no_extra_axes(stack, len(index), prefix[:-1])
        for number in numbers:
            after = self.pattern.step_layer(state, number)
            if after is not None:
                below = alias and f"{alias}{STACKED}/"
                self.visit(child, f"{prefix}{STACKED}/", after, (*index, number), below)

    def _visit_aliases(self, node: _AliasNode, state: State, index: Index) -> None:
        for name in node.names:
            after = state if state.accepts else self.pattern.step(state, name)
            if after is not None:
                below = (*index, ALL_LAYERS) if name == STACKED else index
                self._visit_alias(node, name, after, below)
        if not is_stack([*node.names]) or state.accepts:
            return
        count = layer_count(node.sources(), len(index))
        for number in self.pattern.layers(state, count):
            after = self.pattern.step_layer(state, number)
            if after is not None:
                self._visit_alias(node, STACKED, after, (*index, number))

    def _visit_alias(self, node: _AliasNode, name: str, state: State, index: Index) -> None:
        below, path = node.names[name], f"{node.path}{name}/"
        if isinstance(below, Tie):
            source = source_of(node.owner, below)
            if trimmed(index):
                check_source(node.owner, below.source, stacked_axes(node.prefix))
            self.visit(source, f"{node.prefix}{below.source}/", state, index, path)
        else:
            self._visit_aliases(node._replace(path=path, names=below), state, index)

    def _collect(self, node: PyTree, prefix: str, index: Index, alias: str) -> None:
        index = trimmed(index)
        if type(node) in LEAF_TYPES and not index and not alias:
            self.whole.append((prefix[:-1], node))
            return
        if not index and not alias:
            collect_leaves(node, prefix, self.whole)
            return
        found: Leaves = []
        collect_leaves(node, prefix, found)
        for path, leaf in found:
            name = alias[:-1] + path[len(prefix) - 1 :] if alias else ""
            self.others.append(Selected(path, leaf, index, name))


class _AliasNode(NamedTuple):
    """A node of aliases: what one node of a Tree declares below one path."""

    owner: BareTree
    prefix: str
    """The owner's path."""
    path: str
    """The path of this node, as the pattern names it."""
    names: Aliases

    def sources(self) -> list[PyTree]:
        """What the aliases below are tied to."""
        waiting: list[Tie | Aliases] = [self.names]
        found: list[PyTree] = []
        while waiting:
            below = waiting.pop()
            if isinstance(below, Tie):
                found.append(source_of(self.owner, below))
            else:
                waiting += below.values()
        return found


def _has_plain_names(node: dict[object, PyTree]) -> bool:
    """Whether every key is a string without a slash, so that each is one segment."""
    try:
        return "/" not in "".join(node)  # pyright: ignore[reportArgumentType, reportCallIssue]
    except TypeError:
        return False
