"""Changing the structure of any pytree by path: put and drop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import is_
from typing import Any

from .._errors import PathError, StructureError, TieError
from .._paths import STACKED, split
from .._tree import (
    MISSING,
    Layout,
    Nested,
    Tie,
    Tree,
    build,
    child,
    emptied,
    expand,
    find,
    layer_at,
    levels_below,
    make,
    new_key,
    opened,
    place,
    remade,
    shape_only,
)
from .._words import describe, listed, quoted
from .access import named, position
from .selectors import Selector, aliases, check_depth, choose, each_entry, leaves


def put(tree: Any, path: str | int, value: Any) -> Any:
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
        StructureError: a container that cannot take a new name (a tuple, a dataclass), or one layer of a stack.
    """
    segments = split(path)
    if not segments:
        raise PathError("cannot put at '': that is the whole tree, so use the value itself")
    for used in range(1, len(segments) + 1):
        if (layer := layer_at(tree, segments[:used])) is not None:
            raise StructureError(
                f"cannot put {quoted('/'.join(segments))}: it is in one layer of the stack"
                f" {quoted('/'.join(layer[0]).removesuffix('/' + STACKED))}, and all its layers are alike."
                " Use ptree.set for other values, or ptree.stacks.unstack it first"
            )
    if type(value) is Tie:
        return _put_tie(tree, segments, value)
    return _put(tree, segments, value, "/".join(segments))


def _put_tie(tree: Any, segments: Sequence[str], tie: Tie) -> Tree:
    path = "/".join(segments)
    asked = f"cannot put {tie!r} at {quoted(path)}"
    if type(tree) is not Tree:
        raise TieError(f"{asked}: a {type(tree).__name__} holds no ties; ptree.tie makes a Tree of it")
    source = find(tree, split(tie.source))
    why = next((why for step in tie.via if (why := step.misfit(source))), "")
    if why:
        raise TieError(f"{asked}: it {why}, and {quoted(tie.source)} is {describe(source)}")
    return _restructure(tree, lambda nested: _put_nested(nested, segments, tie, path), path)


def _put(node: Any, segments: Sequence[str], value: Any, asked: str) -> Any:
    name, *rest = segments
    if type(node) is Tree:
        layout = node._layout
        if layout.ties:
            return _restructure(node, lambda nested: _put_nested(nested, segments, value, asked))
        old = child(node, name)
        new = _put(Tree() if old is MISSING else old, rest, value, asked) if rest else _as_child(value)
        children = {**dict(zip(layout.keys, node._children, strict=True)), name: new}
        order = layout.order if name in layout.order else (*layout.order, name)
        return make(Layout.of(order, children, layout.ties), (children[key] for key in sorted(children)))
    inside = opened(node)
    if inside is None:
        at = asked.removesuffix("/".join(segments)).rstrip("/")
        what = f"{quoted(at)} is {describe(node)}" if at else f"the tree is {describe(node)}"
        raise PathError(f"cannot put {quoted(asked)}: {what}, not a node.{' Drop it first' if at else ''}")
    found = position(node, segments, node, segments, must=False)
    if found is not None:  # a key that is there; it may hold slashes
        at, used = found
        rest = segments[used:]
        values = list(inside.values)
        values[at] = _put(values[at], rest, value, asked) if rest else value
        return inside.rebuild(values)
    if not isinstance(node, Mapping):
        raise StructureError(
            f"cannot put {quoted(asked)}: a {type(node).__name__} cannot take the new name {name!r};"
            f" it has {listed(inside.names)}"
        )
    if any("/" in known for known in inside.names):
        name, rest = _new_name(node, segments, value, asked)
    new = _put(remade(node, {}) if isinstance(node, dict) else {}, rest, value, asked) if rest else value
    return remade(node, {**node, new_key(node, name, f"cannot put {quoted(asked)}"): new})


def _new_name(node: Mapping[Any, Any], segments: Sequence[str], value: Any, asked: str) -> tuple[str, Sequence[str]]:
    """Beside keys that hold '/': the new key, and the path below it, as deep as below its neighbours."""
    below, own = levels_below(node), levels_below(value)
    if below is None or own is None or below - own > len(segments):
        raise PathError(
            f"cannot put {quoted(asked)}: keys such as {next(key for key in node if '/' in str(key))!r} hold '/', and"
            " what is below them is not equally deep, so what the new key should be is not known"
        )
    cut = len(segments) - max(below - 1 - own, 0)
    return "/".join(segments[:cut]), segments[cut:]


def _as_child(value: Any) -> Any:
    return Tree(value) if isinstance(value, Mapping) or type(value) in (list, tuple) else value


def _put_nested(nested: Nested, segments: Sequence[str], value: Any, asked: str) -> None:
    *above, name = segments
    for depth, segment in enumerate(above):
        below = nested.setdefault(segment, Nested())
        if type(below) is not Nested:
            if opened(below) is not None and type(below) is not Tie:
                nested[segment] = _put(below, segments[depth + 1 :], value, asked)
                return
            what = "an alias" if type(below) is Tie else describe(below)
            raise PathError(
                f"cannot put {quoted(asked)}: {'/'.join(above[: depth + 1])!r} is {what}, not a node. Drop it first"
            )
        nested = below
    value = _as_child(value)
    nested[name] = expand(value, "/".join(segments) + "/") if type(value) is Tree else value


def drop(tree: Any, selector: Selector) -> Any:
    """A tree without the selected leaves, and without the nodes that this leaves empty.

    >>> drop(Tree({"enc": {"kernel": 1, "bias": 2}, "head/bias": 3}), "**/bias")
    Tree(
      enc/kernel  1
    )

    Here a pattern may also match an alias: dropping an alias removes the tie, and dropping a source hands
    the leaf to its first alias that stays.

    Raises:
        PatternError: the selector is malformed, or a part of it matches nothing.
        PathError: two leaves of a plain tree have one path, or it has more than 256 levels.
        StructureError: a container that cannot lose a child (a list, a tuple, a dataclass).
    """
    among = None
    if aliases(tree):  # here their names count like those of leaves
        among = [(path, _of_shape(value, leaf)) for path, value, leaf in named(tree, leaves(tree))]
    gone = frozenset(path for path, _ in choose(tree, selector, among))
    result = _drop(tree, gone, "")
    return emptied(tree) if result is MISSING else result


def _of_shape(value: Any, leaf: Any) -> Any:
    """What a predicate may ask of a leaf or alias, without running a transform on an array."""
    return value.read(shape_only(leaf)) if type(value) is Tie else leaf


def _drop(node: Any, gone: frozenset[str], prefix: str) -> Any:
    check_depth(node, prefix)
    if type(node) is Tree and node._layout.ties:
        return _restructure(node, lambda nested: _drop_nested(nested, gone, prefix)) or MISSING
    inside = opened(node)
    if inside is None:
        return MISSING if prefix[:-1] in gone else node
    values = [_drop(value, gone, f"{prefix}{name}/") for name, value in zip(inside.names, inside.values, strict=True)]
    if all(map(is_, values, inside.values)):
        return node
    gone_all = all(value is MISSING for value in values)
    if inside.fixed and any(value is MISSING for value in values) and not (gone_all and prefix):
        lost = [prefix + name for name, value in zip(inside.names, values, strict=True) if value is MISSING]
        raise StructureError(
            f"cannot drop {listed(lost)}: a {type(node).__name__} cannot lose a child."
            " ptree.partition leaves None in its place"
        )
    return MISSING if gone_all else inside.keep(values)


def _drop_nested(nested: Nested, gone: frozenset[str], prefix: str) -> None:
    for name, value in list(nested.items()):
        path = prefix + name
        if type(value) is Nested and value:
            _drop_nested(value, gone, path + "/")
            value = value or MISSING
        elif type(value) is Tie:
            value = MISSING if path in gone else value
        elif type(value) is not Nested:
            value = _drop(value, gone, path + "/")
        if value is MISSING:
            del nested[name]
        else:
            nested[name] = value


def _restructure(tree: Tree, edit: Callable[[Nested], None], tied: str | None = None) -> Tree:
    """The tree with its nested dicts edited; where a source is gone, its first alias takes over the leaf.

    A path that is `tied` anew takes over nothing: its tie leads to what its source then is.
    """
    nested = expand(tree)
    edit(nested)
    heirs: dict[str, tuple[str, Tie]] = {}
    for alias, tie in [(path, value) for path, value in each_entry(nested) if type(value) is Tie and path != tied]:
        here, before = _at(nested, tie.source), find(tree, split(tie.source))
        if type(here) not in (Nested, Tie, type(MISSING)) or (type(here) is Nested and type(before) is Tree):
            continue
        if tie.source not in heirs:
            heirs[tie.source] = alias, tie
            place(nested, split(alias), tie.read(before))
        else:
            heir, first = heirs[tie.source]
            back = Tie(heir, tuple(step.inverted() for step in reversed(first.via)))
            place(nested, split(alias), back.then(tie.via))
    return build(nested, tree)


def _at(nested: Any, path: str) -> Any:
    for segment in split(path):
        nested = nested.get(segment, MISSING) if type(nested) is Nested else MISSING
    return nested
