"""Layout, the static part of a Tree that JAX compares: keys, declared order, ties. BareTree, a Tree without methods: make one,
find a child or source."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar, NamedTuple
from weakref import WeakValueDictionary

from jax.tree_util import DictKey

from .leaf import Leaf, PyTree
from .tie import Tie


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


MISSING: Leaf = _Missing()
"""Stands for 'nothing is here' where None is a possible value."""

Aliases = dict[str, "Tie | Aliases"]
"""The ties of a node by the segments of their aliases' paths."""


class TiedName(str):
    """A name that is an alias, or has aliases in it, as iteration over the node that declares them gives it.

    It is the string, and knows these ties: so they are found again in a dict that was made by `{**tree}`.
    """

    __slots__ = ("ties",)

    ties: tuple[tuple[str, Tie], ...]

    def __copy__(self) -> TiedName:
        return self

    def __deepcopy__(self, memo: object) -> TiedName:
        return self

    def __reduce__(self) -> tuple[object, ...]:  # a pickle of such a dict can be read without ptree
        return str, (str(self),)


class StackAxes(NamedTuple):
    """The axes that the leaves of a stack had when it was made, without those of the stacks around it."""

    total: int
    """The number of axes of all leaves in sum."""
    leaves: int
    first: int | None = None
    """The number of axes of the first leaf: where that is what it was, no axis was added. None if it is not known."""


class Layout:
    """The keys, the declared order and the ties of a node, which many Trees share.

    Two layouts are equal where keys and ties are: the declared order is for people, and the axes that a stack was made with
    tell those that `jax.vmap` added. There is one object for equal facts, so that JAX compares two trees by identity first.
    """

    __slots__ = (
        "__weakref__", "_comparable", "_hash", "aliases", "gaps", "index", "key_entries", "keys", "listing", "order", "stack_axes",
        "tied_names", "ties",
    )  # fmt: skip

    keys: tuple[str, ...]  # of the children, in the order in which JAX flattens a dict
    order: tuple[str, ...]  # the names as they were declared: children, aliases, and what `partition` left a gap for;
    # also paths with `/`, below a node that is no child as it has nothing but aliases and gaps
    ties: tuple[tuple[str, Tie], ...]  # alias path -> source, both from this node
    index: dict[str, int]  # key -> position of the child
    key_entries: tuple[object, ...]  # the keys as JAX names them
    listing: tuple[tuple[str, int], ...]  # the children in declared order: name, position
    aliases: Aliases
    gaps: Aliases  # the paths in the order, by their segments
    tied_names: dict[str, TiedName]
    stack_axes: StackAxes | None  # of a stack, as it was made

    def __init__(
        self,
        keys: tuple[str, ...],
        order: tuple[str, ...],
        ties: tuple[tuple[str, Tie], ...],
        stack_axes: StackAxes | None = None,
    ):
        self.keys, self.order, self.ties, self.stack_axes = keys, order, ties, stack_axes
        self.index = {key: position for position, key in enumerate(keys)}
        self.key_entries = tuple(DictKey(key) for key in keys)
        self.listing = tuple((name, self.index[name]) for name in order if name in self.index)
        self.aliases = _nested(ties)
        self.gaps = _nested((path, Tie("")) for path in order if "/" in path)
        self.tied_names = _tied_names(ties)
        self._comparable = (keys, frozenset(ties))
        self._hash = hash(self._comparable)

    @staticmethod
    def of(
        order: Iterable[str],
        keys: Iterable[str],
        ties: Iterable[tuple[str, Tie]] = (),
        stack_axes: StackAxes | None = None,
    ) -> Layout:
        """The one layout with these facts."""
        facts = tuple(sorted(keys)), tuple(order), tuple(ties), stack_axes
        layout = _layouts.get(facts)
        if layout is None:
            layout = _layouts[facts] = Layout(*facts)
        return layout

    def names(self) -> list[str]:
        """The names that can be read here, of children and of aliases, as they were declared."""
        return [name for name in self.order if name in self.index or name in self.aliases]

    def __eq__(self, other: object) -> bool:  # JAX asks only where the two are not the same object
        return isinstance(other, Layout) and self._comparable == other._comparable

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[object, ...]:
        # copies and pickles, also those inside of a treedef, become the one layout of the process that reads them:
        # another object would be found by its facts alone, and its hash holds only where it was made
        return Layout.of, (self.order, self.keys, self.ties, self.stack_axes)

    def __repr__(self) -> str:  # seen in JAX's own messages about tree structures
        ties = "".join(f", {alias} = {tie.shown()}" for alias, tie in self.ties)
        return f"[{', '.join(self.keys)}{ties}]"


_layouts: WeakValueDictionary[tuple[object, ...], Layout] = WeakValueDictionary()


def _tied_names(ties: Iterable[tuple[str, Tie]]) -> dict[str, TiedName]:
    found: dict[str, list[tuple[str, Tie]]] = {}
    for alias, tie in ties:
        found.setdefault(alias.partition("/")[0], []).append((alias, tie))
    names: dict[str, TiedName] = {}
    for name, its_ties in found.items():
        names[name] = TiedName(name)
        names[name].ties = tuple(its_ties)
    return names


def _nested(ties: Iterable[tuple[str, Tie]]) -> Aliases:
    aliases: Aliases = {}
    for path, tie in ties:
        *above, name = path.split("/")
        node = aliases
        for segment in above:
            node = node.setdefault(segment, {})
            assert isinstance(node, dict)  # an alias has no alias below it
        node[name] = tie
    return aliases


class BareTree:
    """A node of a Tree: the tuple of its children and its layout, just what JAX asks for when it flattens."""

    __slots__ = ("_filled", "_node")

    _node: tuple[tuple[PyTree, ...], Layout]  # one object, so that flattening makes none
    _filled: dict[str, PyTree]  # children that hold shared leaves, once they were read

    finished: type[BareTree]
    """The class that a node gets when it is made: `Tree`, which is defined on top of this module."""

    _put: ClassVar[Callable[[PyTree, str | int, PyTree], PyTree]]
    """`ptree.put`, which is defined on top of this package: `tree | mapping` is made of it."""


def make(layout: Layout, children: Iterable[PyTree]) -> PyTree:
    """The Tree of a layout and its children; anything may be a child."""
    return unflatten_node(layout, tuple(children))


def unflatten_node(layout: Layout, children: tuple[PyTree, ...]) -> PyTree:
    """The Tree of a layout and a tuple of children, in as few steps as Python allows: JAX calls it for each node."""
    tree = BareTree()
    tree._node = (children, layout)
    # assigning the class is cheaper than going round Tree.__setattr__, which refuses
    tree.__class__ = BareTree.finished
    return tree


def child_of(node: BareTree, name: str) -> PyTree:
    """The child that a node holds under a name, without the aliases that belong in it; `MISSING` where it has none."""
    children, layout = node._node
    position = layout.index.get(name)
    return MISSING if position is None else children[position]


def source_of(owner: BareTree, tie: Tie) -> PyTree:
    """What is kept at the source of a tie; a source is no alias."""
    node: PyTree = owner
    for name in tie.source.split("/"):
        node = child_of(node, name)
    return node
