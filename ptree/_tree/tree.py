"""Tree, an immutable nested dict that JAX flattens as fast as a plain dict, and its layout.

A Tree is the pair that JAX asks for when it flattens: the children, and a *layout* that many Trees share.
The layout holds all that is not a value: the keys, the order in which they were declared, and the ties. It
is the static part, compared by identity first. So a tie is structure: only its source is a leaf.

A *stack*, layers of one structure whose leaves have an axis more in front, is a node whose one name is `:`; how
many layers there are, the leaves tell. A number in a path through it reads one layer.

A tie lives in the layout of the lowest node that holds both ends, with paths relative to that node.
Ties are always kept leaf by leaf. A node all of whose leaves are aliases is not a child at all: it is
put together when it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, NoReturn
from weakref import WeakValueDictionary

import jax
from jax.tree_util import DictKey

from .._errors import PathError
from .._paths import STACKED, natural, split
from .._words import describe, listed, quoted, suggestion
from .leaf import layer_of, same
from .tie import Tie

MISSING: Any = type("Missing", (), {"__repr__": lambda self: "MISSING"})()
"""Stands for 'nothing is here' where None is a possible value."""


# ------------------------------------------------------------------------------- Layout


class Layout:
    """All of a node that is not a value. Two are equal where keys and ties are; order is for people."""

    __slots__ = ("__weakref__", "_hash", "_same", "aliases", "entries", "index", "keys", "listing", "order", "ties")

    keys: tuple[str, ...]  # of the children, in the order in which JAX flattens a dict
    order: tuple[str, ...]  # names as they were declared; those of aliases and their paths too, and of what is gone
    ties: tuple[tuple[str, Tie], ...]  # alias path -> source, both from this node
    index: dict[str, int]  # key -> position of the child
    entries: tuple[Any, ...]  # the keys as JAX names them
    listing: tuple[tuple[str, int], ...]  # the children as a person lists them: name, position
    aliases: dict[str, Any]  # the ties as a nested dict of names

    def __init__(self, keys: tuple[str, ...], order: tuple[str, ...], ties: tuple[tuple[str, Tie], ...]):
        self.keys, self.order, self.ties = keys, order, ties
        self.index = {key: at for at, key in enumerate(keys)}
        self.entries = tuple(DictKey(key) for key in keys)
        self.listing = tuple((name, self.index[name]) for name in order if name in self.index)
        self.aliases = {}
        for alias, tie in ties:
            *above, name = alias.split("/")
            node = self.aliases
            for segment in above:
                node = node.setdefault(segment, {})
            node[name] = tie
        self._same = (keys, frozenset(ties))
        self._hash = hash(self._same)

    @staticmethod
    def of(order: Iterable[str], keys: Iterable[str], ties: Iterable[tuple[str, Tie]] = ()) -> Layout:
        """The one layout with these facts."""
        facts = tuple(sorted(keys)), tuple(order), tuple(ties)
        layout = _layouts.get(facts)
        if layout is None:
            layout = _layouts[facts] = Layout(*facts)
        return layout

    def names(self) -> list[str]:
        """The names that can be read here, of children and of aliases, as they were declared."""
        return [name for name in self.order if name in self.index or name in self.aliases]

    def __eq__(self, other: object) -> bool:  # JAX asks only where the two are not the same object
        return isinstance(other, Layout) and self._same == other._same

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:  # seen in JAX's own messages about tree structures
        ties = "".join(f", {alias} = {tie.shown()}" for alias, tie in self.ties)
        return f"[{', '.join(self.keys)}{ties}]"


_layouts: WeakValueDictionary[Any, Layout] = WeakValueDictionary()


# --------------------------------------------------------------------------------- Tree


class Slot:
    """A Tree while it is being made: the same slot, and assignment still allowed."""

    __slots__ = ("_node", "_seen")

    _node: tuple[tuple[Any, ...], Layout]  # just what JAX asks for, so that flattening makes no object
    _seen: dict[str, Any]  # nodes that were put together of what ties share, once somebody has read them


class Tree(Slot, Mapping[str, Any]):
    """An immutable nested dict of parameters; every function of ptree reads, and JAX flattens, it by path.

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
    the tree that was compiled: JAX takes two trees that differ in nothing else for one structure.)

    Mappings nest, a list or tuple becomes a node with the keys "0", "1", ..., an int key becomes its
    digits, and a key with `/` in it nests. A `Tie` as a value (`ptree.transposed("embed/table")`) makes
    its path an alias. Leaves are not copied. JAX flattens the children in the order of their sorted keys.

    Raises:
        PathError: an empty key, or one that is not a string or an int.
        StructureError: two keys that land on one path.
        TieError: an alias without a source, or in a circle.
    """

    __slots__ = ()
    __module__ = "ptree"

    def __new__(cls, mapping: Mapping[Any, Any] | Sequence[Any] = (), /) -> Tree:
        if type(mapping) is Tree:
            return mapping
        from .nested import tree_of

        return tree_of(mapping)

    def __init_subclass__(cls) -> None:
        raise TypeError("Tree cannot be subclassed: JAX would take an instance for a leaf")

    @property
    def _children(self) -> tuple[Any, ...]:
        return self._node[0]

    @property
    def _layout(self) -> Layout:
        return self._node[1]

    # reading

    def __getitem__(self, path: str | int) -> Any:
        children, layout = self._node
        at = layout.index.get(path) if type(path) is str else None
        if at is not None and path not in layout.aliases:
            return children[at]
        segments = split(path)
        value = find(self, segments)
        if value is MISSING:
            raise no_path(self, segments)
        return value

    def __contains__(self, path: object) -> bool:
        try:
            segments = split(path)  # pyright: ignore[reportArgumentType]
        except PathError:
            return False
        node, above, hit = _pass(self, segments)  # without looking through a transform
        known = node is not MISSING or bool(above) or (hit is not None and hit[3] == len(segments) - 1)
        return known or find(self, segments) is not MISSING

    def get(self, path: str | int, default: Any = None) -> Any:
        """What is at the path, or the default."""
        try:
            value = find(self, split(path))
        except PathError:
            return default
        return default if value is MISSING else value

    def __iter__(self) -> Iterator[str]:
        return iter(self._layout.names())

    def __len__(self) -> int:
        return len(self._layout.names())

    def __eq__(self, other: object) -> bool:
        if type(other) is not Tree:
            return NotImplemented
        if self is other:
            return True
        (left, one), (right, two) = jax.tree.flatten(self), jax.tree.flatten(other)
        return one == two and all(map(same, left, right))

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    # showing

    def __repr__(self) -> str:
        from .nested import show

        return show(self)

    # never writing

    def _immutable(self, name: object = "path", *_: object) -> NoReturn:
        raise TypeError(
            f"a Tree is immutable: use ptree.set(tree, {name!r}, value), which returns a new tree"
            " (ptree.put adds, ptree.drop removes)"
        )

    __setattr__ = __delattr__ = __setitem__ = __delitem__ = __ior__ = _immutable  # pyright: ignore

    # copying

    def __copy__(self) -> Tree:
        return self

    def __reduce__(self) -> Any:
        layout = self._layout
        return _restore, (layout.keys, layout.order, layout.ties, self._children)


def unflatten_node(layout: Layout, children: Any) -> Tree:
    """The Tree of a layout and a tuple of children, in as few steps as Python allows: JAX calls it for each node."""
    tree = Slot()
    tree._node = (children, layout)
    tree.__class__ = Tree  # cheaper than going round __setattr__
    return tree  # pyright: ignore[reportReturnType]


def make(layout: Layout, children: Iterable[Any]) -> Tree:
    """The Tree of a layout and its children; anything may be a child."""
    return unflatten_node(layout, tuple(children))


def _restore(keys: Any, order: Any, ties: Any, children: Any) -> Tree:
    return make(Layout.of(order, keys, ties), children)


_flatten = attrgetter("_node")  # in C: most of the cost of flattening is this call


def _flatten_with_keys(tree: Tree) -> tuple[Any, Layout]:
    return tuple(zip(tree._layout.entries, tree._children, strict=True)), tree._layout


jax.tree_util.register_pytree_with_keys(Tree, _flatten_with_keys, unflatten_node, _flatten)


# ------------------------------------------------------------------------------ reading


def child(node: Any, name: str) -> Any:
    """The child that a Tree holds under a name, without the aliases that belong in it, or `MISSING`."""
    at = node._layout.index.get(name) if type(node) is Tree else None
    return MISSING if at is None else node._children[at]


def find(tree: Any, segments: Sequence[str]) -> Any:
    """What is at these segments, seen through the ties, or `MISSING`."""
    node = tree
    for segment in segments:
        if type(node) is not Tree:
            return MISSING
        children, layout = node._node
        at = layout.index.get(segment)
        if at is None or segment in layout.aliases:
            return _find_tied(tree, segments)
        node = children[at]
    return node


def _find_tied(tree: Tree, segments: Sequence[str]) -> Any:
    name = segments[0] if len(segments) == 1 else None
    seen = getattr(tree, "_seen", None)
    if seen is not None and name in seen:
        return seen[name]
    node, above, hit = _pass(tree, segments)
    if name is not None and above and not any(tie.via for _, _, part in above for _, tie in _alias_leaves(part, "")):
        for owner, _, aliases in above:
            node = _fill(node, owner, aliases)
        if seen is None:
            seen = {}
            object.__setattr__(tree, "_seen", seen)
        seen[name] = node
        return node
    if hit is not None:
        tie, owner, _, at = hit
        return find(tie.read(find(owner, tie.source.split("/"))), segments[at + 1 :])
    for owner, _, aliases in above:
        node = _fill(node, owner, aliases)
    if node is MISSING and (layer := indexed(tree, segments)) is not None:
        whole, index = layer
        node = find(tree, whole)
        return layers_of(node, index) if has_layer(node, index) else MISSING
    return node


def _tree_names(node: Any) -> list[str] | None:
    return list(node) if type(node) is Tree else None


def _tree_step(node: Any, name: str) -> Any:
    return find(node, [name])


Names = Callable[[Any], Sequence[str] | None]
Step = Callable[[Any, str], Any]


def indexed(
    tree: Any, segments: Sequence[str], names: Names = _tree_names, step: Step = _tree_step
) -> tuple[list[str], tuple[Any, ...]] | None:
    """A path with `:` for each number of a layer in a stack, and the index that takes them; None where there is none."""
    if not any(segment.isdecimal() and len(segment) < 10 for segment in segments):
        return None
    node, whole, index = tree, list[str](), list[Any]()
    for segment in segments:
        known = names(node)
        if known is not None and [*known] == [STACKED] and segment.isdecimal():
            index.append(int(segment))
            segment = STACKED
        elif known is None or segment not in known:
            return None
        elif segment == STACKED:
            index.append(slice(None))
        whole.append(segment)
        node = step(node, segment)
    while index and isinstance(index[-1], slice):
        index.pop()
    return (whole, tuple(index)) if index else None


def has_layer(node: Any, index: tuple[Any, ...]) -> bool:
    """Whether all leaves of a stack are long enough for the index."""
    shapes = [leaf.shape for leaf in jax.tree.leaves(node) if len(getattr(leaf, "shape", ())) >= len(index)]
    return all(type(at) is slice or at < size for shape in shapes for size, at in zip(shape, index, strict=False))


def layers_of(node: Any, index: tuple[Any, ...]) -> Any:
    """What is at an index into stacks: each leaf's own layer."""
    return jax.tree.map(lambda leaf: layer_of(leaf, index), node)


def resolve(tree: Any, segments: Sequence[str]) -> tuple[Sequence[str], Tie | None]:
    """Where a path is really kept, and the tie that leads there (None where the path is no alias).

    The tie's source is relative to the node that owns it; the segments are from the root.
    """
    _, _, hit = _pass(tree, segments)
    if hit is None:
        return segments, None
    tie, _, depth, at = hit
    if at < len(segments) - 1:  # below a container in the place of a leaf, which no transform looks into
        tie = Tie(tie.source)
    return [*segments[:depth], *tie.source.split("/"), *segments[at + 1 :]], tie


def _pass(tree: Any, segments: Sequence[str]) -> tuple[Any, list[Any], tuple[Tie, Tree, int, int] | None]:
    """Go down these segments: the node there without its aliases, those aliases, or the tie met on the way.

    An owner's aliases are a nested dict of names, which is gone down in step with the nodes. Returned are
    the (owner, its depth, what is left of the dict) at the end; or the tie, its owner and its depth, and how
    many segments lead to the alias.
    """
    node: Any = tree
    above: list[tuple[Tree, int, dict[str, Any]]] = []
    for at, segment in enumerate(segments):
        if type(node) is Tree and segment in node._layout.aliases:
            above.append((node, at, node._layout.aliases))
        below: list[tuple[Tree, int, dict[str, Any]]] = []
        for owner, depth, aliases in above:
            hit = aliases.get(segment)
            if type(hit) is Tie:
                return MISSING, [], (hit, owner, depth, at)
            if hit is not None:
                below.append((owner, depth, hit))
        node, above = child(node, segment), below
        if node is MISSING and not below:
            break
    return node, above, None


def _fill(node: Any, owner: Tree, aliases: dict[str, Any]) -> Any:
    """A node with those of its aliases put in whose sources lie outside of it."""
    if node is MISSING:
        return _image(owner, aliases)
    if type(node) is not Tree:
        return node
    layout = node._layout
    children = dict(zip(layout.keys, node._children, strict=True))
    for name, hit in aliases.items():
        if type(hit) is Tie:
            children[name] = hit.read(find(owner, hit.source.split("/")))
        else:
            children[name] = _fill(children.get(name, MISSING), owner, hit)
    order = dict.fromkeys((*layout.order, *children))
    return make(Layout.of(order, children, layout.ties), (children[key] for key in sorted(children)))


def _image(owner: Tree, aliases: dict[str, Any]) -> Tree:
    """The node that these aliases make up: the source's own object where they are all of it, and plain."""
    ties = list(_alias_leaves(aliases, ""))
    path, first = ties[0]
    if first.source.endswith("/" + path):
        source = first.source.removesuffix("/" + path)
        node = find(owner, source.split("/"))
        if all(tie == Tie(f"{source}/{path}") for path, tie in ties) and _plain_leaves(node) == len(ties):
            return node
    from .nested import Nested, build, insert

    nested, names = Nested(), dict[Tie, str]()
    for path, tie in ties:  # two aliases of one source are tied to each other
        seen = names.setdefault(tie, path)
        value = tie.read(find(owner, tie.source.split("/"))) if seen == path else Tie(seen)
        insert(nested, path.split("/"), value)
    return build(nested)


def _plain_leaves(node: Any) -> int | None:
    """How many leaves a node has, if it has no ties and no empty nodes; otherwise None."""
    if type(node) is not Tree:
        return 1
    counts = [_plain_leaves(child) for child in node._children]
    if node._layout.ties or not counts or None in counts:
        return None
    return sum(filter(None, counts))


def _alias_leaves(aliases: dict[str, Any], prefix: str) -> Iterator[tuple[str, Tie]]:
    for name, hit in aliases.items():
        if type(hit) is Tie:
            yield prefix + name, hit
        else:
            yield from _alias_leaves(hit, f"{prefix}{name}/")


def no_path(tree: Any, segments: Sequence[str], *how: Any) -> PathError:
    """The error for a path that is not there."""
    return PathError(f"no path {quoted('/'.join(segments))}: {where_it_stops(tree, segments, *how)}")


def where_it_stops(
    tree: Any,
    segments: Sequence[str],
    names: Names = _tree_names,
    step: Step = _tree_step,
    otherwise: str = "only ptree.get can read below a node that is no Tree",
) -> str:
    """How far a path goes, what is there, and the nearest name; `otherwise` where it does not stop."""
    node, at = tree, 0
    while at < len(segments):
        here, rest = "/".join(segments[:at]), "/".join(segments[at:])
        known = names(node)
        place = f"at {quoted(here)}" if here else "at the root"
        if known is None:
            return f"{place} is {describe(node)}, not a node"
        taken = [name for name in known if rest == name or rest.startswith(f"{name}/")]  # it may hold slashes
        if not taken:
            prefix = here + "/" if here else ""
            if [*known] == [STACKED]:
                return f"{place} is a stack{_of(step(node, STACKED), segments[:at])}: ':' names all its layers, a number one"
            hint = suggestion(segments[at], known, prefix) or suggestion(rest, known, prefix)
            return f"{place} there are {listed(sorted(known, key=natural))}.{hint}"
        name = max(taken, key=len)
        node, at = step(node, name), at + name.count("/") + 1
    return otherwise


def _of(layers: Any, above: Sequence[str]) -> str:
    """How many layers a stack has, if its leaves tell."""
    axis = [*above].count(STACKED)
    sizes = {leaf.shape[axis] for leaf in jax.tree.leaves(layers) if len(getattr(leaf, "shape", ())) > axis}
    return f" of {sizes.pop()} layers" if len(sizes) == 1 else ""


def prune(tree: Tree, children: Sequence[Any]) -> Tree:
    """The Tree with these children, in the order of the keys, less those that are `MISSING`.

    A tie stays as long as its source does. The names of what is gone keep their place in the order.
    """
    layout = tree._layout
    kept = {key: value for key, value in zip(layout.keys, children, strict=True) if value is not MISSING}
    bare = make(Layout.of(layout.order, kept), kept.values())
    ties = [(alias, tie) for alias, tie in layout.ties if find(bare, tie.source.split("/")) is not MISSING]
    return make(Layout.of(layout.order, kept, ties), kept.values()) if ties else bare
