"""Edit the structure of any pytree by path: put, drop, select, partition, unflatten, asdict.

Each is an edit of the tree's entries, from which one assembly builds the tree. Containers keep their types, what is
not touched is shared, and where a source goes, its first alias takes over the leaf.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TypeVar

from .._errors import PathError, PatternError, StructureError, TieError
from .._paths import STACKED, compile, join, split
from .._tree import (
    MISSING,
    BareTree,
    Layout,
    Leaf,
    Node,
    Place,
    PyTree,
    Structure,
    Tie,
    Tree,
    assemble,
    check_one_reading,
    child_named,
    emptied,
    entries,
    is_stack,
    layer_count,
    layer_counts,
    layer_number,
    leaves,
    locate,
    make,
    names_in,
    new_key_length,
    opened,
    read,
    remade,
    replace_leaves,
    stacked_axes,
    structure,
    tree_of,
    with_items,
    write,
)
from .._words import describe, listed, quoted
from .check import Differences, structure_error
from .leaf_names import names_of_leaves
from .selectors import Selector, choose, choose_names

T = TypeVar("T")

# ------------------------------------------------------------------------------------------- put


def put(tree: T, path: str | int, value: PyTree) -> T:
    """A tree with a value at a path that may be new; a mapping becomes a subtree.

    >>> put(Tree({"enc": {"kernel": 1}}), "head/bias", 3)
    Tree(
      enc/kernel  1
      head/bias   3
    )

    It replaces whatever was there, of any shape or structure. At a source it changes the one leaf, at an
    alias it ends the tie. Where a source goes, its first alias takes over the leaf.

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
    """The longest beginning of a path that is there, and how many segments it has."""
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
    """Raise where the node at a place cannot have a child of a new name."""
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
            f"{attempt}: a {kind} cannot take the new name {segments[used]!r}; it has {listed(inside.names)}"
        )


def _way_into(stack: str, segments: Sequence[str]) -> str:
    """How to add what was to be put beside the `:` of a stack."""
    if layer_number(segments[0]) is not None:
        return "To add a layer use ptree.stacks.unstack first"
    inside = join(stack, "/".join([STACKED, *segments]))
    return f"A leaf of all its layers is at {inside!r}, with an axis for the layers in front"


def _check_layer_count(place: Place, used: int, segments: Sequence[str], value: PyTree, attempt: str) -> None:
    """Raise where arrays are put into a stack that have not one layer for each of its layers.

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
                f"{attempt}: {leaf_name}, and the stack has {layers}: its axis {axis} is to be of that size"
            )
        axis += 1


def _is_at_or_below(path: str, above: str) -> bool:
    return path == above or path.startswith(f"{above}/")


def _check_tie(tree: PyTree, place: Place, segments: Sequence[str], tie: Tie) -> None:
    attempt = f"cannot put {tie!r} at {quoted('/'.join(segments))}"
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
        raise PathError(f"{attempt}: {above!r} is {what}, not a node. Drop it first")


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


def with_heirs(before: Structure, after: Mapping[str, PyTree], tied: str | None = None) -> dict[str, PyTree]:
    """The entries in which the first alias of each source that is gone takes over the leaf.

    A path that is `tied` anew takes over nothing: its tie leads to what its source then is.
    """
    found = dict(after)
    heirs: dict[str, tuple[str, Tie]] = {}
    nodes = nodes_above(path for path, value in after.items() if value is not MISSING)
    for alias, tie in after.items():
        if type(tie) is not Tie or alias == tied or _still_there(tie.source, before, after, nodes):
            continue
        if tie.source not in heirs:
            heirs[tie.source] = alias, tie
            found[alias] = tie.read(_kept_before(before, tie.source))
        else:
            heir, first = heirs[tie.source]
            found[alias] = first.back(heir).then(tie.via)
    return found


def _still_there(source: str, before: Structure, after: Mapping[str, PyTree], nodes: Collection[str]) -> bool:
    """Whether a leaf, or the container that was tied as a whole, is still at the source."""
    if source in nodes:
        return source in before.containers
    return after.get(source, MISSING) is not MISSING and type(after[source]) is not Tie


def _kept_before(before: Structure, path: str) -> PyTree:
    return before.containers[path] if path in before.containers else before.entries[path]


def nodes_above(paths: Iterable[str]) -> set[str]:
    """The paths of all nodes that lie above these paths."""
    nodes: set[str] = set()
    for path in paths:
        above = path.rpartition("/")[0]
        while above and above not in nodes:
            nodes.add(above)
            above = above.rpartition("/")[0]
    return nodes


# ------------------------------------------------------------------------------------------ drop


def drop(tree: T, selector: Selector) -> T:
    """A tree without the selected leaves, and without the nodes that this leaves empty.

    >>> drop(Tree({"enc": {"kernel": 1, "bias": 2}, "head/bias": 3}), "**/bias")
    Tree(
      enc/kernel  1
    )

    Here each name counts by itself: dropping an alias removes the tie, and dropping a source hands
    the leaf to its first alias that stays.

    Raises:
        PatternError: the selector is malformed, or a part of it matches nothing.
        PathError: two leaves of a plain tree have one path, or it has more than 256 levels.
        StructureError: a container that cannot lose a child (a list, a tuple, a dataclass).
    """
    names = names_of_leaves(tree)
    gone = {*choose_names(tree, selector, names)}
    if not gone:
        return tree
    if gone == {""}:
        return emptied(tree)
    before = structure(tree)
    after = {path: value for path, value in before.entries.items() if not _is_gone(path, value, before, gone)}
    after = _with_all_children(before, after)
    if not after:
        return emptied(tree)
    return assemble(with_heirs(before, after), before.containers)


def _is_gone(path: str, value: PyTree, before: Structure, gone: Collection[str]) -> bool:
    if path in gone:
        return True
    if type(value) is not Tie or value.source not in before.containers:
        return False
    # an alias of a container goes with the names of all leaves in it
    inside = [name for name in before.entries if name.startswith(f"{value.source}/")]
    return all(path + name[len(value.source) :] in gone for name in inside)


def _with_all_children(before: Structure, after: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """The entries with which each list, tuple or dataclass keeps all its children, or goes as a whole.

    A mapping in it that lost all its leaves stays as an empty one. It goes if no leaf is left in it, from a mapping.
    """
    fixed = _fixed_containers(before)
    if not fixed:
        return dict(after)
    going = _emptied_containers(before, after, fixed)
    found = {path: value for path, value in after.items() if not _is_in(path, going)}
    nodes = nodes_above(path for path, value in found.items() if value is not MISSING)
    for path, inside in fixed.items():
        if path in going or _is_in(path, going):
            continue
        children = [f"{path}/{name}" if path else name for name in inside.names]
        gone = [child for child in children if found.get(child, MISSING) is MISSING and child not in nodes]
        lost = [child for child in gone if child in fixed or child not in before.containers]
        if lost:
            kind = type(before.containers[path]).__name__
            raise StructureError(
                f"cannot drop {listed(lost)}: a {kind} cannot lose a child. ptree.partition leaves None in its place"
            )
        found.update({child: emptied(before.containers[child]) for child in gone})
    return found


def _fixed_containers(before: Structure) -> dict[str, Node]:
    """The containers that keep their names, opened: lists, tuples, dataclasses."""
    fixed: dict[str, Node] = {}
    for path, node in before.containers.items():
        if isinstance(node, dict | BareTree):  # most are
            continue
        inside = opened(node)
        assert inside is not None
        if not inside.is_mapping:
            fixed[path] = inside
    return fixed


def _emptied_containers(before: Structure, after: Mapping[str, PyTree], fixed: Collection[str]) -> set[str]:
    """Which of these containers lie in a mapping and lost their last leaf; what is left in them is empty nodes."""
    touched = nodes_above(path for path in before.entries if path not in after)
    full = nodes_above(path for path, value in after.items() if type(value) is Tie or not _is_empty(value))
    going: set[str] = set()
    for path in fixed:
        if path in touched and path not in full and _container_above(path, before) not in fixed:
            going.add(path)
    return going


def _is_empty(value: PyTree) -> bool:
    """Whether an entry is no leaf: a gap, None, or another node without children."""
    return value is MISSING or opened(value) is not None


def _container_above(path: str, before: Structure) -> str:
    above = path.rpartition("/")[0]
    while above not in before.containers:
        above = above.rpartition("/")[0]
    return above


def _is_in(path: str, nodes: Collection[str]) -> bool:
    """Whether one of these nodes lies above a path."""
    return bool(nodes) and not nodes_above([path]).isdisjoint(nodes)


# ----------------------------------------------------------------------------------------- parts


def select(tree: T, selector: Selector) -> T:
    """A tree of the selected leaves only, under their own paths.

    >>> select(Tree({"enc": {"kernel": 1, "bias": 2}, "head/bias": 3}), "**/bias")
    Tree(
      enc/bias   2
      head/bias  3
    )

    Aliases come along with their source. Where a container cannot lose a child, None stands in its place.

    Raises:
        PatternError: the selector is malformed, a part of it matches nothing, or it names single layers of a stack.
        PathError: two leaves of a plain tree have one path, or it has more than 256 levels.
    """
    chosen = {path for path, _ in choose(tree, selector)}
    return _part(tree, structure(tree), chosen)


def partition(tree: T, selector: Selector) -> tuple[T, T]:
    """Two trees: the selected leaves, and the rest. `merge` puts them together again.

    >>> head, body = partition(Tree({"enc": {"kernel": 1}, "head": {"kernel": 2}}), "head")
    >>> head["head/kernel"], body["enc/kernel"]
    (2, 1)

    Nodes that were empty before stay in the rest.

    Raises:
        PatternError: the selector is malformed, a part of it matches nothing, or it names single layers of a stack.
        PathError: two leaves of a plain tree have one path, or it has more than 256 levels.
    """
    chosen = {path for path, _ in choose(tree, selector)}
    whole = structure(tree)
    rest: set[str] = set()
    for path, value in whole.entries.items():
        if path not in chosen and type(value) is not Tie:
            rest.add(path)
    return _part(tree, whole, chosen), _part(tree, whole, rest)


def _part(tree: PyTree, whole: Structure, chosen: Collection[str]) -> PyTree:
    """The tree with the chosen entries; the others leave gaps, so that `merge` keeps the declared order."""
    nodes = nodes_above(chosen)
    found: dict[str, PyTree] = {}
    for path, value in whole.entries.items():
        if type(value) is Tie:
            is_chosen = value.source in chosen or value.source in nodes
        else:
            is_chosen = path in chosen
        found[path] = value if is_chosen else MISSING
    if all(value is MISSING for value in found.values()) and not isinstance(tree, BareTree):
        return emptied(tree) if found else tree
    return assemble(found, whole.containers)


# -------------------------------------------------------------------------------- flat and nested


def unflatten(flat: Mapping[str, PyTree], like: PyTree = None) -> PyTree:
    """A Tree from a flat dict, path -> leaf; or the containers of `like` with the flat dict's leaves.

    >>> unflatten({"enc/kernel": 1, "enc/bias": 2})["enc"]
    Tree(
      kernel  1
      bias    2
    )
    >>> unflatten({"0/b": 1, "1": 2}, like=[{"b": 0}, 0])
    [{'b': 1}, 2]

    With `like` the paths must be its paths; shapes and dtypes are free, so that it also makes masks and labels.

    Raises:
        StructureError: no mapping; two names land on one path, or the leaves are not those of `like`.
        PathError: a name that is no path.
        TieError: an alias without its source.
    """
    if not isinstance(flat, Mapping):
        raise StructureError(f"unflatten takes a flat dict, path -> leaf; got {describe(flat)}")
    if like is not None:
        return _unflattened_like(flat, like)
    if "" in flat:
        raise PathError("bad key '' at the root: it is empty; a single leaf needs no Tree")
    return tree_of(flat, sort=False)


def _unflattened_like(flat: Mapping[str, PyTree], like: PyTree) -> PyTree:
    expected: dict[str, Leaf] = dict(leaves(like))
    no_leaves = entries(like).keys() - expected.keys()  # aliases and empty nodes
    got = {str(path): value for path, value in flat.items() if str(path) not in no_leaves}
    missing = [path for path in expected if path not in got]
    unexpected = [path for path in got if path not in expected]
    if missing or unexpected:
        raise structure_error("cannot unflatten into `like`", Differences(missing, unexpected))
    return replace_leaves(like, got)


def asdict(tree: PyTree) -> dict[str, PyTree]:
    """The tree as nested plain dicts; tied paths hold the same object, and the dicts no ties. No leaf is copied.

    >>> asdict(Tree({"enc/kernel": 1}))
    {'enc': {'kernel': 1}}

    For what takes only dicts, such as linen's `apply` and `nnx.merge`.

    Raises:
        StructureError, PathError: as `Tree`, for what is none yet.
    """
    tree = tree if type(tree) is Tree else Tree(tree)
    found: dict[str, PyTree] = {}
    for name in names_in(tree) or ():
        value = child_named(tree, name)
        found[name] = asdict(value) if type(value) is Tree else value
    return found
