"""Tree, an immutable nested dict that JAX flattens as fast as a plain dict: reading by path, union, equality, printing as a
table.

A Tree is the pair that JAX asks for when it flattens: the children, and a `Layout` that many Trees share: keys, declared
order, ties. The layout is the static part, compared by identity first. So a tie is structure: only its source is a leaf.

A tie lives in the layout of the lowest node that holds both ends, with paths relative to that node, and is
kept leaf by leaf. A node all of whose leaves are aliases is not a child at all: it is put together when it is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from operator import attrgetter
from types import ModuleType
from typing import Any, NamedTuple, NoReturn

import jax

from .._errors import PathError, PtreeError, StructureError
from .._paths import STACKED, split
from .._words import describe, printable, shortened, table
from .entries import entries
from .extra_axes import check_no_extra_axes
from .layers import is_stack, layer_counts
from .layout import Aliases, BareTree, Layout, TiedName, child_of, make, source_of, unflatten_node
from .leaf import PyTree, same
from .location import Place, locate, no_path, read
from .mappings import tree_of
from .nodes import leads_on
from .pairs import mapping_of
from .tie import Tie


class Tree(BareTree, Mapping[str, Any]):
    """An immutable nested dict of parameters; every function of ptree reads it by path, and JAX flattens it by path.

    >>> import jax.numpy as jnp
    >>> params = Tree({"enc": {"kernel": jnp.ones((4, 8)), "bias": jnp.zeros(8)}, "head/bias": jnp.zeros(2)})
    >>> params
    Tree(
      enc/kernel  f32[4,8]
      enc/bias    f32[8]
      head/bias   f32[2]
    )
    >>> params["enc/bias"] is params["enc"]["bias"]
    True

    Iteration and listings are in the order of declaration. (What comes out of `jax.jit` has the order of
    the tree that was compiled: JAX takes two trees that differ in nothing else for one structure.) A stack
    (`ptree.stacks`) has the length, names and items of its layers, "0", "1", ...; `":"` reads them all at once.

    Mappings nest, a list or tuple becomes a node with the keys "0", "1", ..., an int key becomes its
    digits, and a key with `/` in it nests. (So Haiku's keys do, and Haiku takes `ptree.unflatten(tree, like=params)`.) As for a
    dict, an iterator or a list of pairs `(name, value)` is a mapping. A `Tie` as a value (`ptree.transposed("embed/table")`)
    makes its path an alias. Leaves are not copied. JAX flattens the children in the order of their sorted keys.

    `tree | {"head/bias": b}` is the tree with other values at these paths. `{**tree}` is a plain dict, which holds no ties;
    a Tree made of it has those whose two ends still hold the same, and warns of any other.

    Two Trees are equal where structure, ties, shapes, dtypes and values are, a Tree and another mapping where all that can
    be read is: `load(file) == {"w": w}`.

    Args:
        mapping: names or paths -> leaves, mappings, lists or ties; or an iterable of pairs, or a list, whose items get
            the names "0", "1", ...

    Raises:
        PathError: an empty key, or one that is not a string or an int.
        StructureError: two keys that land on one path.
        TieError: an alias without a source, or in a circle.
    """

    __slots__ = ()
    __module__ = "ptree"

    def __new__(cls, mapping: Mapping[Any, PyTree] | Iterable[PyTree] = (), /) -> Tree:
        return mapping if type(mapping) is Tree else tree_of(mapping_of(mapping))

    def __init_subclass__(cls) -> None:
        raise TypeError("Tree cannot be subclassed: JAX would take an instance for a leaf")

    @property
    def _children(self) -> tuple[PyTree, ...]:
        return self._node[0]

    @property
    def _layout(self) -> Layout:
        return self._node[1]

    # reading

    def __getitem__(self, path: str | int) -> PyTree:
        children, layout = self._node
        if type(path) is str:
            if path in layout.aliases:
                filled = getattr(self, "_filled", None)
                if filled is not None and path in filled:
                    return filled[path]
            elif path in layout.index:
                return children[layout.index[path]]
        segments = split(path)
        value = plain_child(self, segments)
        if value is not NOT_PLAIN:
            return value
        if len(segments) == 1:
            return self._read_child(segments)
        place = locate(self, segments)
        if place is None:
            raise no_path(self, segments)
        return read(place)

    def _read_child(self, segments: list[str]) -> PyTree:
        """A child that a tie, or a layer's number, leads to. Nodes with shared leaves are put together once."""
        filled = getattr(self, "_filled", None)
        if filled is not None and segments[0] in filled:
            return filled[segments[0]]
        place = locate(self, segments)
        if place is None:
            raise no_path(self, segments)
        value = read(place)
        if place.shared and not _has_transform(
            place
        ):  # an object for each read, as the leaves seen so are new each time
            if filled is None:
                filled = {}
                object.__setattr__(self, "_filled", filled)
            filled[segments[0]] = value
        return value

    def __contains__(self, path: object) -> bool:
        try:
            return locate(self, split(path)) is not None  # pyright: ignore[reportArgumentType]
        except PathError:
            return False

    def get(self, path: str | int, default: Any = None) -> Any:
        """What is at the path, or the default.

        Args:
            path: of a leaf or node.
            default: what is returned where there is no such path.
        """
        try:
            return self[path]
        except PathError:
            return default

    def __iter__(self) -> Iterator[str]:
        names = self._layout.names()
        if is_stack(names):
            return map(str, range(self._layer_count()))
        tied_names = self._layout.tied_names
        return iter([tied_names.get(name, name) for name in names]) if tied_names else iter(names)

    def __len__(self) -> int:
        names = self._layout.names()
        return self._layer_count() if is_stack(names) else len(names)

    def __bool__(self) -> bool:
        return bool(self._layout.names())

    def _layer_count(self) -> int:
        """How many layers a stack has."""
        check_no_extra_axes(self, 0, "")
        counts = layer_counts(self[STACKED], 0)
        if len(counts) == 1:
            return counts.pop()
        sizes = " or ".join(map(str, sorted(counts)))
        why = f"its leaves have {sizes}" if counts else "its leaves, which have no shape, do not say so"
        raise StructureError(
            f"how many layers the stack has is not known: {why}."
            " Read all layers at once with [':'], or name their number: ptree.stacks.unstack(tree, path, size)"
        )

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if type(other) is not Tree:
            return _reads_as(self, other) if isinstance(other, Mapping) else NotImplemented
        (left, one), (right, two) = jax.tree.flatten(self), jax.tree.flatten(other)
        return one == two and all(map(same, left, right))

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    # showing

    def __repr__(self) -> str:
        return _shown(self)

    def _repr_html_(self) -> str:
        return _look("_summary.summary").summary(self)._repr_html_()

    def __treescope_repr__(self, path: str | None, subtree_renderer: Any) -> Any:
        return _look("_notebook.treescope_tree").tree_rendering(self, path, subtree_renderer)

    # never writing

    def _immutable(self, name: object = "path", *_: object) -> NoReturn:
        raise TypeError(
            f"a Tree is immutable: use ptree.set(tree, {name!r}, value), which returns a new tree"
            " (ptree.put adds, ptree.drop removes)"
        )

    __setattr__ = __delattr__ = __setitem__ = __delitem__ = _immutable  # pyright: ignore

    def __ior__(self, other: object) -> NoReturn:
        raise TypeError("a Tree is immutable: use `tree = tree | other`, which gives a new tree")

    # no array: without these NumPy would make one of the names

    __array_ufunc__ = None

    def __array__(self, *_: object, **__: object) -> NoReturn:
        raise TypeError(
            "a Tree is no array: ptree.items(tree) lists the arrays in it, and ptree.get(tree, path) reads one"
        )

    # other trees

    def __or__(self, other: object) -> Tree:
        if not isinstance(other, Mapping):
            return NotImplemented
        if type(other) is Tree:
            return _united(self, other)
        if any(type(name) is TiedName for name in other):
            return _united(self, Tree(other))
        tree = self
        for path, value in other.items():
            tree = BareTree._put(tree, path, value)
        return tree

    def __ror__(self, other: object) -> Tree:
        return Tree(other) | self if isinstance(other, Mapping) else NotImplemented

    # copying

    def copy(self) -> Tree:
        """The tree itself, as it cannot change."""
        return self

    def __copy__(self) -> Tree:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return make, (self._layout, self._children)


BareTree.finished = Tree

NOT_PLAIN = object()
"""What `plain_child` returns where a path needs a closer look."""


def plain_child(node: PyTree, segments: Sequence[str]) -> PyTree:
    """What is at these segments where only Trees, and at the end at most a plain tie, or only dicts are on the way.

    Else `NOT_PLAIN`.

    The fast path of reading: a third of the time of `locate`.
    """
    if type(node) is dict:
        return _child_of_dicts(node, segments)
    above = node
    for segment in segments:
        if type(node) is not Tree:
            return NOT_PLAIN
        children, layout = node._node
        position = layout.index.get(segment)
        if segment in layout.aliases:
            return _plain_alias(above, segments)
        if position is None:
            return NOT_PLAIN
        node = children[position]
    return node


def _child_of_dicts(node: PyTree, segments: Sequence[str]) -> PyTree:
    for used, segment in enumerate(segments):
        if type(node) is not dict or not leads_on(node, segments[used:]):
            return NOT_PLAIN
        node = node[segment]
    return node


def _plain_alias(node: Tree, segments: Sequence[str]) -> PyTree:
    """What is at these segments where they are an alias without a transform; else `NOT_PLAIN`."""
    owner = node
    hit: Aliases | Tie | None = None
    for segment in segments:
        declared = node._layout.aliases if hit is None else hit
        if not isinstance(declared, dict):
            return NOT_PLAIN
        hit = declared.get(segment)
        if hit is None and declared is not node._layout.aliases:
            return NOT_PLAIN
        if hit is None:
            node = owner = child_of(node, segment)
    if not isinstance(hit, Tie) or hit.via:
        return NOT_PLAIN
    return source_of(owner, hit)


def _united(tree: Tree, other: Tree) -> Tree:
    """The tree with all that another one has at its first level, and the ties between it."""
    layout = other._layout
    for name in layout.names():
        tree = BareTree._put(tree, name, other[name])
    for alias, tie in layout.ties:
        tree = BareTree._put(tree, alias, tie)
    return tree


def _reads_as(tree: Tree, mapping: Mapping[Any, PyTree]) -> bool:
    """Whether all that can be read in a Tree and in a mapping is the same, under every name."""
    plain = {str(key) if type(key) is TiedName else key: value for key, value in mapping.items()}
    try:
        other = tree_of(plain)
    except PtreeError:  # it has keys that no Tree has
        return False
    return _all_readings(tree) == _all_readings(other)


def _all_readings(tree: Tree) -> dict[str, _Reading]:
    """What is read at each path, aliases included."""
    found: dict[str, _Reading] = {}
    for path, value in entries(tree).items():
        found[path] = _Reading(tree[path] if type(value) is Tie else value)
    return found


class _Reading(NamedTuple):
    """A leaf that is equal to others by shape, dtype and values."""

    leaf: PyTree

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Reading) and same(self.leaf, other.leaf)


def _has_transform(place: Place) -> bool:
    waiting: list[Any] = [shared.aliases for shared in place.shared]
    while waiting:
        for hit in waiting.pop().values():
            if not isinstance(hit, Tie):
                waiting.append(hit)
            elif hit.via:
                return True
    return False


_flatten = attrgetter("_node")  # in C: most of the cost of flattening is this call


def _flatten_with_keys(tree: Tree) -> tuple[Any, Layout]:
    return tuple(zip(tree._layout.key_entries, tree._children, strict=True)), tree._layout


jax.tree_util.register_pytree_with_keys(Tree, _flatten_with_keys, unflatten_node, _flatten)  # pyright: ignore[reportArgumentType]


def _look(module: str) -> ModuleType:
    """A module of `ptree.look`, the room far above this one: opened when a notebook shows a tree."""
    return import_module(f"ptree.look.{module}")


def _shown(tree: Tree, most: int = 40) -> str:
    """A table of paths and what is there, cut to a screen."""
    rows = [(shortened(printable(path), 60), _shown_value(value)) for path, value in entries(tree).items()]
    if not rows:
        return "Tree()"
    more = len(rows) - most
    shown = [f"  {line}" for line in table(rows if more <= 0 else rows[: most - 1])]
    if more > 0:
        shown.append(f"  ... and {more + 1} more")
    return "\n".join(["Tree(", *shown, ")"])


def _shown_value(value: PyTree) -> str:
    if type(value) is Tie:
        return f"= {value.shown()}"
    return "(empty)" if type(value) is Tree else describe(value)
