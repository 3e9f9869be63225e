"""Trees as flat or nested dicts and back, and with other names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from operator import is_
from typing import Any

import jax

from ._access import replace_leaves
from ._check import structure_error
from ._edit import put
from ._errors import PathError, PatternError, StructureError, lines, quoted
from ._nested import Nested, build, insert
from ._nodes import opened
from ._paths import compile, join, split
from ._select import Selector, choose, distinct, entries, entry_dict, leaves, why_dead
from ._tie import Tie
from ._tree import MISSING, Tree


def flatten(tree: Any, selector: Selector | None = None) -> dict[str, Any]:
    """The tree as one flat dict, path -> leaf, that `unflatten` turns back.

    >>> flatten(Tree({"enc": {"kernel": 1, "bias": 2}}))
    {'enc/kernel': 1, 'enc/bias': 2}

    So that nothing is lost, an alias stands in it as a `Tie` and a node without leaves as itself; to JAX
    neither is a leaf. For arrays under every name use `dict(items(tree, aliases=True))`.

    Raises:
        PatternError: the selector is malformed, or a part of it matches nothing.
    """
    if selector is None:
        return entry_dict(tree)
    kept = dict(choose(tree, selector))
    return {p: v for p, v in entries(tree) if p in kept or (type(v) is Tie and v.source in kept)}


def unflatten(flat: Mapping[str, Any], like: Any = None) -> Any:
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
        StructureError: two names land on one path, or the leaves are not those of `like`.
        TieError: an alias without its source.
    """
    if like is None:
        nested = Nested()
        for path, value in flat.items():
            if not path:
                raise PathError("bad key '' at the root: it is empty; a single leaf needs no Tree")
            insert(nested, split(path), value)
        return build(nested)
    expected = dict(leaves(like))
    structure = {path for path, value in flat.items() if path not in expected and not jax.tree.leaves(value)}
    got = {path: value for path, value in flat.items() if path not in structure}
    missing, unexpected = [p for p in expected if p not in got], [p for p in got if p not in expected]
    if missing or unexpected:
        raise structure_error("cannot unflatten into `like`", missing, unexpected)
    return replace_leaves(like, got)


def asdict(tree: Any) -> dict[str, Any]:
    """The tree as nested plain dicts; tied paths hold the same object. No leaf is copied.

    >>> asdict(Tree({"enc/kernel": 1}))
    {'enc': {'kernel': 1}}
    """
    tree = tree if type(tree) is Tree else Tree(tree)
    return {name: asdict(value) if type(value) is Tree else value for name, value in tree.items()}


def rename(tree: Any, table: Mapping[str | re.Pattern[str], str]) -> Any:
    """A tree with other names: old pattern -> new path, the first that matches counts.

    >>> rename(Tree({"encoder": {"layer_0": 1, "layer_1": 2}}), {"encoder/layer_*": "blocks/*/scale"})
    Tree(
      blocks/0/scale  1
      blocks/1/scale  2
    )

    What the wildcards on the left stand for is filled in on the right, in order. A pattern that matches a
    node renames it with all that is below. A compiled regex must match a leaf's whole path; its groups are
    filled in as in `re.sub`. Ties follow. A plain dict gives a plain dict, flat where it was flat.

    Raises:
        PatternError: a pattern that matches nothing, or another number of wildcards on the right.
        StructureError: two leaves that land on one path, or one above the other; it names all of them.
    """
    if type(tree) is not Tree and not isinstance(tree, Mapping):
        raise StructureError(f"cannot rename in a {type(tree).__name__}: only a Tree or a dict can take new names")
    if not isinstance(table, Mapping) or not all(
        isinstance(getattr(old, "pattern", old), str) and isinstance(new, str) for old, new in table.items()
    ):
        raise PatternError("the names to change are a dict, a pattern or a compiled regex -> a path")
    flat = type(tree) is not Tree and all(opened(value) is None for value in tree.values())
    old = dict(distinct([(str(key), value) for key, value in tree.items()])) if flat else entry_dict(tree)
    used: set[Any] = set()
    new = {path: _renamed(path, table, used) for path in old}
    dead = [_why_unused(key, tree) for key in table if key not in used]
    if dead:
        raise PatternError(lines(dead))
    came: dict[str, str] = {}
    for path, renamed in new.items():
        if came.setdefault(renamed, path) != path:
            raise StructureError(f"cannot rename: {came[renamed]!r} and {path!r} both land on {renamed!r}")
    for renamed, path in () if flat else came.items():
        above = [up for up in _above(renamed) if up in came]
        if above:
            raise StructureError(
                f"cannot rename: {came[above[0]]!r} lands on {above[0]!r}, and {path!r} below it, on {renamed!r}"
            )
    if flat:
        return {new[path]: value for path, value in old.items()}
    if type(tree) is not Tree:  # only what moves is touched, so that all other containers stay as they are
        moved = {path: (target, value) for path, target, value in _moves(tree, "", new) if target != path}
        tree = _without(tree, "", moved)
        for target, value in moved.values():
            tree = put(tree, target, value)
        return tree
    nested = Nested()
    for path, value in old.items():
        if type(value) is Tie:
            if value.source not in new:
                raise StructureError(f"cannot rename: {path!r} is tied to {value.source!r}, which holds a container")
            value = Tie(new[value.source], value.via)
        insert(nested, split(new[path]), value)
    return build(nested, tree)


def _above(path: str) -> list[str]:
    """The nodes above a path."""
    segments = path.split("/")
    return ["/".join(segments[:n]) for n in range(1, len(segments))]


def _why_unused(key: Any, tree: Any) -> str:
    if not isinstance(key, str):
        return f"the regex {quoted(key.pattern)} matches no whole path, or an earlier rule takes all that it matches"
    if any(compile(key).matches(path) for path, _ in entries(tree)):
        return f"the pattern {quoted(key)} renames nothing: earlier rules take all that it matches"
    return why_dead(compile(key), tree)


def _moves(node: Any, path: str, new: Mapping[str, str]) -> list[tuple[str, str, Any]]:
    """What goes where, in as large pieces as move whole: path, new path, and what is there."""
    inside = opened(node)
    if inside is None or not inside.names:
        return [(path, new.get(path, path), node)]
    paths = [join(path, name) for name in inside.names]
    pieces = [piece for below, value in zip(paths, inside.values, strict=True) for piece in _moves(value, below, new)]
    stems = {
        target.removesuffix(below[len(path) :]) if target.endswith(below[len(path) :]) else None
        for below, target, _ in pieces
    }
    if path and [below for below, *_ in pieces] == paths and len(stems) == 1 and None not in stems:
        return [(path, stems.pop() or path, node)]
    if not isinstance(node, Mapping) or type(node) is Tree:
        raise StructureError(f"cannot rename inside {path!r}: a {type(node).__name__} keeps its own names")
    return pieces


def _without(node: Any, path: str, gone: Mapping[str, Any]) -> Any:
    """The nested dicts without these paths, and without the nodes that this leaves empty."""
    inside = opened(node)
    if path in gone or not isinstance(node, Mapping) or type(node) is Tree or inside is None or not inside.names:
        return MISSING if path in gone else node
    values = [_without(v, join(path, n), gone) for n, v in zip(inside.names, inside.values, strict=True)]
    if all(map(is_, values, inside.values)):
        return node
    return MISSING if path and all(value is MISSING for value in values) else inside.keep(values)


def _renamed(path: str, table: Mapping[Any, str], used: set[Any]) -> str:
    segments = path.split("/")
    for key, new in table.items():
        if isinstance(key, re.Pattern):
            match = key.fullmatch(path)
            if match:
                used.add(key)
                try:
                    return match.expand(new)
                except (re.error, IndexError) as error:
                    raise PatternError(f"cannot rename {path!r} to {new!r}: {error}") from None
            continue
        pattern = compile(key)
        cut = pattern.reaches(segments)
        if cut is not None:
            used.add(key)
            captures = pattern.captures(segments[:cut]) or ()
            renamed = [*_fill_in(key, new, captures), *segments[cut:]]
            if not renamed:
                raise PatternError(f"cannot rename {path!r} to {new!r}: the new path is empty")
            return "/".join(renamed)
    return path


def _fill_in(old: str, new: str, captures: Sequence[str]) -> list[str]:
    parts = re.split(r"(\\.|\*\*|\*|\?)", new)
    holes = [at for at, part in enumerate(parts) if at % 2 and not part.startswith("\\")]
    if len(holes) != len(captures):
        raise PatternError(
            f"cannot rename {old!r} to {new!r}: the left has {len(captures)} wildcards, the right has {len(holes)}"
        )
    for at, part in enumerate(parts):
        if at % 2 and part.startswith("\\"):
            parts[at] = part[1:]
    for at, capture in zip(holes, captures, strict=True):
        parts[at] = capture
    return [segment for segment in "".join(parts).split("/") if segment]
