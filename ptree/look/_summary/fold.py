"""Fold rows of a summary into blocks: repeated layers and equal siblings become one block with a count, chains one name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from ..._paths import DEEPEST, STACKED
from ..._words import printable
from .._layers import LONGEST_BRACES, NumberedName, numbered_name, short_ranges
from .._tied_names import around_source
from .row import Row

_Branch: TypeAlias = "dict[str, _Branch | Row]"
"""The names below a node."""
_ITSELF = "\0 itself"  # the name in a node of a leaf that has the path of the node, as it may in a file


@dataclass(frozen=True)
class Size:
    """How much some leaves are together."""

    count: int = 0
    bytes: int = 0
    leaves: int = 0
    flops: int = 0

    def __add__(self, other: Size) -> Size:
        return Size(
            self.count + other.count, self.bytes + other.bytes, self.leaves + other.leaves, self.flops + other.flops
        )

    def times(self, number: int) -> Size:
        return Size(self.count * number, self.bytes * number, self.leaves * number, self.flops * number)


@dataclass(frozen=True)
class Block:
    """A leaf or node of a summary, or several that are equal but for their names."""

    name: str
    """Below the block that it is in: `h/{0..11}`, `pooler/dense`; inert."""
    times: int
    """How many nodes were folded; layers of a stack count too."""
    size: Size
    """Of all that were folded."""
    leaf: Row | None = None
    """The first of the leaves that were folded."""
    tied_to: str = ""
    """What a tied name shows: `wte/weight`."""
    children: tuple[Block, ...] = ()
    """Empty of a leaf, of a tied node, and of a node below the greatest depth."""


class _TieForm(NamedTuple):
    """A tie relative to its alias, which is equal in layers that are tied in the same way."""

    levels_up: int
    below: tuple[str, ...]
    begin: str
    """Transforms as they are written: `transposed(`."""
    end: str


def fold(rows: Iterable[Row], *, depth: int | None = None) -> tuple[Block, ...]:
    """Fold rows into blocks, at most `depth` names deep."""
    nesting = _Nesting()
    nesting.add(rows)
    return tuple(_Folding(depth).blocks(nesting.root, _NodePlace((), (), 1)))


class _Nesting:
    """Nests rows by the names of their paths."""

    def __init__(self) -> None:
        self.root: _Branch = {}
        self._nodes: dict[str, _Branch] = {}

    def add(self, rows: Iterable[Row]) -> None:
        """Put each row into the node that its path names."""
        for row in rows:
            above, slash, name = row.path.rpartition("/")
            parent = self._node(above) if slash else self.root
            if name in parent:  # a node has the path of a leaf, as it may in a file
                self._node(row.path)[_ITSELF] = row
            else:
                parent[name] = row

    def _node(self, path: str) -> _Branch:
        """The node at a path, which is made where it is not there; a leaf at its path goes into it."""
        node = self._nodes.get(path)
        if node is not None:
            return node
        above, slash, name = _above(path)
        parent = self._node(above) if slash else self.root
        child = parent.get(name)
        if type(child) is not dict:
            child = parent[name] = {} if child is None else {_ITSELF: child}
        self._nodes[path] = child
        return child


def _above(path: str) -> tuple[str, str, str]:
    """The path of the node above, a slash and the name; of a path of too many levels the last ones are one name."""
    if len(path) <= DEEPEST or path.count("/") <= DEEPEST:
        return path.rpartition("/")
    *above, name = path.split("/", DEEPEST)
    return "/".join(above), "/", name


class _NodePlace(NamedTuple):
    """Where a node is: its path, the same as it is shown, and how many nodes like it there are."""

    path: tuple[str, ...]
    shown: tuple[str, ...]
    times: int


class _Group(NamedTuple):
    """Siblings that are equal but for their names."""

    names: tuple[str, ...]
    shown: str


class _Folding:
    """Numbers each different structure, so that equal ones have one number; builds blocks of the first of equal ones."""

    def __init__(self, depth: int | None):
        self.depth = depth
        self._numbers: dict[object, int] = {}
        self._of_node: dict[int, int] = {}
        self._sizes: list[Size] = []
        self._ties: list[_TieForm | None] = []

    # -------------------------------------------------------------------- equal structures

    def _number(self, value: _Branch | Row) -> int:
        """The number of a structure: of equal ones the same."""
        if isinstance(value, Row):
            return self._number_of_leaf(value)
        number = self._of_node.get(id(value))
        if number is None:
            number = self._of_node[id(value)] = self._number_of_node(value)
        return number

    def _number_of_leaf(self, row: Row) -> int:
        number = self._numbers.get(row[1:])  # all but the path; in it are the names of an alias, which has none here
        return self._number_of_new_leaf(row) if number is None else number

    def _number_of_new_leaf(self, row: Row) -> int:
        tie = None if row.source is None else _tie_form(row)
        key = row[1:] if tie is None else (row[1:6], row[8:], tie)
        number = self._numbers.get(key)
        if number is None:
            size = Size(flops=row.flops or 0) if tie else Size(row.count, row.bytes, 1, row.flops or 0)
            number = self._new_number(key, size, tie)
        return number

    def _number_of_node(self, node: _Branch) -> int:
        pairs: list[tuple[str, int]] = []
        for name, child in node.items():
            number = self._numbers.get(child[1:]) if isinstance(child, Row) else self._number(child)
            pairs.append((name, self._number(child) if number is None else number))
        # in one order: shards, and files that sort by dtype, list the same leaves of two layers in another order
        pairs.sort()
        key = tuple(pairs)
        number = self._numbers.get(key)
        if number is None:
            size = sum([self._sizes[child] for _, child in key], Size())
            number = self._new_number(key, size, self._tie_of_node(key))
        return number

    def _new_number(self, key: object, size: Size, tie: _TieForm | None) -> int:
        number = self._numbers[key] = len(self._sizes)
        self._sizes.append(size)
        self._ties.append(tie)
        return number

    def _tie_of_node(self, children: Sequence[tuple[str, int]]) -> _TieForm | None:
        """The tie of a node, all of whose leaves are tied to those of one other node."""
        forms: set[_TieForm] = set()
        for name, child in children:
            tie = self._ties[child]
            if tie is None or tie.begin or tie.levels_up < 2 or tie.below[-1:] != (name,):
                return None
            forms.add(tie._replace(levels_up=tie.levels_up - 1, below=tie.below[:-1]))
        return forms.pop() if len(forms) == 1 else None

    # ------------------------------------------------------------------------------ blocks

    def blocks(self, node: _Branch, place: _NodePlace) -> list[Block]:
        return [self._block(node[group.names[0]], group, place) for group in self._groups(node)]

    def _block(self, value: _Branch | Row, group: _Group, above: _NodePlace) -> Block:
        name = group.names[0]
        layers = _layers_of(value, above.path.count(STACKED)) if name == STACKED else 1
        times = len(group.names) * layers
        place = _NodePlace((*above.path, name), (*above.shown, group.shown), above.times * len(group.names))
        number = self._number(value)
        size = self._sizes[number].times(place.times)
        tie = self._ties[number]
        if isinstance(value, Row):
            return Block(group.shown, times, size, value, _shown_tie(tie, place) if tie else "")
        if tie is not None and len(value) > 1:  # of one leaf the names of both are shown
            return Block(group.shown, times, size, tied_to=_shown_tie(tie, place))
        if self.depth is not None and len(place.path) >= self.depth:
            return Block(group.shown, times, size)
        children = self.blocks(value, place)
        if len(children) == 1:
            return _joined(group.shown, times, children[0])
        return Block(group.shown, times, size, children=tuple(children))

    def _groups(self, node: _Branch) -> list[_Group]:
        """The names in a node, equal siblings together: layers by their numbers, other nodes by their names."""
        families: dict[object, list[str]] = {}
        for name, value in node.items():
            families.setdefault(self._fold_key(name, value), []).append(name)
        groups: list[_Group] = []
        for family in families.values():
            if len(family) == 1:
                groups.append(_Group((family[0],), _shown_name(family[0])))
            elif numbered_name(family[0]):
                groups.append(_numbered_group(family))
            else:
                groups += _named_groups(family)
        return groups

    def _fold_key(self, name: str, value: _Branch | Row) -> object:
        """The key that is equal for names which fold into one row."""
        numbered = numbered_name(name)
        if numbered:
            return numbered.before, numbered.after, self._number(value)
        if type(value) is Row or name == STACKED:
            return name
        return self._number(value)


def _shown_name(name: str) -> str:
    return "" if name == _ITSELF else printable(name) or "''"


def _layers_of(value: _Branch | Row, stacks_above: int) -> int:
    """The layers of a stack: the axis of its first leaf that comes after those of the stacks it is in."""
    while type(value) is dict:
        value = next(iter(value.values()))
    if not isinstance(value, Row) or value.shape is None or len(value.shape) <= stacks_above:
        return 1
    return value.shape[stacks_above]


def _tie_form(row: Row) -> _TieForm:
    path, source = row.path.split("/"), (row.source or "").split("/")
    shared = 0
    for name, other in zip(path, source):
        if name != other:
            break
        shared += 1
    begin, end = around_source(row.tied_to or "", row.source or "")
    return _TieForm(len(path) - shared, tuple(source[shared:]), begin, end)


def _shown_tie(tie: _TieForm, place: _NodePlace) -> str:
    """The source of a tie, with the braces of the layers that both are in."""
    kept = place.shown[: len(place.shown) - tie.levels_up]
    below = [printable(name) for name in tie.below]
    return f"{tie.begin}{'/'.join([*kept, *below])}{tie.end}"


def _joined(name: str, times: int, child: Block) -> Block:
    """A node with one child, as one block: `pooler/dense`."""
    joined = f"{name}/{child.name}"
    return Block(joined, times * child.times, child.size, child.leaf, child.tied_to, child.children)


def _numbered_group(names: Sequence[str]) -> _Group:
    """Names that differ by a number alone, as one: `layer_{0..11}`."""
    by_number: dict[int, str] = {}
    for name in names:
        numbered = numbered_name(name) or NumberedName(name, 0, "")
        by_number[numbered.number] = name
    numbers = sorted(by_number)
    first = numbered_name(names[0]) or NumberedName(names[0], 0, "")
    in_order = tuple(by_number[number] for number in numbers)
    return _Group(in_order, f"{printable(first.before)}{short_ranges(numbers)}{printable(first.after)}")


def _named_groups(names: Sequence[str]) -> list[_Group]:
    """Siblings with names, as many in one group as are read at a glance: `{key,query,value}`."""
    groups: list[_Group] = []
    waiting: list[str] = []
    for name in names:
        if waiting and len(_braces([*waiting, name])) > LONGEST_BRACES:
            groups.append(_Group(tuple(waiting), _braces(waiting)))
            waiting = []
        waiting.append(name)
    groups.append(_Group(tuple(waiting), _braces(waiting)))
    return groups


def _braces(names: Sequence[str]) -> str:
    shown = ",".join(map(printable, names))
    return shown if len(names) == 1 else "{" + shown + "}"
