"""Parts of a tree: select and partition take them out, mask marks them, merge puts them together."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from operator import is_
from typing import Any

from .._errors import StructureError
from .._paths import natural
from .._tree import MISSING, Layout, Tree, emptied, find, make, new_key, opened, remade
from .._words import listed, quoted
from .access import map_leaves
from .selectors import Selector, check_depth, choose, leaves


def select(tree: Any, selector: Selector) -> Any:
    """A tree of the selected leaves only, under their own paths.

    >>> select(Tree({"enc": {"kernel": 1, "bias": 2}, "head/bias": 3}), "**/bias")
    Tree(
      enc/bias   2
      head/bias  3
    )

    Aliases come along with their source. Where a container cannot lose a child, None stands in its place.

    Raises:
        PatternError: the selector is malformed, or a part of it matches nothing.
        PathError: two leaves of a plain tree have one path, or it has more than 256 levels.
    """
    return partition(tree, selector)[0]


def partition(tree: Any, selector: Selector) -> tuple[Any, Any]:
    """Two trees: the selected leaves, and the rest. `merge` puts them together again.

    >>> head, body = partition(Tree({"enc": {"kernel": 1}, "head": {"kernel": 2}}), "head")
    >>> head["head/kernel"], body["enc/kernel"]
    (2, 1)

    Nodes that were empty before stay in the rest.

    Raises:
        PatternError: the selector is malformed, or a part of it matches nothing.
        PathError: two leaves of a plain tree have one path, or it has more than 256 levels.
    """
    chosen = frozenset(path for path, _ in choose(tree, selector))
    halves = (_part(tree, chosen, True, ""), _part(tree, chosen, False, ""))
    first, second = (emptied(tree) if half is MISSING else half for half in halves)
    return first, second


def mask(tree: Any, selector: Selector) -> Any:
    """A tree of the same structure: True at the selected leaves, False at the others.

    >>> mask(Tree({"enc": {"kernel": 1, "bias": 2}}), "**/kernel")
    Tree(
      enc/kernel  True
      enc/bias    False
    )

    Raises:
        PatternError: the selector is malformed, or a part of it matches nothing.
        PathError: two leaves of a plain tree have one path, or it has more than 256 levels.
    """
    chosen = frozenset(path for path, _ in choose(tree, selector))
    return map_leaves(tree, lambda path, _: path in chosen)


def _part(node: Any, chosen: frozenset[str], taken: bool, prefix: str) -> Any:
    """The node with the chosen leaves only (or with the others only), or `MISSING` where none is left."""
    check_depth(node, prefix)
    inside = opened(node)
    if inside is None:
        return node if (prefix[:-1] in chosen) == taken else MISSING
    if not inside.names:
        return MISSING if taken else node
    values = [_part(v, chosen, taken, f"{prefix}{n}/") for n, v in zip(inside.names, inside.values, strict=True)]
    if all(map(is_, values, inside.values)):
        return node
    if all(value is MISSING for value in values):
        return MISSING
    if isinstance(node, OrderedDict):  # its order is part of its structure, which merge could not know
        return inside.rebuild([None if value is MISSING else value for value in values])
    return inside.keep(values)


def merge(*trees: Any) -> Any:
    """One tree with the leaves of all; the inverse of `partition`.

    >>> merge(Tree({"enc": {"kernel": 1}}), Tree({"enc": {"bias": 2}, "head/bias": 3}))
    Tree(
      enc/kernel  1
      enc/bias    2
      head/bias   3
    )

    Ties of every tree stay. An empty node, or None, gives way to whatever another tree has there. The keys of
    a plain dict come in the order of the trees.

    Raises:
        StructureError: a path that is in more than one tree, or containers that do not fit.
        PathError: trees that together have one path twice, or more than 256 levels.
    """
    if not trees:
        raise StructureError("cannot merge: no tree was given")
    overlap: list[str] = []
    merged = trees[0]
    for tree in trees[1:]:
        merged = _merge(merged, tree, "", overlap)
    if overlap:
        names = sorted({*overlap}, key=natural)
        raise StructureError(
            f"cannot merge: {listed(names)} {'is' if len(names) == 1 else 'are'} in more than one tree."
            " Drop one side first, or use ptree.set to replace values",
            unexpected=names,
        )
    return merged


def _merge(a: Any, b: Any, prefix: str, overlap: list[str]) -> Any:
    if a is None or b is None:
        return b if a is None else a
    left, right = opened(a), opened(b)
    check_depth(a, prefix)
    if left is not None and not left.names and (right is None or right.names or type(a) is not Tree):
        return b
    if right is not None and not right.names:
        return a
    if left is None or right is None:
        overlap.append(prefix[:-1])
        return a
    if type(a) is Tree or type(b) is Tree:
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            return _merge_trees(Tree(a), Tree(b), prefix, overlap)
    elif type(a) is type(b) and not isinstance(a, dict) and list(left.names) == list(right.names):
        pairs = zip(left.names, left.values, right.values, strict=True)
        return left.rebuild([_merge(x, y, f"{prefix}{name}/", overlap) for name, x, y in pairs])
    elif isinstance(a, Mapping) and type(a) is type(b):
        out, known = dict(a), {str(key): key for key in a}
        for key, value in b.items():
            if str(key) in known:
                old = known[str(key)]
                out[old] = _merge(out[old], value, f"{prefix}{key}/", overlap)
            else:
                out[new_key(a, str(key), f"cannot merge at {quoted(prefix[:-1])}", key)] = value
        merged = remade(a, out)
        if any("/" in name for name in map(str, out)):
            leaves(merged)  # raises where two leaves now have one path
        return merged
    raise StructureError(
        f"cannot merge at {prefix[:-1]!r}: a {type(a).__name__} with {listed(left.names)}"
        f" and a {type(b).__name__} with {listed(right.names)}"
    )


def _merge_trees(a: Tree, b: Tree, prefix: str, overlap: list[str]) -> Tree:
    left, right = a._layout, b._layout
    children = dict(zip(left.keys, a._children, strict=True))
    for key, value in zip(right.keys, b._children, strict=True):
        children[key] = _merge(children[key], value, f"{prefix}{key}/", overlap) if key in children else value
    ties = dict(left.ties)
    for alias, tie in right.ties:
        if ties.setdefault(alias, tie) != tie:
            overlap.append(prefix + alias)
    longer, other = (right, left) if {*right.order} > {*left.order} else (left, right)
    order = dict.fromkeys((*longer.order, *other.order))
    bare = make(Layout.of(order, children), (children[key] for key in sorted(children)))
    for alias in ties:
        *above, _ = segments = alias.split("/")
        taken = find(bare, segments) is not MISSING
        if taken or any(type(find(bare, above[:n])) not in (Tree, type(MISSING)) for n in range(1, len(above) + 1)):
            overlap.append(prefix + alias)
    if overlap:
        return bare
    if not ties:
        return bare
    rank = {name: at for at, name in enumerate(order)}
    ordered = sorted(ties.items(), key=lambda pair: rank.get(pair[0], len(rank)))
    return make(Layout.of(order, children, ordered), bare._children)
