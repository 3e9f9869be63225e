"""Assemble a tree from entries: nest them into branches, resolve chains of ties, and grow each branch into a node.

The entries are first nested into branches; then each tie is led to its leaf and given to the lowest node that holds both
ends; then the nodes are made, from the leaves up, and those that come out as they were are kept.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from operator import eq, is_
from types import MappingProxyType
from typing import Any

import jax

from .._errors import PathError, StructureError, TieError
from .._paths import DEEPEST, in_order, split
from .._words import describe, lines, listed, quoted, suggestion
from .entries import structure
from .layout import MISSING, BareTree, Layout, TiedName, make
from .leaf import PyTree
from .nodes import Key, Node, has_slashes, has_string_keys, levels_below, listed_keys, opened, remade, with_items
from .tie import Tie
from .unpacked import unpacked_ties

Containers = Mapping[str, PyTree]
"""Path -> the node whose kind, and declared order, the new node there gets; kept itself where nothing in it is new."""

MOST_TIES = 100_000
"""How many leaves ties may stand for: each tie of a node to one with ties doubles them, in a hostile file."""
MOST_LEVELS = 3_000_000
"""How many segments the paths of these leaves may have together."""


class Branch(dict[str, PyTree]):
    """The names in a node that is being put together, in declared order: branches, leaves, ties, `MISSING` for a gap."""


# ------------------------------------------------------------------------------- the whole tree


def assemble(entries: Mapping[str, PyTree], containers: Containers = MappingProxyType({})) -> PyTree:
    """The tree of entries: path -> leaf, `Tie`, node without children, or `MISSING` for a gap in the declared order.

    Nodes are Trees where `containers` does not say otherwise.

    Raises:
        StructureError: an entry above another, or a container that cannot have these names.
        TieError: a tie without a source, or in a circle.
    """
    if [*entries] == [""]:
        return entries[""]
    keys = _Keys(containers)
    root = Branch()
    last: str | None = None
    branch: Branch | None = None
    for path, value in entries.items():
        above, _, name = path.rpartition("/")
        if branch is not None and above == last and name not in branch:  # beside the last entry: no way to go
            branch[name] = value
            continue
        branch = _plant(root, keys.of(path, value), value, "")
        last = None if keys.slashed else above
    ties = [value for value in entries.values() if type(value) is Tie]
    return _grown(root, containers, keys, has_ties=bool(ties))


def tree_of(mapping: Mapping[Any, PyTree] | Sequence[PyTree], *, sort: bool = True) -> PyTree:
    """The Tree of a mapping, a list or a tuple, whose keys are paths; `sort` lists sorted names as people count."""
    if not isinstance(mapping, Mapping) and type(mapping) not in (list, tuple):
        hint = ". ptree.Tree(ptree.flatten(it)) holds its leaves by path" if opened(mapping) is not None else ""
        raise StructureError(f"a Tree is made of a mapping, a list or a tuple; got {describe(mapping)}{hint}")
    planting = _Planting(sort)
    root = Branch()
    planting.plant_all(root, mapping, "")
    planting.check_nothing_below_none(root)
    tree = _grown(root, planting.containers, _Keys(planting.containers), has_ties=True)
    _check_transforms(tree, planting.ties)
    if planting.lost:
        _warn_of_lost_ties(planting.lost)
    return tree


def _warn_of_lost_ties(lost: Mapping[str, Tie]) -> None:
    shown = listed(f"{alias} = {tie.shown()}" for alias, tie in lost.items())
    warnings.warn(
        f"a dict that was made of a tied Tree does not hold the same at the two ends of {shown}: they are leaves of their"
        " own now. tree | {...}, ptree.put and ptree.set keep ties; ptree.untie ends them without this warning",
        stacklevel=4,
    )


def _grown(root: Branch, containers: Containers, keys: _Keys, *, has_ties: bool) -> PyTree:
    homes = _ties_by_home(root, containers, keys) if has_ties else {}
    tree = _Grower(containers, homes).node(root, "")
    if tree is not MISSING:
        return tree
    return emptied(containers.get("", make(Layout.of((), ()), ())))


def emptied(tree: PyTree) -> PyTree:
    """The same kind of mapping without anything in it; None for a container that cannot be empty."""
    if isinstance(tree, BareTree):
        return make(Layout.of((), ()), ())
    inside = opened(tree)
    return remade(tree, {}) if inside is not None and inside.is_mapping else None


# ---------------------------------------------------------------------------------- paths to keys


class _Keys:
    """Splits paths into the keys of nodes: segments, but for foreign mappings whose keys hold slashes."""

    def __init__(self, containers: Containers):
        self.containers = containers
        self.slashed: dict[str, PyTree] = {}
        """Path -> foreign mapping with a key that holds a slash."""
        for path, node in containers.items():
            if has_slashes(node):
                self.slashed[path] = node

    def of(self, path: str, value: PyTree = MISSING) -> list[str]:
        if not self.slashed:
            return path.split("/")
        keys: list[str] = []
        above, rest = "", path.split("/")
        while rest:
            length = self._key_length(above, rest, value) if above in self.slashed else 1
            keys.append("/".join(rest[:length]))
            above, rest = "/".join(keys), rest[length:]
        return keys

    def _key_length(self, above: str, rest: Sequence[str], value: PyTree) -> int:
        """How many segments the next key takes: of a key that is there, of a moved container, or as many as beside it."""
        node = self.slashed[above]
        names = {str(key) for key in node}
        there: list[int] = []
        nodes: list[int] = []
        for length in range(1, len(rest) + 1):
            key = "/".join(rest[:length])
            if key in names:
                there.append(length)
            if (f"{above}/{key}" if above else key) in self.containers:
                nodes.append(length)
        if len(rest) in there:
            return len(rest)
        staying = [length for length in there if length in nodes]
        if staying:
            return staying[-1]
        if nodes:
            return nodes[0]  # those after it lie inside of it
        if there:
            return there[-1]
        return new_key_length(node, rest, value, f"{quoted(above)}: " if above else "")


def new_key_length(node: Mapping[object, PyTree], rest: Sequence[str], value: PyTree, attempt: str) -> int:
    """How many segments a new key takes: among keys that hold `/` as many as leave a path as deep as its neighbours'."""
    slashed = [str(key) for key in node if "/" in str(key)]
    if not slashed:
        return 1
    below, inside = levels_below(node), levels_below(value)
    if below is None or inside is None or below - inside > len(rest):
        raise PathError(
            f"{attempt}keys such as {slashed[0]!r} hold '/', and"
            " what is below them is not equally deep, so what the new key should be is not known"
        )
    return len(rest) - max(below - 1 - inside, 0)


# ------------------------------------------------------------------------- entries into branches


def _plant(root: Branch, segments: Sequence[str], value: PyTree, prefix: str) -> Branch | None:
    """Put a value where nothing is yet; raises where something is. A gap, or an empty node, gives way.

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
        if below is MISSING or _is_empty(below):
            node[segment] = node = Branch()
        elif value is MISSING:
            return None
        else:
            raise _clash(prefix + "/".join(above[: depth + 1]), below, ", and a node with keys below it")
    there = node.get(name, MISSING)
    if there is MISSING or _is_gap(there):
        node[name] = value
    elif value is not MISSING and not (type(there) is Branch and _is_empty(value)):
        raise _clash(prefix + "/".join(segments), there, f" and {_kind(value)}")
    return node


def _is_gap(value: PyTree) -> bool:
    """Whether a branch has nothing but gaps in it."""
    if type(value) is not Branch or not value:
        return False
    return all(leaf is MISSING for _, leaf in _leaves_of(value))


def _is_empty(value: PyTree) -> bool:
    """Whether a value is a node without children, such as None or an empty Tree."""
    if isinstance(value, Branch | Tie):
        return False
    inside = opened(value)
    return inside is not None and not inside.names


def _clash(path: str, there: PyTree, new: str) -> StructureError:
    return StructureError(f"two keys land on the path {path!r}: {_kind(there)}{new}")


def _kind(value: PyTree) -> str:
    if isinstance(value, (Branch, BareTree)):
        return "a node"
    return "an alias" if type(value) is Tie else describe(value)


class _Planting:
    """Nests any mapping whose keys are paths into branches."""

    def __init__(self, sort: bool) -> None:
        self.sort = sort
        self.containers: dict[str, PyTree] = {}
        """The Trees that came whole, to be kept whole."""
        self.ties: dict[str, Tie] = {}
        """The ties with a transform that were written as values."""
        self.nones: list[list[str]] = []
        """The segments of the paths at which None was given."""
        self.lost: dict[str, Tie] = {}
        """The ties that names of a tied Tree know, and that their values do not hold."""

    def plant_all(self, root: Branch, mapping: Mapping[Any, PyTree] | Sequence[PyTree], prefix: str) -> None:
        if not isinstance(mapping, Mapping):
            mapping = {str(position): value for position, value in enumerate(mapping)}
        for key in self._listed(mapping):
            self._plant_one(root, _key_segments(key, prefix), mapping[key], prefix)
        if TiedName in {*map(type, mapping)}:
            self._tie_unpacked(root, mapping, prefix)

    def _tie_unpacked(self, root: Branch, names: Iterable[object], prefix: str) -> None:
        """Tie what was tied in the Tree that was unpacked into this mapping."""
        found = unpacked_ties(names, partial(_value_at, root))
        for alias, tie in found.kept.items():
            _set_at(root, tuple(alias.split("/")), Tie(prefix + tie.source, tie.via))
        self.lost.update({prefix + alias: Tie(prefix + tie.source, tie.via) for alias, tie in found.lost.items()})

    def _listed(self, mapping: Mapping[Any, PyTree]) -> Sequence[object]:
        keys = tuple(mapping)
        if self.sort and type(mapping) is dict and has_string_keys(mapping):
            return in_order(keys)  # pyright: ignore[reportArgumentType]
        return keys

    def _plant_one(self, root: Branch, segments: Sequence[str], value: PyTree, prefix: str) -> None:
        path = prefix + "/".join(segments)
        if isinstance(value, BareTree):
            self._plant_tree(root, segments, value, prefix)
        elif isinstance(value, Mapping) or type(value) in (list, tuple):
            below = _branch_at(root, segments, prefix)
            self.plant_all(below, value, f"{path}/")
        else:
            _plant(root, segments, value, prefix)
            if type(value) is Tie and value.via:
                self.ties[path] = value
            if value is None:
                self.nones.append(path.split("/"))

    def _plant_tree(self, root: Branch, segments: Sequence[str], tree: BareTree, prefix: str) -> None:
        if not tree._node[1].names():  # empty, or with gaps alone: it is kept as it is
            _plant(root, segments, tree, prefix)
            return
        path = prefix + "/".join(segments)
        below = _branch_at(root, segments, prefix)
        inner = structure(tree)
        keys = _Keys(inner.containers)
        for place, node in inner.containers.items():
            self.containers[f"{path}/{place}" if place else path] = node
        for name, value in inner.entries.items():
            if type(value) is Tie:
                value = Tie(f"{path}/{value.source}", value.via)
            _plant(below, keys.of(name, value), value, f"{path}/")

    def check_nothing_below_none(self, root: Branch) -> None:
        """Raise where None, which elsewhere gives way to a node, was given beside keys below it."""
        for segments in self.nones:
            node: PyTree = root
            for segment in segments:
                node = node[segment]
            if node is not None:
                raise _clash("/".join(segments), None, ", and a node with keys below it")


def _branch_at(root: Branch, segments: Sequence[str], prefix: str) -> Branch:
    """The branch at these segments, made where it is new."""
    node = root
    if prefix.count("/") + len(segments) > DEEPEST:
        raise PathError(f"no path can have more than {DEEPEST} segments; got {quoted(prefix + '/'.join(segments))}")
    for depth, segment in enumerate(segments):
        below = node.get(segment, MISSING)
        if below is MISSING:
            below = node[segment] = Branch()
        elif type(below) is not Branch:
            raise _clash(prefix + "/".join(segments[: depth + 1]), below, ", and a node with keys below it")
        node = below
    return node


def _key_segments(key: object, prefix: str) -> list[str]:
    try:
        segments = split(key)  # pyright: ignore[reportArgumentType]
    except PathError as error:
        raise _bad_key(key, prefix) from error
    if not segments:
        raise _bad_key(key, prefix)
    return segments


def _bad_key(key: object, prefix: str) -> PathError:
    place = f"in {prefix[:-1]!r}" if prefix else "at the root"
    if not isinstance(key, str):
        why = "it is not a string or an int"
    elif "" in key.split("/"):
        why = "it is empty or has an empty segment"
    else:
        why = f"it has more than {DEEPEST} segments"
    return PathError(f"bad key {quoted(key)} {place}: {why}")


def _check_transforms(tree: PyTree, ties: Mapping[str, Tie]) -> None:
    """Raise where the first transform of a tie that was written as a value does not fit its source."""
    problems: list[str] = []
    for path, tie in ties.items():
        step, leaf = tie.via[0], tree[tie.source]
        why = step.misfit(leaf)
        if why:
            problems.append(
                f"cannot tie {path!r} to {tie.source!r}: {tie.shown()!r} {why}, and {tie.source!r} is {describe(leaf)}"
            )
    if problems:
        raise TieError(lines(problems))


# --------------------------------------------------------------------------- ties to their leaves

Segments = tuple[str, ...]
TiesByHome = dict[str, list[tuple[str, Tie]]]
"""Path of a node -> its ties, alias path and source relative to the node: the lowest that holds both ends."""


def _ties_by_home(root: Branch, containers: Containers, keys: _Keys) -> TiesByHome:
    """Resolve chains of ties to their leaf, and split the tie of a node into one for each leaf in it."""
    foreign = {path: node for path, node in containers.items() if not isinstance(node, BareTree)}
    waiting = list(_ties_in(root))[::-1]
    count, levels = len(waiting), 0
    begun: set[Segments] = set()
    settled: set[Segments] = set()
    while waiting:
        alias, tie = waiting.pop()
        if alias in settled:
            continue
        met = _tie_on_the_way(root, keys.of(tie.source))
        if met is not None and met[0] not in settled:
            # the tie that this one leads to comes first: followed from every end, a long chain of ties would take hours
            if met[0] not in begun:
                begun.add(alias)
                waiting += [(alias, tie), met]
                continue
            alias, tie = met  # they go in a circle, of which the chain from here on is the error
        settled.add(alias)
        tie, end = _Chain(root, foreign, keys, alias, tie).followed()
        if type(end) is not Branch:
            _set_at(root, alias, tie)
            continue
        below = _image_of(end, tie, foreign)
        count += len(below)
        levels += sum(2 * len(path) + len(alias) for path in below)
        if count > MOST_TIES or levels > MOST_LEVELS:
            raise TieError(f"ties of ties stand for more than {MOST_TIES:,} leaves, or {MOST_LEVELS:,} levels of them")
        _set_at(root, alias, Branch())
        for path, inner in below.items():
            _plant(root, [*alias, *path], inner, "")
        waiting += [((*alias, *path), inner) for path, inner in below.items() if type(inner) is Tie][::-1]
    homes: TiesByHome = {}
    for alias, tie in _ties_in(root):
        _add_to_home(homes, alias, tie, keys.of(tie.source))
    return homes


def _tie_on_the_way(root: Branch, source: Sequence[str]) -> tuple[Segments, Tie] | None:
    """The first alias that the path of a source leads to, and its tie."""
    node: PyTree = root
    for depth, segment in enumerate(source):
        node = node.get(segment) if type(node) is Branch else None
        if type(node) is Tie:
            return tuple(source[: depth + 1]), node
    return None


def _add_to_home(homes: TiesByHome, alias: Segments, tie: Tie, source: Sequence[str]) -> None:
    shared = 0
    while alias[shared] == source[shared]:
        shared += 1
    inner = Tie("/".join(source[shared:]), tie.via)
    homes.setdefault("/".join(alias[:shared]), []).append(("/".join(alias[shared:]), inner))


def _below(branch: Branch, above: Segments = ()) -> Iterator[tuple[Segments, PyTree]]:
    """Everything below a branch with its path: each branch, then what is in it."""
    waiting = [((*above, name), value) for name, value in reversed(branch.items())]
    while waiting:
        path, value = waiting.pop()
        yield path, value
        if type(value) is Branch:
            waiting += [((*path, name), inside) for name, inside in reversed(value.items())]


def _leaves_of(branch: Branch, above: Segments = ()) -> list[tuple[Segments, PyTree]]:
    """The leaves, ties, gaps and empty branches below a branch."""
    return [(path, value) for path, value in _below(branch, above) if type(value) is not Branch or not value]


def _ties_in(branch: Branch) -> list[tuple[Segments, Tie]]:
    return [(path, value) for path, value in _below(branch) if type(value) is Tie]


def _image_of(branch: Branch, tie: Tie, foreign: Containers) -> dict[Segments, PyTree]:
    """What an alias of a branch consists of: a tie to each leaf, alias or container that is no Tree, and empty nodes."""
    found: dict[Segments, PyTree] = {}
    waiting: list[tuple[Segments, PyTree]] = [((), branch)]
    while waiting:
        path, value = waiting.pop()
        source = "/".join((tie.source, *path))
        if type(value) is Branch and source not in foreign:
            waiting += [((*path, name), below) for name, below in value.items()][::-1]
        elif value is not MISSING:
            found[path] = value if _is_empty(value) else Tie(source, tie.via)
    return found


def _value_at(root: Branch, path: str) -> PyTree:
    """The leaf, the tie or the branch at a path, `MISSING` where there is none."""
    node: PyTree = root
    for segment in path.split("/"):
        node = node.get(segment, MISSING) if type(node) is Branch else MISSING
    return node


def _set_at(root: Branch, path: Segments, value: PyTree) -> None:
    for segment in path[:-1]:
        root = root[segment]
    root[path[-1]] = value


class _Chain:
    """Follows one tie to the leaf, the container or the branch that it leads to, through ties of ties."""

    def __init__(self, root: Branch, foreign: Containers, keys: _Keys, alias: Segments, tie: Tie):
        self.root, self.foreign, self.keys = root, foreign, keys
        self.alias, self.tie = alias, tie
        self.passed = ["/".join(alias)]

    @property
    def attempt(self) -> str:
        return f"cannot tie {self.passed[0]!r} to {self.tie.source!r}"

    def followed(self) -> tuple[Tie, PyTree]:
        tie = self.tie
        while True:
            source = self.keys.of(tie.source)
            self._check_ends(source)
            depth, end = self._reached(source)
            if type(end) is not Tie:
                return tie, end
            tie = self._next(tie, source, depth, end)

    def _check_ends(self, source: list[str]) -> None:
        nested = all(map(eq, source, self.alias))  # up to the end of the shorter one
        if not nested:
            return
        if len(self.passed) > 1 or len(source) == len(self.alias):
            raise self._circle("/".join(source))
        raise TieError(f"{self.attempt}: one lies inside the other")

    def _reached(self, source: list[str]) -> tuple[int, PyTree]:
        """What is at the source, or the tie that is met on the way, and after how many segments."""
        node: PyTree = self.root
        for depth, segment in enumerate(source):
            node = node.get(segment, MISSING) if type(node) is Branch else MISSING
            if node is MISSING:
                raise self._lost("/".join(source))
            if type(node) is Tie:
                return depth + 1, node
            if not self.foreign or tuple(source[: depth + 1]) == self.alias[: depth + 1]:
                continue  # both ends lie in this node
            path = "/".join(source[: depth + 1])
            if type(node) is Branch and path in self.foreign:
                if depth + 1 < len(source):
                    raise TieError(f"{self.attempt}: {path!r} is a container that is no Tree, which is tied as a whole")
                return len(source), self.foreign[path]
        return len(source), node

    def _next(self, tie: Tie, source: list[str], depth: int, met: Tie) -> Tie:
        where = "/".join(source[:depth])
        if where in self.passed:
            raise self._circle(tie.source)
        self.passed.append(where)
        following = met.then(tie.via)
        return Tie("/".join([following.source, *source[depth:]]), following.via)

    def _circle(self, end: str) -> TieError:
        chain = " -> ".join(map(repr, [*self.passed, end]))
        return TieError(f"{self.attempt}: the ties go in a circle, {chain}. Leave one of them out")

    def _lost(self, source: str) -> TieError:
        hint = suggestion(source, _paths_in(self.root))
        return TieError(f"{self.attempt}: there is no {source!r}.{hint}")


def _paths_in(branch: Branch) -> list[str]:
    return ["/".join(path) for path, _ in _below(branch)]


# --------------------------------------------------------------------------- branches into nodes


class _Grower:
    """Makes the node of each branch: of the kind that `containers` says, a Tree where it says nothing."""

    def __init__(self, containers: Containers, homes: TiesByHome):
        self.containers, self.homes = containers, homes

    def node(self, branch: Branch, path: str, beside: PyTree = MISSING) -> PyTree:
        """The node of a branch, `MISSING` where nothing is left of it; a new one is like the dict that it lies in."""
        like = self.containers.get(path, MISSING)
        if like is MISSING and beside is not MISSING:
            like = remade(beside, {}) if isinstance(beside, dict) else {}
        if like is MISSING or isinstance(like, BareTree):
            return self._tree(branch, path, like)
        values = self._values(branch, path, like)
        kept = {name: value for name, value in values.items() if value is not MISSING}
        if values and not kept:
            return MISSING
        if type(like) is dict and {*map(type, like)} == {str}:
            return _plain_dict(like, kept)
        return self._container(values, kept, path, like)

    def _values(self, branch: Branch, path: str, beside: PyTree = MISSING) -> dict[str, PyTree]:
        """What the node of a branch has under each name."""
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
        layout = Layout.of(_declared_order(branch, children), children, ties)
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
    inside = _leaves_of(branch, (name,))
    if all(type(leaf) is Tie for _, leaf in inside):
        return []
    return ["/".join(path) for path, _ in inside]
