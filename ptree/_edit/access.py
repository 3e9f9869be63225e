"""Reading any pytree by path, and writing where the structure stays: get, items, paths, count, set, update.

Every function returns a new tree, or the same one where nothing changed, and shares what it did not
touch. Trees, dicts, lists, tuples, named tuples, dataclasses and other registered nodes keep their types.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import is_
from typing import Any

import jax
from jax.core import Tracer

from .._errors import PathError, StructureError, TieError
from .._paths import compile, join, split
from .._tree import (
    LEAF_TYPES,
    MISSING,
    Slot,
    Tie,
    Tree,
    child,
    child_named,
    find,
    has_layer,
    largest_difference,
    layer_at,
    layers_of,
    make,
    names_in,
    no_path,
    opened,
    resolve,
    same,
    shape_only,
    signature,
    with_layer,
)
from .._words import describe, listed, quoted, with_fixes
from .check import differences, structure_error
from .elements import written_at
from .selectors import Selector, check_depth, choose, each_entry, leaves
from .selectors import aliases as aliases_of

# ------------------------------------------------------------------------------- reading


def get(tree: Any, path: str | int) -> Any:
    """What is at the path: a leaf, or the node with all that is below it.

    >>> get({"enc": [{"kernel": 1}, {"kernel": 2}]}, "enc/1/kernel")
    2

    Through a tie it reads the source's own object. Nothing is copied.

    Raises:
        PathError: there is no such path; it says where the path stops and what is there.
    """
    segments = split(path)
    try:
        return _read(tree, segments, tree, segments)
    except PathError:
        layer = layer_at(tree, segments)  # of a stack in a plain tree
        if layer is None or not has_layer(stack := _read(tree, layer[0], tree, segments), layer[1]):
            raise
        return layers_of(stack, layer[1])


def _read(node: Any, segments: Sequence[str], tree: Any, asked: Sequence[str]) -> Any:
    if type(node) is Tree:
        value = find(node, segments)
        if value is not MISSING:
            return value
        for cut in range(len(segments) - 1, 0, -1):  # a node of another kind may lie on the way
            value = find(node, segments[:cut])
            if value is not MISSING:
                if type(value) is Tree or opened(value) is None:
                    break
                return _read(value, segments[cut:], tree, asked)
        raise no_path(tree, asked, names_in, child_named)
    if not segments:
        return node
    if type(node) is dict and (known := only_key(node, segments)) is not None:
        key, used = known
        return _read(node[key], segments[used:], tree, asked)
    at, used = position(node, segments, tree, asked)
    inside = opened(node)
    assert inside is not None
    return _read(inside.values[at], segments[used:], tree, asked)


def read_or(tree: Any, segments: Sequence[str], default: Any) -> Any:
    try:
        return get(tree, "/".join(segments))
    except PathError:
        return default


def only_key(node: dict[Any, Any], segments: Sequence[str]) -> tuple[Any, int] | None:
    """The one key of a dict that a path goes on to, and how many segments it takes; None where that takes a closer look."""
    spelt = [("/".join(segments[:used]), used) for used in range(1, len(segments) + 1)]
    found: list[tuple[Any, int]] = [(key, used) for key, used in spelt if key in node]
    first = segments[0]
    if first.isdecimal() and len(first) < 20 and int(first) in node and str(int(first)) == first:
        found.append((int(first), 1))
    return found[0] if len(found) == 1 and type(found[0][0]) in (str, int) else None


def position(node: Any, segments: Sequence[str], tree: Any, asked: Sequence[str], must: bool = True) -> Any:
    """Which child of a foreign node the path goes on to, and how many segments its name takes.

    None where there is no such child and there need not be one.

    A key of a foreign dict may hold slashes, so that a path can be read in more than one way.
    """
    inside = opened(node)
    if inside is None:
        raise no_path(tree, asked, names_in, child_named)
    prefixes = {"/".join(segments[:used]): used for used in range(1, len(segments) + 1)}
    found = [(at, prefixes[name]) for at, name in enumerate(inside.names) if name in prefixes]
    if len(found) > 1:
        reaching = [(at, used) for at, used in found if _reaches(inside.values[at], segments[used:])]
        found = reaching or (found[:1] if must else found)
    if len(found) > 1:
        before = "/".join(asked[: len(asked) - len(segments)])
        readings = [
            " then ".join(map(repr, filter(None, ("/".join(segments[:used]), "/".join(segments[used:])))))
            for _, used in found
        ]
        if len({*readings}) == 1:
            readings = [f"the {type(key).__name__} {key!r}" for key in node if str(key) in prefixes]
        place = f" below {quoted(before)}" if before else ""
        raise PathError(
            f"the path {quoted('/'.join(asked))} is ambiguous{place}: the keys read {' or '.join(readings)}"
        )
    if not found and must:
        raise no_path(tree, asked, names_in, child_named)
    return found[0] if found else None


def _reaches(node: Any, segments: Sequence[str]) -> bool:
    return read_or(node, segments, MISSING) is not MISSING


def items(tree: Any, selector: Selector | None = None, *, aliases: bool = False) -> list[tuple[str, Any]]:
    """The selected leaves with their paths, as a list of pairs in declaration order.

    >>> params = Tree({"enc": {"kernel": 1, "bias": 2}, "head": {"kernel": 3}})
    >>> items(params, "**/kernel")
    [('enc/kernel', 1), ('head/kernel', 3)]

    A tied leaf is listed once, under its source's path; with `aliases` under its other names as well.

    Raises:
        PatternError: the selector is malformed, or a part of it matches nothing.
        PathError: two leaves of a plain tree have one path, or it has more than 256 levels.
    """
    chosen = choose(tree, selector)
    if not aliases:
        return chosen
    return [(path, value.read(leaf) if type(value) is Tie else leaf) for path, value, leaf in named(tree, chosen)]


def named(tree: Any, chosen: Sequence[tuple[str, Any]]) -> list[tuple[str, Any, Any]]:
    """The chosen leaves under all their names: path, what stands there (a leaf or a `Tie`), and the source's leaf."""
    kept = dict(chosen)
    found: list[tuple[str, Any, Any]] = []
    for path, value in each_entry(tree):
        source = value.source if type(value) is Tie else path
        if source in kept:
            found.append((path, value, kept[source]))
        elif type(value) is Tie:  # of a container in the place of a leaf
            below = [name for name in kept if name.startswith(f"{source}/")]
            found += [(path + name[len(source) :], Tie(name), kept[name]) for name in below]
    return found


def paths(tree: Any, selector: Selector | None = None, *, aliases: bool = False) -> list[str]:
    """The paths of the selected leaves, in declaration order.

    >>> paths(Tree({"layer_1": {"bias": 0}, "layer_0": {"bias": 0}}))
    ['layer_1/bias', 'layer_0/bias']

    Raises:
        PatternError: the selector is malformed, or a part of it matches nothing.
        PathError: two leaves of a plain tree have one path, or it has more than 256 levels.
    """
    chosen = choose(tree, selector)
    return [path for path, *_ in (named(tree, chosen) if aliases else chosen)]


def count(tree: Any, selector: Selector | None = None) -> int:
    """How many numbers the selected leaves hold; a tied leaf counts once.

    >>> import numpy as np
    >>> count(Tree({"enc": {"kernel": np.ones((4, 8)), "bias": np.ones(8)}}), "**/kernel")
    32

    A leaf without a shape counts as one. Works on specs and abstract trees.

    Raises:
        PatternError: the selector is malformed, or a part of it matches nothing.
        PathError: two leaves of a plain tree have one path, or it has more than 256 levels.
    """
    return sum(math.prod(getattr(leaf, "shape", ())) for _, leaf in choose(tree, selector))


# ------------------------------------------------------------------------------- writing


def set(tree: Any, path: str | int, value: Any, *, at: Any = None) -> Any:
    """A tree with another value at a path that exists; structure, shapes and dtypes stay.

    >>> params = Tree({"enc": {"kernel": 1, "bias": 2}})
    >>> set(params, "enc/bias", 5)["enc/bias"]
    5

    The value may be a leaf or a whole subtree. A write to an alias writes the one leaf, so every other
    name sees it. The value is stored as it is, not copied, cast or broadcast; all nodes off the path are
    shared with `tree`. Use `put` to add, or to replace by something else.

    With `at`, any index expression, only that part of an array is written: by a number, or by an array of
    just the part's shape and of the leaf's dtype. Where JAX would drop a write that is out of bounds in
    silence, this raises, as long as the index is known outside of `jit`.

    >>> import numpy as np
    >>> set({"w": np.zeros((2, 2))}, "w", 5, at=(0, 1))["w"].tolist()
    [[0.0, 5.0], [0.0, 0.0]]

    Raises:
        PathError: there is no such path.
        StructureError: structure, shape or dtype differ, or `at` is out of bounds; it lists all differences.
        TieError: a subtree with two different values for one tied leaf.
    """
    segments = split(path)
    if at is None and (new := _replaced(tree, segments, value)) is not MISSING:
        return new
    old = get(tree, path)
    if (layer := layer_at(tree, segments)) is not None:
        return _set_layer(tree, segments, layer, old, value, at)
    if at is not None:
        return _write(tree, segments, written_at("/".join(segments), old, at, value))
    if opened(old) is not None and old is not None:
        return _set_node(tree, segments, old, value)
    _check_leaf("set", "/".join(segments), old, value)
    return _write(tree, segments, value)


def _replaced(tree: Any, segments: Sequence[str], value: Any) -> Any:
    """`set` where it is simple, a leaf of a Tree that fits and no tie on the way, without a detour; else `MISSING`."""
    node, trail = tree, []
    for segment in segments:
        if type(node) is not Tree:
            return MISSING
        children, layout = node._node
        at = layout.index.get(segment)
        if at is None or segment in layout.aliases:
            return MISSING
        trail.append((children, layout, at))
        node = children[at]
    try:
        if node.shape != value.shape or node.dtype != value.dtype or type(node) not in LEAF_TYPES:
            return MISSING
    except AttributeError:
        return MISSING
    for children, layout, at in reversed(trail):
        new = [*children]
        new[at] = value
        above = Slot()  # `unflatten_node`, without a call a level
        above._node = (tuple(new), layout)
        above.__class__ = Tree
        value = above
    return value


def _check_leaf(verb: str, path: str, old: Any, new: Any) -> None:
    if signature(old) == signature(new):
        return
    _, _, misshapen, mistyped = differences({path: old}, {path: new})
    raise StructureError(
        f"cannot {verb} {path!r}: expected {describe(old)}, got {describe(new)}."
        " Use ptree.put to replace it by something of another shape or dtype.",
        misshapen=misshapen,
        mistyped=mistyped,
    )


def _write(node: Any, segments: Sequence[str], value: Any) -> Any:
    """The node with another value at a path that exists, written through the ties."""
    if not segments:
        return value
    if type(node) is Tree:
        layout = node._layout
        if segments[0] in layout.aliases:
            source, tie = resolve(node, segments)
            if tie is not None:
                return _write(node, source, tie.write(value))
        at = layout.index[segments[0]]
        children = node._children
        return make(layout, (*children[:at], _write(children[at], segments[1:], value), *children[at + 1 :]))
    if type(node) is dict and (known := only_key(node, segments)) is not None:
        key, used = known
        return {**node, key: _write(node[key], segments[used:], value)}
    at, used = position(node, segments, node, segments)
    inside = opened(node)
    assert inside is not None
    values = list(inside.values)
    values[at] = _write(values[at], segments[used:], value)
    return inside.rebuild(values)


def _set_layer(tree: Any, segments: Sequence[str], layer: Any, old: Any, value: Any, at: Any) -> Any:
    """The tree with other values in one layer of a stack."""
    (whole, index), path = layer, "/".join(segments)
    if at is not None:
        new = written_at(path, old, at, value)
    elif opened(old) is not None and old is not None:
        new = _set_node(old, (), old, value, path)
    else:
        _check_leaf("set", path, old, value)
        new = value
    stack = get(tree, "/".join(whole))
    fixed = [join(path, name) for name, leaf in leaves(old) if not hasattr(leaf, "__array__")]
    if fixed and not all(map(_agree, jax.tree.leaves(old), jax.tree.leaves(new))):
        raise StructureError(
            f"cannot set {quoted(path)}: {listed(fixed)} of one layer, where the stack holds one value for all."
            " ptree.stacks.unstack it first"
        )
    new = jax.tree.map(lambda leaf, value: with_layer(leaf, index, value), stack, new)
    return _write(tree, whole, new) if opened(stack) is None else _set_node(tree, whole, stack, new)


def _set_node(tree: Any, segments: Sequence[str], old: Any, value: Any, shown: str | None = None) -> Any:
    root = "/".join(segments)
    path = root if shown is None else shown
    if type(old) is Tree and type(value) is not Tree and isinstance(value, (Mapping, list, tuple)):
        value = Tree(value)
    before, after = everything(old), everything(value)
    asked = f"cannot set {quoted(path)}" if path else "cannot set the whole tree"
    if opened(value) is None:
        fits = [below for below, leaf in before.items() if signature(leaf) == signature(value)]
        hint = f" Did you mean {quoted(join(path, fits[0]))}?" if len(fits) == 1 else ""
        raise StructureError(
            f"{asked}: expected a node with {listed(before)}, got {describe(value)}.{hint}"
            " Use ptree.put to replace it by something else.",
            missing=[join(path, below) for below in before],
        )
    if not before and not after:
        _check_leaf("set", path, old, value)
    found = differences(before, after)
    if any(found):
        raise structure_error(
            asked, *found, before, after,
            prefix=path + "/" if path else "", fix="Use ptree.put to replace it by something else.",
        )  # fmt: skip
    if jax.tree.structure(old) == jax.tree.structure(value) and _raw(tree, segments) is old:
        return _write(tree, segments, value)
    writes: dict[str, tuple[str, Any, Any]] = {}
    tied = aliases_of(tree)
    conflicts: list[str] = []
    for below, leaf in items(value, aliases=True):
        name = join(root, below)
        tie = tied.get(name)
        new, where = (leaf, name) if tie is None else (tie.write(leaf), tie.source)
        first, shown, kept = writes.setdefault(where, (join(path, below), leaf, new))
        if not _agree(kept, new):
            conflicts.append(
                f"{asked}: {first!r}, {describe(shown)}, and {join(path, below)!r}, {describe(leaf)}, are one tied leaf, and their"
                f" values {_how_far(kept, new)}"
            )
    if conflicts:
        raise TieError(with_fixes(conflicts, ["Give both the same value, or untie them first"]))
    return replace_leaves(tree, {where: leaf for where, (_, _, leaf) in writes.items()})


def everything(tree: Any) -> dict[str, Any]:
    """What can be read anywhere in the tree, by path: leaves, also as aliases show them, and empty nodes."""
    known = dict(leaves(tree))
    return {
        path: value.read(shape_only(known[value.source])) if type(value) is Tie and value.source in known else value
        for path, value in each_entry(tree)
    }


def _raw(tree: Any, segments: Sequence[str]) -> Any:
    for segment in segments:
        tree = child(tree, segment) if type(tree) is Tree else MISSING
    return tree


def _agree(a: Any, b: Any) -> bool:
    if a is not b and (isinstance(a, Tracer) or isinstance(b, Tracer)):
        return False  # nobody can know
    return same(a, b)


def _how_far(a: Any, b: Any) -> str:
    if isinstance(a, Tracer) or isinstance(b, Tracer):
        return "may differ, as inside jax.jit they are not known"
    far = largest_difference(a, b)
    return "differ" if far is None else f"differ by up to {far:.3g}"


def update(tree: Any, selector: Selector, function: Callable[[Any], Any]) -> Any:
    """A tree in which each selected leaf is `function(leaf)`, of the same shape and dtype.

    >>> update(Tree({"enc": {"kernel": 1, "bias": 2}}), "**/bias", lambda b: b * 10)["enc/bias"]
    20

    A path without wildcards may be an alias: the function then sees the leaf as the alias shows it, and
    its value is written through the tie.

    Raises:
        PatternError: the selector is malformed, or a part of it matches nothing.
        PathError: two leaves of a plain tree have one path, or it has more than 256 levels.
        StructureError: the function changed a shape or a dtype. What the function itself raises comes through,
            with a note that names the path.
    """
    if not callable(function):
        raise StructureError(
            f"update takes a function of a leaf, got {describe(function)}; to set a value use ptree.set"
        )
    literal = compile(selector).literal if isinstance(selector, str) and selector[:1] != "!" else None
    if literal:  # one path, perhaps an alias
        leaf = read_or(tree, literal, MISSING)
        if leaf is not MISSING and opened(leaf) is None:
            return set(tree, "/".join(literal), _updated("/".join(literal), leaf, function))
    return replace_leaves(tree, {path: _updated(path, leaf, function) for path, leaf in choose(tree, selector)})


def _updated(path: str, leaf: Any, function: Callable[[Any], Any]) -> Any:
    try:
        value = function(leaf)
    except Exception as error:
        error.add_note(f"in ptree.update, at {quoted(path)}, {describe(leaf)}")
        raise
    _check_leaf("update", path, leaf, value)
    return value


def replace_leaves(tree: Any, new: Mapping[str, Any]) -> Any:
    """The tree with other leaves at these paths, unchecked; containers and ties stay."""
    return map_leaves(tree, lambda path, leaf: new.get(path, leaf))


def map_leaves(node: Any, function: Callable[[str, Any], Any], prefix: str = "") -> Any:
    """The tree with each leaf replaced by `function(path, leaf)`; a node in which no leaf changes is kept."""
    check_depth(node, prefix)
    if type(node) is Tree:
        old, layout = node._node
        names: Any = layout.keys
        rebuild: Any = partial(make, layout)
    else:
        inside = opened(node)
        if inside is None:
            return function(prefix[:-1], node)
        names, old, rebuild, *_ = inside
    new = [
        function(prefix + name, value) if type(value) in LEAF_TYPES else map_leaves(value, function, f"{prefix}{name}/")
        for name, value in zip(names, old, strict=True)
    ]
    return node if all(map(is_, new, old)) else rebuild(new)
