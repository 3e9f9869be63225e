"""Put a value at a path that may be new, such as a leaf, a mapping or a tie: a tree with a new or replaced child."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from .._errors import PathError, PatternError, StructureError, TieError
from .._paths import STACKED, compile, join, split
from .._tree import (
    MISSING,
    BareTree,
    Layout,
    Place,
    PyTree,
    Structure,
    Tie,
    Tree,
    assemble,
    check_one_reading,
    entries,
    is_stack,
    layer_count,
    layer_counts,
    layer_number,
    leaves,
    locate,
    make,
    new_key_length,
    opened,
    read,
    remade,
    stacked_axes,
    structure,
    with_items,
    write,
)
from .._words import describe, listed, quoted
from .heirs import with_heirs

T = TypeVar("T")


def put(tree: T, path: str | int, value: PyTree) -> T:
    """A tree with a value at a path that may be new; a mapping becomes a subtree.

    >>> put(Tree({"enc": {"kernel": 1}}), "head/bias", 3)
    Tree(
      enc/kernel  1
      head/bias   3
    )

    It replaces whatever was there, of any shape or structure. At a source it changes the one leaf, at an
    alias it ends the tie. Where a source goes, its first alias takes over the leaf.

    Args:
        tree: any pytree.
        path: of a leaf or node, new or not.
        value: a leaf, or a mapping, which becomes a subtree. It is not copied.

    Raises:
        PathError: the path is the root, goes on below a leaf, or could begin with more than one key.
        PatternError: the path is a pattern; `update` changes what a pattern matches.
        StructureError: a container that cannot take a new name (a tuple, a dataclass), one layer of a stack, or in a stack
            a leaf of another number of layers.
        TieError: a tie in what is no Tree, without its source, or through a transform that does not fit.
    """
    segments = split(path)
    if not segments:
        raise PathError("cannot put at '': that is the whole tree, so use the value itself")
    place, used = _deepest(tree, segments)
    attempt = f"cannot put {quoted('/'.join(segments))}"
    _check_no_single_layer(place, attempt)
    if used < len(segments):
        check_one_reading(place, segments)
        _check_no_pattern(tree, segments, attempt)
        _check_new_name(place, segments, used, attempt)
    _check_layer_count(place, used, segments, value, attempt)
    if type(value) is Tie:
        _check_tie(tree, place, segments, value)
    if type(value) is Tie or _is_tied(place):
        return _put_by_entries(tree, "/".join(segments), value, attempt)
    if used == len(segments):
        return write(place, _as_child(place.steps[-1].node, value))
    return write(place, _with_new_child(place.kept, segments, used, value, attempt))


BareTree._put = put


def _deepest(tree: PyTree, segments: Sequence[str]) -> tuple[Place, int]:
    """The deepest existing place on the way to a path that is put, and how many segments lead to it."""
    for used in range(len(segments), 0, -1):
        place = locate(tree, segments[:used])
        if place is not None:
            return place, used
    return Place((), tree), 0


def _is_tied(place: Place) -> bool:
    """Whether a tie is at this place, or declared by a node on the way."""
    if place.tie is not None or place.shared:
        return True
    nodes = [*(step.node for step in place.steps), place.kept]
    return any(isinstance(node, BareTree) and node._node[1].ties for node in nodes)


def _check_no_single_layer(place: Place, attempt: str) -> None:
    if not place.layers:
        return
    whole = place.spelt.split("/")
    stack = "/".join(whole[: whole.index(":")])
    raise StructureError(
        f"{attempt}: it is in one layer of the stack {quoted(stack)}, and all its layers are alike."
        " Use ptree.set for other values, or ptree.stacks.unstack it first"
    )


def _check_no_pattern(tree: PyTree, segments: Sequence[str], attempt: str) -> None:
    """Raise for a new name that was meant as a pattern: one with `*`, or with other wildcards that match something."""
    path = "/".join(segments)
    if not any(character in path for character in "!*?[{"):
        return
    try:
        pattern = compile(path.removeprefix("!"))
    except PatternError:
        return
    is_certain = path.startswith("!") or any(character in path for character in "*?{")
    is_pattern = path.startswith("!") or pattern.literal is None
    if is_pattern and (is_certain or any(pattern.matches(name) for name in entries(tree))):
        raise PatternError(
            f"{attempt}: it is a pattern, and put takes one path. ptree.update changes what a pattern matches"
        )


def _check_new_name(place: Place, segments: Sequence[str], used: int, attempt: str) -> None:
    """Raise where the node at a place cannot take a child with a new name."""
    at = "/".join(segments[:used])
    node = read(place)
    inside = opened(node)
    if inside is None:
        what = describe(node) if place.tie is None else "an alias"
        where = f"{quoted(at)} is {what}" if at else f"the tree is {what}"
        raise PathError(f"{attempt}: {where}, not a node.{' Drop it first' if at else ''}")
    if is_stack(inside.names):
        count = layer_count(node, stacked_axes(at))
        size = "" if count is None else f" of {count} layers"
        raise StructureError(f"{attempt}: {quoted(at)} is a stack{size}. {_way_into(at, segments[used:])}")
    if not inside.is_mapping:
        kind = type(node).__name__
        raise StructureError(
            f"{attempt}: a {kind} cannot take the new name {quoted(segments[used])}; it has {listed(inside.names)}"
        )


def _way_into(stack: str, segments: Sequence[str]) -> str:
    """How to add what was to be put beside the `:` of a stack."""
    if layer_number(segments[0]) is not None:
        return "To add a layer use ptree.stacks.unstack first"
    inside = join(stack, "/".join([STACKED, *segments]))
    return f"A leaf of all its layers is at {quoted(inside)}, with an axis for the layers in front"


def _check_layer_count(place: Place, used: int, segments: Sequence[str], value: PyTree, attempt: str) -> None:
    """Raise where the arrays put into a stack have another number of layers than the stack.

    The number of layers is that of the leaves that stay: what the value replaces does not count.
    """
    axis = 0
    nodes = [*(step.node for step in place.steps), place.kept]
    for depth, (segment, node) in enumerate(zip(segments[:used], nodes, strict=False)):
        if segment != STACKED:
            continue
        staying = [leaf for path, leaf in leaves(node) if not _is_at_or_below(path, "/".join(segments[depth:]))]
        counts = layer_counts(staying, axis) or layer_counts(value, axis)
        for path, leaf in leaves(value):
            shape = getattr(leaf, "shape", None)
            if shape is None:
                continue
            if len(shape) > axis and shape[axis] == min(counts):
                continue
            leaf_name = f"{quoted(path)} is {describe(leaf)}" if path else f"it is {describe(leaf)}"
            layers = f"{min(counts)} layers" if counts else "one or more layers"
            raise StructureError(
                f"{attempt}: {leaf_name}, and the stack has {layers}: its axis {axis} must have that size"
            )
        axis += 1


def _is_at_or_below(path: str, above: str) -> bool:
    return path == above or path.startswith(f"{above}/")


def _check_tie(tree: PyTree, place: Place, segments: Sequence[str], tie: Tie) -> None:
    attempt = f"cannot put {quoted(tie)} at {quoted('/'.join(segments))}"
    if type(tree) is not Tree:
        raise TieError(f"{attempt}: a {type(tree).__name__} holds no ties; ptree.tie makes a Tree of it")
    if not all(isinstance(step.node, BareTree) for step in place.steps):
        raise TieError(f"{attempt}: it lies inside a container that is no Tree, which holds no ties")
    source_place = locate(tree, split(tie.source))
    source = MISSING if source_place is None else read(source_place)
    for step in tie.via:
        why = step.misfit(source)
        if why:
            raise TieError(f"{attempt}: it {why}, and {quoted(tie.source)} is {describe(source)}")


def _as_child(parent: PyTree, value: PyTree) -> PyTree:
    """A value as a node holds it: in a Tree a mapping becomes a Tree."""
    is_nested = isinstance(value, Mapping) or type(value) in (list, tuple)
    return Tree(value) if is_nested and isinstance(parent, BareTree) else value


def _with_new_child(node: PyTree, segments: Sequence[str], used: int, value: PyTree, attempt: str) -> PyTree:
    """A mapping with a value at a path of which not even the first segment is there."""
    if isinstance(node, BareTree):
        name, *below = segments[used:]
        child = Tree({"/".join(below): value}) if below else _as_child(node, value)
        children, layout = node._node
        named = {**dict(zip(layout.keys, children, strict=True)), name: child}
        order = dict.fromkeys((*layout.order, name))
        return make(Layout.of(order, named, layout.ties), [named[key] for key in sorted(named)])
    cut = new_key_length(node, segments[used:], value, f"{attempt}: ")
    key, below = "/".join(segments[used : used + cut]), segments[used + cut :]
    for name in reversed(below):
        value = with_items(remade(node, {}) if isinstance(node, dict) else {}, {name: value}, attempt)
    inside = opened(node)
    assert inside is not None
    return with_items(node, {**dict(zip(inside.names, inside.values, strict=True)), key: value}, attempt)


def _put_by_entries(tree: PyTree, path: str, value: PyTree, attempt: str) -> PyTree:
    before = structure(tree)
    _check_no_leaf_above(before, path, attempt)
    new = _structure_at(before, path, value)
    after: dict[str, PyTree] = {}
    is_placed = False
    for name, old in before.entries.items():
        if name != path and not name.startswith(f"{path}/"):
            after[name] = old
        elif not is_placed:
            after.update(new.entries)
            is_placed = True
    if not is_placed:
        after.update(new.entries)
    kept = {name: node for name, node in before.containers.items() if name != path and not name.startswith(f"{path}/")}
    inherited = with_heirs(before, after, tied=path if type(value) is Tie else None)
    return assemble(inherited, {**kept, **new.containers})


def _check_no_leaf_above(before: Structure, path: str, attempt: str) -> None:
    segments = path.split("/")
    for cut in range(1, len(segments)):
        above = "/".join(segments[:cut])
        value = before.entries.get(above, MISSING)
        if value is MISSING or (opened(value) is not None and type(value) is not Tie):
            continue
        what = "an alias" if type(value) is Tie else describe(value)
        raise PathError(f"{attempt}: {quoted(above)} is {what}, not a node. Drop it first")


def _structure_at(before: Structure, path: str, value: PyTree) -> Structure:
    """The entries and containers of a value that is put at a path."""
    above = path
    while above not in before.containers:
        above = above.rpartition("/")[0]
    value = _as_child(before.containers[above], value)
    if not isinstance(value, BareTree):
        return Structure({path: value}, {})
    inner = structure(value)
    found: dict[str, PyTree] = {} if inner.entries else {path: value}
    for name, leaf in inner.entries.items():
        found[f"{path}/{name}"] = Tie(f"{path}/{leaf.source}", leaf.via) if type(leaf) is Tie else leaf
    containers = {f"{path}/{name}" if name else path: node for name, node in inner.containers.items()}
    return Structure(found, containers if inner.entries else {})
