"""Locate the place a path leads to, step by step through nodes, ties and layers; read it with its shared leaves (aliases)
filled in; write it.

Also the error for a path that is not there: where the path stops, and the nearest name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import jax

from .._errors import PathError
from .._paths import DEEPEST, STACKED, natural
from .._paths.dotted_names import other_spellings
from .._words import describe, listed, quoted, suggestion
from .assembly import assemble
from .entries import structure
from .extra_axes import check_no_extra_axes, check_source, have_other_axes, with_other_leaves
from .layers import (
    ALL_LAYERS,
    Index,
    has_layer,
    is_stack,
    layer_count,
    layer_counts,
    layer_number,
    layers_of,
    trimmed,
    with_layer,
)
from .layout import MISSING, Aliases, BareTree, Layout, make, source_of, unflatten_node
from .leaf import PyTree
from .nodes import Key, child_named, listed_keys, names_in, opened, with_child
from .tie import Tie
from .transform import is_registered_node


class Step(NamedTuple):
    """From a node down to one of its children: its key in a dict, else its position."""

    node: PyTree
    key: Key


class Shared(NamedTuple):
    """Aliases that a node above declares inside of this one."""

    owner: BareTree
    depth: int
    """How many steps lead to the owner."""
    aliases: Aliases


class Place(NamedTuple):
    """Where a path leads: what is kept there, and how the path sees it."""

    steps: tuple[Step, ...]
    """From the root down to what is kept; where the path is an alias, to its source."""
    kept: PyTree
    """`MISSING` for a node that consists of aliases."""
    tie: Tie | None = None
    """Of the alias that the path is: the source's path from its owner, and the transforms."""
    shared: tuple[Shared, ...] = ()
    """What nodes above declare inside of the node that is kept here."""
    layers: Index = ()
    """The layers of stacks that the path names; empty where it names none."""
    spelt: str = ""
    """The path with `:` for the number of each layer."""


# ---------------------------------------------------------------------------------------- looking


def locate(tree: PyTree, segments: Sequence[str]) -> Place | None:
    """Where these segments lead in any pytree; None where there is nothing.

    Raises:
        PathError: keys that hold slashes, so that the path can be read in two ways.
    """
    return _Walk(tree, segments).place()


class _Walk:
    """One walk down a path; `place` says where it ends."""

    def __init__(self, tree: PyTree, segments: Sequence[str]):
        self.node = tree
        self.segments = segments
        self.steps: list[Step] = []
        self.shared: list[Shared] = []
        self.layers: list[int | slice] = []
        self.spelt: list[str] = []

    def place(self) -> Place | None:
        used = 0
        while used < len(self.segments):
            if not isinstance(self.node, BareTree) and not self.shared:
                count = self._into_container(self.segments[used:])
                if count == 0:
                    return None
                used += count
                continue
            name = self._name_of(self.segments[used])
            self.spelt.append(name)
            used += 1
            met = self._into_tree(name)
            if met is not None:
                return self._through_tie(*met, self.segments[used:])
            if self.node is MISSING and not self.shared:
                return None
        return self._ended(Place(tuple(self.steps), self.node, None, tuple(self.shared)))

    def _ended(self, place: Place) -> Place | None:
        layers = trimmed(self.layers)
        if not layers:
            return place
        place = place._replace(layers=layers, spelt="/".join(self.spelt))
        whole = read(place._replace(layers=()))
        return place if has_layer(whole, layers) else None

    # Trees

    def _name_of(self, segment: str) -> str:
        """The name that a segment stands for: `:` for the number of a layer."""
        if segment == STACKED:
            self.layers.append(ALL_LAYERS)
            return segment
        if self._has_name(segment):
            return segment
        number = layer_number(segment)
        if number is None or not is_stack(self._names()) or not self._has_layer(number):
            return segment
        check_no_extra_axes(self.node, len(self.layers), "/".join(self.spelt))
        self.layers.append(number)
        return STACKED

    def _has_layer(self, number: int) -> bool:
        """Whether the stack at which the walk is may have a layer of this number."""
        if not isinstance(self.node, BareTree):
            return True  # of aliases: what they lead to is looked at in the end
        count = layer_count(self.node._node[0], len(self.layers))
        return count is None or number < count

    def _has_name(self, segment: str) -> bool:
        if isinstance(self.node, BareTree):
            layout = self.node._node[1]
            if segment in layout.index or segment in layout.aliases:
                return True
        return any(segment in shared.aliases for shared in self.shared)

    def _names(self) -> list[str]:
        names = dict.fromkeys(names_in(self.node) or ()) if self.node is not MISSING else {}
        for shared in self.shared:
            names.update(dict.fromkeys(shared.aliases))
        return list(names)

    def _into_tree(self, name: str) -> tuple[Shared, Tie] | None:
        """Step to the named child. If the name is an alias, return its tie and the node that declares it."""
        node, declared = self.node, self.shared
        if isinstance(node, BareTree):
            layout = node._node[1]
            if layout.aliases:
                declared = [*declared, Shared(node, len(self.steps), layout.aliases)]
        below: list[Shared] = []
        for shared in declared:
            hit = shared.aliases.get(name)
            if isinstance(hit, Tie):
                return shared, hit
            if hit is not None:
                below.append(shared._replace(aliases=hit))
        self.node, self.shared = MISSING, below
        if isinstance(node, BareTree):
            children, layout = node._node
            position = layout.index.get(name)
            if position is not None:
                self.steps.append(Step(node, position))
                self.node = children[position]
        return None

    def _through_tie(self, shared: Shared, tie: Tie, rest: Sequence[str]) -> Place | None:
        steps = self.steps[: shared.depth]
        node: PyTree = shared.owner
        if trimmed(self.layers):
            check_source(shared.owner, tie.source, self.spelt[: shared.depth].count(STACKED))
        for name in tie.source.split("/"):  # sources are no aliases
            children, layout = node._node
            position = layout.index[name]
            steps.append(Step(node, position))
            node = children[position]
        if not rest:
            return self._ended(Place(tuple(steps), node, tie))
        if tie.via and is_registered_node(node):  # what the transform shows has other arrays inside, or none
            return None
        self.spelt += rest
        below = locate(node, rest)  # in a container that is tied as a whole, which no transform sees into
        if below is None:
            return None
        return self._ended(Place((*steps, *below.steps), below.kept, Tie(tie.source)))

    # other containers

    def _into_container(self, segments: Sequence[str]) -> int:
        """Go to a child of a container that is no Tree; returns how many segments its name takes, 0 for no such child."""
        node = self.node
        if type(node) is dict:
            simple = _simple_key(node, segments)
            if simple is not None:
                key, count = simple
                return self._enter(segments[:count], key, node[key])
        inside = opened(node)
        if inside is None:
            return 0
        keys = listed_keys(node) if type(node) is dict else range(len(inside.names))
        found = _children_named(inside.names, segments)
        if len(found) > 1:
            reaching = [
                (position, count)
                for position, count in found
                if locate(inside.values[position], segments[count:]) is not None
            ]
            if len(reaching) > 1:
                raise _ambiguous(node, self.segments, segments, [count for _, count in reaching])
            found = reaching
        if found:
            position, count = found[0]
            return self._enter(segments[:count], keys[position], inside.values[position])
        number = layer_number(segments[0])
        if number is None or not is_stack(inside.names):
            return 0
        count = layer_count(inside.values[0], len(self.layers))
        if count is not None and number >= count:
            return 0
        self._enter([STACKED], keys[0], inside.values[0])
        self.layers[-1] = number
        return 1

    def _enter(self, name: Sequence[str], key: Key, child: PyTree) -> int:
        if name[0] == STACKED:
            self.layers.append(ALL_LAYERS)
        self.spelt += name
        self.steps.append(Step(self.node, key))
        self.node = child
        return len(name)


def _simple_key(node: dict[Key, PyTree], segments: Sequence[str]) -> tuple[Key, int] | None:
    """The one key of a dict that a path goes on to, and how many segments it takes; None where a closer look is needed.

    Spares listing the keys: reading one leaf of a dict with 1,000 keys takes a hundredth of the time.
    """
    found: list[tuple[Key, int]] = []
    key = ""
    for count, segment in enumerate(segments, start=1):
        key = f"{key}/{segment}" if key else segment
        if key in node:
            found.append((key, count))
    number = layer_number(segments[0])
    if number is not None and number in node:
        found.append((number, 1))
    if len(found) != 1 or type(found[0][0]) not in (str, int):
        return None
    return found[0]


def _children_named(names: Sequence[str], segments: Sequence[str]) -> list[tuple[int, int]]:
    """Position and number of segments of each child whose name the path begins with."""
    counts = {"/".join(segments[:count]): count for count in range(1, len(segments) + 1)}
    return [(position, counts[name]) for position, name in enumerate(names) if name in counts]


def check_one_reading(place: Place, segments: Sequence[str]) -> None:
    """Raise where a new path could go on from more than one key on the way to a place: keys that hold slashes."""
    rest = segments
    for step in place.steps:
        if isinstance(step.node, BareTree):  # the keys of Trees hold no slashes
            rest = rest[1:]
            continue
        inside = opened(step.node)
        assert inside is not None
        found = _children_named(inside.names, rest)
        if len(found) > 1:
            raise _ambiguous(step.node, segments, rest, [count for _, count in found])
        rest = rest[found[0][1] if found else 1 :]


def _ambiguous(node: PyTree, whole: Sequence[str], rest: Sequence[str], counts: Sequence[int]) -> PathError:
    readings: list[str] = []
    for count in counts:
        parts = ["/".join(rest[:count]), "/".join(rest[count:])]
        readings.append(" then ".join(repr(part) for part in parts if part))
    if len({*readings}) == 1:
        keys = [key for key in node if str(key) == "/".join(rest[: counts[0]])]
        readings = [f"the {type(key).__name__} {key!r}" for key in keys]
    before = "/".join(whole[: len(whole) - len(rest)])
    place = f" below {quoted(before)}" if before else ""
    path = quoted("/".join(whole))
    return PathError(f"the path {path} is ambiguous{place}: the keys read {' or '.join(readings)}")


# ---------------------------------------------------------------------------- reading and writing


def read(place: Place) -> PyTree:
    """What the path sees at a place: the kept object itself, but for transforms, layers and shared leaves inside."""
    value = place.kept
    for shared in place.shared:
        value = _filled(value, shared.owner, shared.aliases)
    if place.tie is not None and place.tie.via:
        value = place.tie.read(value)
    return layers_of(value, place.layers) if place.layers else value


def write(place: Place, value: PyTree) -> PyTree:
    """The tree with another value of the same structure at a place, unchecked; it copies the nodes on the way."""
    if place.layers:
        whole = read(place._replace(layers=()))
        value = jax.tree.map(lambda leaf, layer: with_layer(leaf, place.layers, layer), whole, value)
    if place.tie is not None and place.tie.via:
        value = place.tie.write(value)
    if value is place.kept and place.steps:
        return place.steps[0].node
    new = value
    for at, (node, key) in reversed([*enumerate(place.steps)]):
        if isinstance(node, BareTree) and isinstance(key, int):
            children, layout = node._node
            others = (*children[:key], value, *children[key + 1 :])
            if layout.stack_axes is not None and have_other_axes(place.kept, new):
                layout = with_other_leaves(layout, children, others, _stack_count(place.steps[:at]))
            value = unflatten_node(layout, others)
        else:
            value = with_child(node, key, value)
    return value


def _stack_count(steps: Sequence[Step]) -> int:
    """How many of these steps go from a stack to all its layers."""
    return sum(is_stack(names_in(step.node) or ()) for step in steps)


def _filled(node: PyTree, owner: BareTree, aliases: Aliases) -> PyTree:
    """The node with the shared leaf in the place of each alias whose source is outside of it."""
    if node is MISSING:
        return _image(owner, aliases)
    if not isinstance(node, BareTree):
        return node
    if _are_several(aliases):
        ties = list(_tie_pairs(aliases, ""))
        if len({tie.source for _, tie in ties}) < len(ties):
            return _filled_with_ties(node, _entries_of_aliases(owner, ties))
    old, layout = node._node
    children = dict(zip(layout.keys, old, strict=True))
    for name, hit in aliases.items():
        if isinstance(hit, Tie):
            children[name] = hit.read(source_of(owner, hit))
        else:
            children[name] = _filled(children.get(name, MISSING), owner, hit)
    order = dict.fromkeys((*layout.order, *children))
    return make(Layout.of(order, children, layout.ties), (children[key] for key in sorted(children)))


def _are_several(aliases: Aliases) -> bool:
    """Whether a node has more than one alias in it; most have one, and need no closer look."""
    return len(aliases) > 1 or not isinstance(next(iter(aliases.values())), Tie)


def _filled_with_ties(node: BareTree, of_aliases: Mapping[str, PyTree]) -> PyTree:
    """The node with these entries for its aliases, some of which are tied to each other."""
    inside = structure(node)
    return assemble({**inside.entries, **of_aliases}, inside.containers)


def _entries_of_aliases(owner: BareTree, ties: Sequence[tuple[str, Tie]]) -> dict[str, PyTree]:
    """What aliases are in a node without their sources: the first of each source has the leaf, and the others are tied to it.

    One that is seen through functions that may not undo each other exactly stays a leaf of its own.
    """
    first: dict[str, tuple[str, Tie]] = {}
    for path, tie in sorted(ties, key=_plainness):
        first.setdefault(tie.source, (path, tie))
    entries: dict[str, PyTree] = {}
    for path, tie in ties:
        heir, seen = first[tie.source]
        between = seen.between(tie, heir) if path != heir else None
        entries[path] = between or tie.read(source_of(owner, tie))
    return entries


def _plainness(pair: tuple[str, Tie]) -> tuple[int, int]:
    """Sorts first the aliases from which others can be seen: with the fewest functions, then the fewest permutations."""
    _, tie = pair
    functions = [step for step in tie.via if not step.axes]
    return len(functions), len(tie.via)


def _image(owner: BareTree, aliases: Aliases) -> PyTree:
    """The node that consists of these aliases: the source's own object where they are all of it."""
    ties = list(_tie_pairs(aliases, ""))
    whole = _whole_source(owner, ties)
    if whole is not None:
        return whole
    return assemble(_entries_of_aliases(owner, ties))


def _whole_source(owner: BareTree, ties: Sequence[tuple[str, Tie]]) -> PyTree | None:
    """The node whose leaves are, one for one, the sources of these ties; None where there is none."""
    path, first = ties[0]
    if not first.source.endswith(f"/{path}"):
        return None
    stem = first.source.removesuffix(f"/{path}")
    if any(tie != Tie(f"{stem}/{path}") for path, tie in ties):
        return None
    node = source_of(owner, Tie(stem))
    return node if _leaf_count(node) == len(ties) else None


def _leaf_count(node: PyTree) -> int | None:
    """How many leaves a Tree has, if it has no ties and no empty nodes; otherwise None."""
    count, waiting = 0, [node]
    while waiting:
        node = waiting.pop()
        if not isinstance(node, BareTree):
            count += 1
            continue
        children, layout = node._node
        if layout.ties or not children:
            return None
        waiting += children
    return count


def _tie_pairs(aliases: Aliases, prefix: str) -> Iterator[tuple[str, Tie]]:
    for name, hit in aliases.items():
        if isinstance(hit, Tie):
            yield prefix + name, hit
        else:
            yield from _tie_pairs(hit, f"{prefix}{name}/")


# ----------------------------------------------------------------------------------------- errors


def no_path(tree: PyTree, segments: Sequence[str]) -> PathError:
    """The error for a path that is not there."""
    path = "/".join(segments)
    message = f"no path {quoted(path)}: {where_it_stops(tree, segments)}"
    other = _in_other_spelling(tree, path)
    if other:
        why = "the names there have dots in them" if "." in other else "its segments are joined by '/'"
        return PathError(f"no path {quoted(path)}: {why}. Did you mean {quoted(other)}?")
    if any(character in path for character in "*?{"):
        message = message.rstrip(".")
        message += ". It looks like a pattern: ptree.items reads, and ptree.update writes, what a pattern matches."
    return PathError(message)


def _in_other_spelling(tree: PyTree, path: str) -> str:
    """The path of the tree that is spelt with dots, as in PyTorch, or with brackets, as JAX prints its own; else empty.

    Or a path with slashes for the dots that are in the names of the tree, as in one that was loaded from a file of PyTorch.
    """
    segments = re.findall(r"[^.\[\]'\"/]+", path)[: DEEPEST + 1]
    if not segments or len(segments) > DEEPEST:
        return ""
    spelt = "/".join(segments)
    spellings = [spelling for spelling in (spelt, *other_spellings(spelt)) if spelling != path]
    return next((spelling for spelling in spellings if locate(tree, spelling.split("/")) is not None), "")


def where_it_stops(tree: PyTree, segments: Sequence[str], otherwise: str = "it is there") -> str:
    """How far a path goes, what is there, and the nearest name; `otherwise` where it does not stop."""
    node, used = tree, 0
    while used < len(segments):
        here, rest = "/".join(segments[:used]), "/".join(segments[used:])
        place = f"at {quoted(here)}" if here else "at the root"
        names = names_in(node)
        if names is None:
            return f"{place} is {describe(node)}, not a node"
        leading = [name for name in names if rest == name or rest.startswith(f"{name}/")]  # a name may hold slashes
        if not leading:
            return _nothing_of_this_name(node, names, segments, used, place)
        name = max(leading, key=len)
        node, used = child_named(node, name), used + name.count("/") + 1
    return otherwise


def _nothing_of_this_name(node: PyTree, names: Sequence[str], segments: Sequence[str], used: int, place: str) -> str:
    if is_stack(names):
        counts = layer_counts(child_named(node, STACKED), [*segments[:used]].count(STACKED))
        size = f" of {counts.pop()} layers" if len(counts) == 1 else ""
        return f"{place} is a stack{size}: ':' is all its layers, a number a single one"
    prefix = "/".join([*segments[:used], ""])
    hint = suggestion(segments[used], names, prefix) or suggestion("/".join(segments[used:]), names, prefix)
    return f"{place} there are {listed(sorted(names, key=natural))}.{hint}"
