"""Collect the structure of a pytree by path: entries (leaf, tie, empty node) and containers; list leaves and aliases; map or
replace leaves; check depth."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import is_
from typing import NamedTuple, TypeVar

from .._errors import PathError
from .._paths import DEEPEST
from .._words import quoted
from .layout import MISSING, Aliases, BareTree, make
from .leaf import Leaf, PyTree
from .nodes import LEAF_TYPES, listed_keys, named_children, opened
from .tie import Tie

T = TypeVar("T")
Leaves = list[tuple[str, Leaf]]

_MAY_BE_TOO_DEEP = 2 * DEEPEST  # a segment takes two characters at least, so a shorter prefix needs no count


def check_depth(node: PyTree, prefix: str) -> None:
    """Raise where a tree goes on below what can be walked: Python's recursion has a limit."""
    if len(prefix) < _MAY_BE_TOO_DEEP or prefix.count("/") < DEEPEST:
        return
    if opened(node) is not None:
        raise PathError(f"the tree has more than {DEEPEST} levels: it goes on below {quoted(prefix[:-1])}")


# --------------------------------------------------------------------------------------- leaves


def leaves(tree: PyTree, prefix: str = "") -> Leaves:
    """Every leaf with its path, in declared order where the tree knows it, else naturally sorted; no aliases."""
    found: Leaves = []
    collect_leaves(tree, prefix, found)
    return found if isinstance(tree, BareTree) else distinct(found)


def distinct(pairs: Leaves) -> Leaves:
    """The pairs, if no two have one path: in a foreign dict the keys 1 and "1", or "a/b" and "a", can clash."""
    if len({path for path, _ in pairs}) == len(pairs):
        return pairs
    seen: set[str] = set()
    for path, _ in pairs:
        if path in seen:
            raise _ambiguous(path)
        seen.add(path)
    return pairs


def _ambiguous(path: str) -> PathError:
    return PathError(
        f"the path {quoted(path)} is ambiguous: two leaves have it. Rename a key that holds '/' or is a number"
    )


def collect_leaves(node: PyTree, prefix: str, found: Leaves) -> bool:
    """Append the leaves below a node; returns whether there is nothing else: no tie, no empty node.

    One list for the whole walk: joining lists of each level takes twice the time.
    """
    if len(prefix) >= _MAY_BE_TOO_DEEP:
        check_depth(node, prefix)
    if isinstance(node, BareTree):
        return _collect_tree_leaves(node, prefix, found)
    pairs = named_children(node)
    if pairs is None:
        found.append((prefix[:-1], node))
        return True
    plain = True
    for name, child in pairs:
        if type(child) in LEAF_TYPES:  # most children: this spares the call, half of the time
            found.append((prefix + name, child))
        else:
            plain = collect_leaves(child, f"{prefix}{name}/", found) and plain
    return plain and bool(pairs)


def _collect_tree_leaves(node: BareTree, prefix: str, found: Leaves) -> bool:
    """`collect_leaves` of a Tree. Without pairs of names and children in between it takes a sixth of the time less."""
    children, layout = node._node
    plain = bool(children) and not layout.ties
    for name, position in layout.listing:
        child = children[position]
        if type(child) in LEAF_TYPES:
            found.append((prefix + name, child))
        else:
            plain = collect_leaves(child, f"{prefix}{name}/", found) and plain
    return plain


# -------------------------------------------------------------------------------------- entries


class Structure(NamedTuple):
    """The structure of a tree by path, entries and containers: edits change it, and `assemble` makes a tree of it."""

    entries: dict[str, PyTree]
    """Path -> leaf, `Tie` (whose source is a path from the root), node without children, `MISSING` for a gap."""
    containers: dict[str, PyTree]
    """Path -> node, for every node that has children."""


def entries(tree: PyTree) -> dict[str, PyTree]:
    """Path -> leaf, `Tie` at each alias, or node without children; in declared order.

    Raises:
        PathError: two leaves of a plain tree have one path, or it has more than 256 levels.
    """
    plain: dict[str, PyTree] = {}
    if isinstance(tree, BareTree) and _collect_arrays(tree, "", plain):
        return plain
    found: Leaves = []
    if collect_leaves(tree, "", found):  # nothing but leaves: a third of the time of the walk below
        return dict(distinct(found))
    return {path: value for path, value in structure(tree).entries.items() if value is not MISSING}


def _collect_arrays(node: BareTree, prefix: str, found: dict[str, PyTree]) -> bool:
    """Enter the leaves of a Tree that has nothing but Trees and arrays in it; returns whether it has.

    The fast path of `entries` for parameters: it takes a quarter of the time less than a list of pairs.
    """
    children, layout = node._node
    if layout.ties or not children or len(prefix) >= _MAY_BE_TOO_DEEP:
        return False
    for name, position in layout.listing:
        child = children[position]
        if type(child) in LEAF_TYPES:
            found[prefix + name] = child
        elif not isinstance(child, BareTree) or not _collect_arrays(child, f"{prefix}{name}/", found):
            return False
    return True


def structure(tree: PyTree) -> Structure:
    """All of a tree by path: entries, the gaps that `partition` left included, and containers."""
    walk = _StructureWalk()
    walk.visit(tree, "", ())
    return Structure(walk.entries, walk.containers)


class _SharedInside(NamedTuple):
    """Aliases, or gaps in the declared order, that a node above declares inside of this one."""

    prefix: str | None
    """Of the node that declares aliases; None for gaps."""
    aliases: Aliases


class _StructureWalk:
    """Collects entries in declared order. A node all of whose leaves are aliases has a place, but is no child."""

    def __init__(self) -> None:
        self.entries: dict[str, PyTree] = {}
        self.containers: dict[str, PyTree] = {}

    def visit(self, node: PyTree, prefix: str, shared: Sequence[_SharedInside]) -> None:
        if len(prefix) >= _MAY_BE_TOO_DEEP:
            check_depth(node, prefix)
        if shared:
            self._visit_tree(node, prefix, shared)
        elif not isinstance(node, BareTree):
            self._visit_container(node, prefix)
        elif node._node[1].aliases or node._node[1].gaps:
            self._visit_tree(node, prefix, shared)
        else:
            self._visit_plain_tree(node, prefix)

    def _visit_container(self, node: PyTree, prefix: str) -> None:
        pairs = named_children(node)
        if pairs is None or (prefix and not pairs):
            self._add(prefix[:-1], node)
            return
        self._enter(node, prefix)
        for name, child in pairs:
            if type(child) in LEAF_TYPES:
                self._add(prefix + name, child)
            else:
                self.visit(child, f"{prefix}{name}/", ())

    def _visit_plain_tree(self, node: BareTree, prefix: str) -> None:
        """Visit a Tree without ties: it takes a third of the time of one in which aliases may be anywhere."""
        children, layout = node._node
        if prefix and not children:
            self._add(prefix[:-1], node)
            return
        self._enter(node, prefix)
        for name in layout.order:
            position = layout.index.get(name)
            child = MISSING if position is None else children[position]
            if child is MISSING or type(child) in LEAF_TYPES:
                self._add(prefix + name, child)
            else:
                self.visit(child, f"{prefix}{name}/", ())

    def _add(self, path: str, value: PyTree) -> None:
        if path in self.entries:
            raise _ambiguous(path)
        self.entries[path] = value

    def _enter(self, node: PyTree, prefix: str) -> None:
        path = prefix[:-1]
        if path in self.containers:
            raise PathError(f"the path {quoted(path)} is ambiguous: two nodes have it. Rename a key that holds '/'")
        self.containers[path] = node

    def _visit_tree(self, node: PyTree, prefix: str, shared: Sequence[_SharedInside]) -> None:
        children: dict[str, PyTree] = {}
        names: dict[str, None] = {}
        if isinstance(node, BareTree):
            values, layout = node._node
            if prefix and not shared and not layout.names():  # empty, or with gaps alone
                self._add(prefix[:-1], node)
                return
            children = dict(zip(layout.keys, values, strict=True))
            names = dict.fromkeys(name for name in layout.order if "/" not in name)
            names.update(dict.fromkeys(layout.gaps))
            shared = [*shared, _SharedInside(None, layout.gaps), _SharedInside(prefix, layout.aliases)]
            self._enter(node, prefix)
        gaps_first = sorted(shared, key=lambda inside: inside.prefix is not None)  # they know the order of aliases too
        for inside in gaps_first:
            names.update(dict.fromkeys(inside.aliases))
        for name in names:
            self._visit_name(children.get(name, MISSING), f"{prefix}{name}/", name, shared)

    def _visit_name(self, child: PyTree, prefix: str, name: str, shared: Sequence[_SharedInside]) -> None:
        below: list[_SharedInside] = []
        for inside in shared:
            hit = inside.aliases.get(name)
            if isinstance(hit, Tie) and inside.prefix is not None:
                self._add(prefix[:-1], Tie(inside.prefix + hit.source, hit.via))
                return
            if isinstance(hit, dict):
                below.append(_SharedInside(inside.prefix, hit))
        if below and child is not MISSING and not isinstance(child, BareTree):
            below = []  # another value in the place of the node, as in a prefix tree: no alias is in it
        if not below and (child is MISSING or type(child) in LEAF_TYPES):
            self._add(prefix[:-1], child)
        else:
            self.visit(child, prefix, below)


def aliases(tree: PyTree) -> dict[str, Tie]:
    """Each alias and its source, as paths from the root of the tree."""
    if not _has_ties(tree, ""):  # a third of the time of listing all entries
        return {}
    return {path: value for path, value in structure(tree).entries.items() if type(value) is Tie}


def _has_ties(node: PyTree, prefix: str) -> bool:
    if len(prefix) >= _MAY_BE_TOO_DEEP:
        check_depth(node, prefix)
    if isinstance(node, BareTree):
        children, layout = node._node
        if layout.ties:
            return True
        pairs = zip(layout.keys, children, strict=True)
    else:
        pairs = named_children(node) or ()
    return any(type(child) not in LEAF_TYPES and _has_ties(child, f"{prefix}{name}/") for name, child in pairs)


# ------------------------------------------------------------------------------- other leaves


def replace_leaves(tree: T, new: Mapping[str, Leaf]) -> T:
    """The tree with other leaves at these paths, unchecked; containers and ties stay."""
    return map_leaves(tree, lambda path, leaf: new.get(path, leaf))


def with_leaves(tree: T, values: Iterable[Leaf]) -> T:
    """The tree with other leaves, in the order of `leaves`; containers and ties stay.

    Without paths it takes less than half the time of `map_leaves`.
    """
    return _filled(tree, iter(values))


def _filled(node: PyTree, values: Iterator[Leaf]) -> PyTree:
    if isinstance(node, BareTree):
        children, layout = node._node
        filled: list[PyTree] = [MISSING] * len(children)
        for _, position in layout.listing:
            child = children[position]
            filled[position] = next(values) if type(child) in LEAF_TYPES else _filled(child, values)
        return make(layout, filled)
    if type(node) is dict:
        renewed = dict(node)  # in its own order
        for key in listed_keys(node):
            renewed[key] = _filled(node[key], values)
        return renewed
    inside = opened(node)
    if inside is None:
        return next(values)
    return inside.rebuild([_filled(child, values) for child in inside.values])


def map_leaves(node: T, function: Callable[[str, Leaf], Leaf], prefix: str = "") -> T:
    """The tree with each leaf replaced by `function(path, leaf)`; a node in which no leaf changes is kept."""
    if len(prefix) >= _MAY_BE_TOO_DEEP:
        check_depth(node, prefix)
    if isinstance(node, BareTree):
        values, layout = node._node
        new = _mapped(zip(layout.keys, values, strict=True), function, prefix)
        return node if all(map(is_, new, values)) else make(layout, new)  # pyright: ignore
    if type(node) is dict:  # in its own order: it takes a third of the time of opening and rebuilding it
        renewed: dict[object, PyTree] = {}
        for key, value in node.items():
            if type(value) in LEAF_TYPES:
                renewed[key] = function(f"{prefix}{key}", value)
            else:
                renewed[key] = map_leaves(value, function, f"{prefix}{key}/")
        return node if all(map(is_, renewed.values(), node.values())) else renewed  # pyright: ignore
    inside = opened(node)
    if inside is None:
        return function(prefix[:-1], node)
    new = _mapped(zip(inside.names, inside.values, strict=True), function, prefix)
    return node if all(map(is_, new, inside.values)) else inside.rebuild(new)  # pyright: ignore


def _mapped(children: Iterable[tuple[str, PyTree]], function: Callable[[str, Leaf], Leaf], prefix: str) -> list[PyTree]:
    new: list[PyTree] = []
    for name, value in children:
        if type(value) in LEAF_TYPES:  # this spares the call
            new.append(function(prefix + name, value))
        else:
            new.append(map_leaves(value, function, f"{prefix}{name}/"))
    return new
