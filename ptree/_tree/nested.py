"""Nested, a Tree as nested dicts in which ties are values: what Trees are made of, taken apart into, shown from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import is_
from typing import Any

from .._errors import PathError, StructureError, TieError
from .._paths import DEEPEST, in_order, split
from .._words import describe, lines, quoted, shortened, suggestion
from .tie import Tie
from .transform import Transform
from .tree import MISSING, Layout, Tree, child, find, make, resolve


class Nested(dict[str, Any]):
    """A node of a tree that is being put together: a dict that is no leaf, in declared order.

    Its values are further `Nested`, whole Trees, leaves, or a `Tie` whose source is a path from the root.
    """


MOST_TIES = 100_000
"""How many leaves ties may stand for: each tie of a node to one with ties doubles them, in a hostile file."""


def expand(tree: Tree, prefix: str = "") -> Nested:
    """A Tree as nested dicts, what `build` makes a Tree of; `prefix` goes before each tie's source."""
    nested = _expand(tree, prefix)
    _clear(nested)
    return nested


def _expand(tree: Tree, prefix: str) -> Nested:
    layout = tree._layout
    nested = Nested((name, MISSING) for name in layout.order)
    for key, value in zip(layout.keys, tree._children, strict=True):
        nested[key] = _expand(value, f"{prefix}{key}/") if type(value) is Tree else value
    for alias, tie in layout.ties:
        *above, name = alias.split("/")
        node = nested
        for segment in above:
            if node.get(segment, MISSING) is MISSING:
                node[segment] = Nested()
            node = node[segment]
        node[name] = Tie(prefix + tie.source, tie.via)
    return nested


def _clear(nested: Nested) -> None:
    """Take out the names that `_expand` kept a place for and no tie filled."""
    for name, value in list(nested.items()):
        if value is MISSING:
            del nested[name]
        elif type(value) is Nested:
            _clear(value)


def tree_of(mapping: Any) -> Tree:
    """The Tree of a mapping, a list or a tuple."""
    if not isinstance(mapping, Mapping) and type(mapping) not in (list, tuple):
        raise StructureError(f"a Tree is made of a mapping, a list or a tuple; got {describe(mapping)}")
    nested = Nested()
    _insert_all(nested, mapping, "")
    tree = build(nested)
    problems = [
        f"cannot tie {path!r} to {tie.source!r}: {tie.shown()!r} {why}, and {tie.source!r} is {describe(leaf)}"
        for path, tie in _written_ties(mapping, "")
        for leaf in (find(tree, tie.source.split("/")),)
        for step in tie.via[:1]
        if (why := step.misfit(leaf))
    ]
    if problems:
        raise TieError(lines(problems))
    return tree


def _written_ties(mapping: Any, prefix: str) -> Iterator[tuple[str, Tie]]:
    """The ties that are values of a mapping, outside of the Trees in it."""
    if type(mapping) is Tree or not isinstance(mapping, Mapping):
        return
    for key, value in mapping.items():
        if type(value) is Tie and value.via:
            yield f"{prefix}{key}", value
        else:
            yield from _written_ties(value, f"{prefix}{key}/")


def insert(nested: Nested, segments: Sequence[str], value: Any, prefix: str = "") -> None:
    """Put a value, which may be a mapping, where nothing is yet; raises where something is."""
    *above, name = segments
    node, path = nested, prefix
    if prefix.count("/") + len(segments) > DEEPEST:
        raise PathError(f"no path can have more than {DEEPEST} segments; got {quoted(prefix + '/'.join(segments))}")
    for segment in above:
        node, path = _descend(node, segment, path), f"{path}{segment}/"
    if type(value) is Tree and name not in node:
        node[name] = value
    elif isinstance(value, Mapping) or type(value) in (list, tuple):
        below = _descend(node, name, path)
        _insert_all(below, expand(value, f"{path}{name}/") if type(value) is Tree else value, f"{path}{name}/")
    elif name in node:
        raise StructureError(f"two keys land on the path {path + name!r}: {_kind(node[name])} and {_kind(value)}")
    else:
        node[name] = value


def _descend(node: Nested, name: str, path: str) -> Nested:
    """The node below, made or opened where it must be."""
    below = node.get(name, MISSING)
    if below is MISSING:
        below = node[name] = Nested()
    elif type(below) is Tree:
        below = node[name] = expand(below, f"{path}{name}/")
    elif type(below) is not Nested:
        raise StructureError(
            f"two keys land on the path {path + name!r}: {_kind(below)}, and a node with keys below it"
        )
    return below


def _kind(value: Any) -> str:
    return "a node" if type(value) in (Nested, Tree) else "an alias" if type(value) is Tie else describe(value)


def _insert_all(nested: Nested, mapping: Any, prefix: str) -> None:
    if not isinstance(mapping, Mapping):
        mapping = {str(at): value for at, value in enumerate(mapping)}
    keys: Iterable[Any] = mapping
    if type(mapping) is dict and all(type(key) is str for key in mapping):
        keys = in_order(tuple(mapping))
    for key in keys:
        try:
            segments = split(key)
            if not segments:
                raise PathError("it is empty")
        except PathError as error:
            place = f"in {prefix[:-1]!r}" if prefix else "at the root"
            why = "it is not a string or an int"
            if isinstance(key, str):
                long = f"it has more than {DEEPEST} segments"
                why = "it is empty or has an empty segment" if "" in key.split("/") else long
            raise PathError(f"bad key {quoted(key)} {place}: {why}") from error
        insert(nested, segments, mapping[key], prefix)


def build(nested: Nested, prior: Tree | None = None) -> Tree:
    """The Tree of nested dicts; each tie goes to the lowest node that holds both ends.

    Nodes that come out as they are in `prior` are taken from it.
    """
    homes: dict[tuple[str, ...], list[tuple[str, Tie]]] = {}
    waiting = list(_ties_in(nested, ()))[::-1]
    while waiting:
        if len(waiting) > MOST_TIES:
            raise TieError(f"ties of ties stand for more than {MOST_TIES:,} leaves")
        alias, tie = waiting.pop()
        source, via, end = _follow(nested, alias, tie)
        if end is not None:  # a subtree: one tie for each of its leaves
            below = _below(end, Tie("/".join(source), via))
            place(nested, alias, below)
            waiting += list(_ties_in(below, alias))[::-1]
            continue
        depth = next(at for at, (a, b) in enumerate(zip(alias, source, strict=False)) if a != b)
        tie = Tie("/".join(source[depth:]), via)
        homes.setdefault(alias[:depth], []).append(("/".join(alias[depth:]), tie))
    return _assemble(nested, (), homes, prior)


def _ties_in(nested: Nested, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Tie]]:
    for name, value in nested.items():
        if type(value) is Tie:
            yield (*path, name), value
        elif type(value) is Nested:
            yield from _ties_in(value, (*path, name))


def _names(nested: Nested, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for name, value in nested.items():
        yield (*path, name)
        if type(value) in (Nested, Tree):
            yield from _names(value if type(value) is Nested else expand(value), (*path, name))


def place(nested: Nested, path: Sequence[str], value: Any) -> None:
    """Put a value where there is one, below nested dicts that are all there."""
    for segment in path[:-1]:
        nested = nested[segment]
    nested[path[-1]] = value


def _below(node: Nested | Tree, tie: Tie) -> Nested:
    """For each leaf or alias of a node a tie to it."""
    below = Nested()
    for name, value in (expand(node) if type(node) is Tree else node).items():
        source = Tie(f"{tie.source}/{name}", tie.via)
        below[name] = _below(value, source) if type(value) in (Nested, Tree) else source
    return below


def _follow(nested: Nested, alias: tuple[str, ...], tie: Tie) -> tuple[list[str], tuple[Transform, ...], Any]:
    """The leaf that a tie leads to through any chain: its path, the transforms; and the node if it is one."""
    names, source = [*alias], tie.source.split("/")
    shown, asked = "/".join(alias), tie.source
    passed = [shown]
    while True:
        node: Any = nested
        if source == names[: len(source)] or names == source[: len(names)]:
            if len(passed) > 1 or source == names:
                raise _circle(shown, asked, [*passed, "/".join(source)])
            raise TieError(f"cannot tie {shown!r} to {asked!r}: one lies inside the other")
        for at, segment in enumerate(source):
            if type(node) is Tree:
                inner, hit = resolve(node, source[at:])
                if find(node, source[at:]) is MISSING:
                    node = MISSING
                    break
                source, tie = [*source[:at], *inner], (hit.then(tie.via) if hit else tie)
                node = find(node, inner)
                break
            node = node.get(segment, MISSING) if type(node) is Nested else MISSING
            if type(node) is Tie:
                where = "/".join(source[: at + 1])
                if where in passed:
                    raise _circle(shown, asked, [*passed, "/".join(source)])
                passed.append(where)
                source, tie = [*node.source.split("/"), *source[at + 1 :]], node.then(tie.via)
                break
            if node is MISSING:
                break
        if node is MISSING:
            hint = suggestion("/".join(source), ("/".join(path) for path in _names(nested, ())))
            raise TieError(f"cannot tie {shown!r} to {asked!r}: there is no {'/'.join(source)!r}.{hint}")
        if type(node) is not Tie:
            return source, tie.via, node if type(node) in (Nested, Tree) else None


def _circle(alias: str, source: str, passed: list[str]) -> TieError:
    chain = " -> ".join(map(repr, passed))
    return TieError(f"cannot tie {alias!r} to {source!r}: the ties go in a circle, {chain}. Leave one of them out")


def _assemble(nested: Nested, path: tuple[str, ...], homes: dict[Any, Any], prior: Any) -> Any:
    children: dict[str, Any] = {}
    for name, value in nested.items():
        if type(value) is Nested:
            value = _assemble(value, (*path, name), homes, child(prior, name))
        if type(value) is not Tie and value is not MISSING:
            children[name] = value
    ties = homes.get(path, ())
    if nested and path and not children and not ties:
        return MISSING  # nothing but aliases of leaves elsewhere: no child at all
    deeper = (alias for alias, _ in ties if "/" in alias)  # a node of aliases only has no layout to keep their order
    layout = Layout.of((*nested, *deeper), children, ties)
    ordered = tuple(children[key] for key in layout.keys)
    if type(prior) is Tree and prior._layout is layout and all(map(is_, prior._children, ordered)):
        return prior
    return make(layout, ordered)


def assemble(flat: Mapping[str, Any]) -> Tree:
    """The Tree of entries: path -> leaf, `Tie`, or a node without leaves, in declared order."""
    nested = Nested()
    for path, value in flat.items():
        insert(nested, split(path), value)
    return build(nested)


def show(tree: Tree, most: int = 40) -> str:
    """A table of paths and what is there, cut to a screen."""
    rows = list(_rows(expand(tree), ""))
    shown = rows if len(rows) <= most else rows[: most - 1]
    shown = [(shortened(path, 60), what) for path, what in shown]
    width = max((len(path) for path, _ in shown), default=0)
    lines = [f"  {path:<{width}}  {what}" for path, what in shown]
    if len(rows) > len(shown):
        lines.append(f"  ... and {len(rows) - len(shown)} more")
    return "\n".join(["Tree(", *lines, ")"]) if lines else "Tree()"


def _rows(nested: Nested, prefix: str) -> Iterator[tuple[str, str]]:
    for name, value in nested.items():
        if type(value) is Nested and value:
            yield from _rows(value, f"{prefix}{name}/")
        elif type(value) is Tie:
            yield prefix + name, f"= {value.shown()}"
        else:
            yield prefix + name, "(empty)" if type(value) is Nested else describe(value)
