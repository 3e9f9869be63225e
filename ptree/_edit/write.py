"""Write values into any pytree by path, the structure as it is: set a leaf, node or layer with the value's leaves, update
selected leaves, check the fit.

Both return a new tree, or the same one where nothing changed, and share what they did not touch.
Trees, dicts, lists, tuples, named tuples, dataclasses and other registered nodes keep their types.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

import jax
import numpy as np
from jax.core import Tracer

from .._errors import StructureError, TieError
from .._paths import join, split
from .._tree import (
    LEAF_TYPES,
    MISSING,
    BareTree,
    Leaf,
    Place,
    PyTree,
    Tree,
    aliases,
    largest_difference,
    leads_on,
    leaves,
    locate,
    no_path,
    opened,
    read,
    replace_leaves,
    same,
    signature,
    write,
)
from .._words import describe, describe_apart, listed, quoted, with_fixes
from .check import differences, readings, structure_error
from .elements import Elements, written_at
from .pattern_walk import Selected
from .read import get
from .selectors import Selector, choose_layers

T = TypeVar("T")


def set(tree: T, path: str | int, value: PyTree, *, at: Elements | None = None) -> T:
    """A tree with another value at a path that exists; structure, shapes and dtypes stay.

    >>> params = Tree({"enc": {"kernel": 1, "bias": 2}})
    >>> set(params, "enc/bias", 5)["enc/bias"]
    5

    The value may be a leaf or a whole subtree. A write to an alias writes the one leaf, so every other
    name sees it. The value is stored as it is, not copied, cast or broadcast; all nodes off the path are
    shared with `tree`. It takes a path, no pattern: `update` writes what a pattern matches. Use `put` to add, or to
    replace by something else.

    With `at`, any index expression, only that part of an array is written: by a number, or by an array of
    just the part's shape and of the leaf's dtype. Where JAX would drop a write that is out of bounds in
    silence, this raises, as long as the index is known outside of `jit`.

    >>> import numpy as np
    >>> set({"w": np.zeros((2, 2))}, "w", 5, at=(0, 1))["w"].tolist()
    [[0.0, 5.0], [0.0, 0.0]]

    Args:
        tree: any pytree.
        path: of a leaf or node that is there.
        value: a leaf of the same shape and dtype, or a subtree of the same structure.
        at: an index expression for a part of the array, as in `array[at]`: `(0, 1)`, a slice, an array of numbers or
            bools.

    Raises:
        PathError: there is no such path.
        StructureError: structure, shape or dtype differ, or `at` is out of bounds; it lists all differences.
        TieError: a subtree with two different values for one tied leaf.
    """
    segments = split(path)
    if at is None:
        new = _with_plain_leaf(tree, segments, value)
        if new is not MISSING:
            return new
    place = locate(tree, segments)
    if place is None:
        raise no_path(tree, segments)
    shown = "/".join(segments)
    old = read(place)
    if at is not None:
        return _written(place, shown, old, written_at(shown, old, at, value))
    if old is None or type(old) in LEAF_TYPES or opened(old) is None:
        _check_leaf("set", shown, old, value, is_layer=bool(place.layers))
        return _written(place, shown, old, value)
    return _with_node(tree, place, shown, old, value)


def _with_plain_leaf(tree: PyTree, segments: list[str], value: Leaf) -> PyTree:
    """Set a plain leaf, the simple and frequent case: one that fits, with only Trees and dicts and no tie on the way; else `MISSING`.

    Without `Place` and its steps it takes a third of the time.
    """
    node = tree
    steps: list[tuple[PyTree, str | int]] = []
    for used, segment in enumerate(segments):
        if type(node) is not Tree:
            if type(node) is not dict or not leads_on(node, segments[used:]):
                return MISSING
            steps.append((node, segment))
            node = node[segment]
            continue
        children, layout = node._node
        position = layout.index.get(segment)
        if position is None or segment in layout.aliases:
            return MISSING
        steps.append((node, position))
        node = children[position]
    try:
        fits = node.shape == value.shape and node.dtype == value.dtype and type(node) in LEAF_TYPES
    except AttributeError:
        return MISSING
    if not fits:
        return MISSING
    for node, key in reversed(steps):
        if type(node) is dict:
            value = {**node, key: value}
            continue
        children, layout = node._node
        changed = [*children]
        changed[key] = value  # pyright: ignore[reportArgumentType, reportCallIssue]  # a position
        above = BareTree()  # `unflatten_node`, without a call for each level
        above._node = (tuple(changed), layout)
        above.__class__ = Tree
        value = above
    return value


def _check_leaf(verb: str, path: str, old: Leaf, new: Leaf, *, is_layer: bool = False) -> None:
    if signature(old) == signature(new):
        return
    found = differences({path: old}, {path: new})
    before, after = describe_apart(old, new)
    fixes = [_fix_of_value(verb, old, new), _other_kind_of_leaf(verb, is_layer=is_layer)]
    raise StructureError(
        f"cannot {verb} {quoted(path)}: expected {before}, got {after}. {' '.join(filter(None, fixes))}",
        misshapen=found.misshapen,
        mistyped=found.mistyped,
    )


def _other_kind_of_leaf(verb: str, *, is_layer: bool) -> str:
    """How to give a leaf another shape or dtype on purpose."""
    if is_layer:
        return "One layer of a stack cannot have a shape or dtype of its own: ptree.stacks.unstack it first."
    if verb == "update":
        return (
            "To change shapes or dtypes, write chosen, rest = ptree.partition(tree, selector), and then"
            " ptree.merge(jax.tree.map(function, chosen), rest)."
        )
    return "Use ptree.put to replace it by something of another shape or dtype."


def _fix_of_value(verb: str, old: Leaf, new: Leaf) -> str:
    """How to make the value fit an array: cast, convert or fill; empty where there is no simple way."""
    if not hasattr(old, "__array__") or not hasattr(old, "dtype"):
        return ""
    if isinstance(new, bool | int | float | complex):
        return f"For an array of this number write jnp.full({tuple(old.shape)}, {new!r}, {old.dtype.name!r})."
    if isinstance(new, list | tuple):
        return f"Convert it with jnp.asarray(value, {old.dtype.name!r})."
    if isinstance(new, BareTree) or not hasattr(new, "__array__") or tuple(new.shape) != tuple(old.shape):
        return ""
    if not isinstance(new, np.ndarray | jax.Array):
        return f"Convert it with jnp.asarray(value, {old.dtype.name!r})."
    what = "the result" if verb == "update" else "the value"
    return f"To keep the dtype, cast {what} with .astype({old.dtype.name!r})."


def _written(place: Place, shown: str, old: PyTree, new: PyTree) -> PyTree:
    """The tree with a value of the right structure at a place."""
    if place.layers:
        _check_shared_by_layers(shown, old, new)
    return write(place, new)


def _check_shared_by_layers(shown: str, old: PyTree, new: PyTree) -> None:
    """Raise where one layer gets another value of a leaf that all layers of the stack share, such as a label."""
    fixed = [join(shown, name) for name, leaf in leaves(old) if not hasattr(leaf, "__array__")]
    if not fixed or all(map(_agree, jax.tree.leaves(old), jax.tree.leaves(new))):
        return
    raise StructureError(
        f"cannot set {quoted(shown)}: {listed(fixed)} of one layer, where the stack holds one value for all."
        " ptree.stacks.unstack it first"
    )


# ---------------------------------------------------------------------------------- whole nodes


def _with_node(tree: PyTree, place: Place, shown: str, old: PyTree, value: PyTree) -> PyTree:
    """The tree with the leaves of a value in a node that has just these leaves."""
    if type(old) is Tree and type(value) is not Tree and isinstance(value, Mapping | list | tuple):
        value = Tree(value)
    attempt = f"cannot set {quoted(shown)}" if shown else "cannot set the whole tree"
    _check_node(attempt, shown, old, value)
    if place.layers and (place.shared or place.tie is not None):
        return _with_layer_leaves(tree, shown, attempt, value)
    is_whole = not place.shared and place.tie is None and place.kept is old
    if place.layers or (is_whole and jax.tree.structure(old) == jax.tree.structure(value)):
        if is_whole and isinstance(value, BareTree):
            new = value
        elif is_whole:  # JAX sorts the keys of dicts, as in jax.tree.map: those that are there keep their order
            new = replace_leaves(old, dict(leaves(value)))
        else:
            new = _with_leaves(old, "", shown, attempt, value)
        return _written(place, shown, old, new)
    return _with_leaves(tree, shown, shown, attempt, value)


def _with_layer_leaves(tree: PyTree, shown: str, attempt: str, value: PyTree) -> PyTree:
    """The tree with the leaves of a value in one layer of a node that is tied: each is written through its own tie."""
    changed = tree
    seen = _seen_leaves(value)
    for below, leaf in seen:
        changed = set(changed, join(shown, below), leaf)
    lost = [join(shown, below) for below, leaf in seen if not _agree(get(changed, join(shown, below)), leaf)]
    if lost:
        raise TieError(f"{attempt}: {listed(lost)} are tied to another leaf of the value, and get another value by it")
    return changed


def _check_node(attempt: str, shown: str, old: PyTree, value: PyTree) -> None:
    before, after = readings(old), readings(value)
    if opened(value) is None:
        fits = [below for below, leaf in before.items() if signature(leaf) == signature(value)]
        hint = f" Did you mean {quoted(join(shown, fits[0]))}?" if len(fits) == 1 else ""
        raise StructureError(
            f"{attempt}: expected a node with {listed(before)}, got {describe(value)}.{hint}"
            " Use ptree.put to replace it by something else.",
            missing=[join(shown, below) for below in before],
        )
    if not before and not after:
        _check_leaf("set", shown, old, value)
    found = differences(before, after)
    if found:
        fix = "Use ptree.put to replace it by something else."
        is_partial = bool(found.missing) and not (found.unexpected or found.misshapen or found.mistyped)
        if is_partial and after:
            example = join(shown, next(iter(after)))
            fix = f"To change some of its leaves, set each by its path, such as {quoted(example)}."
        raise structure_error(attempt, found, before, after, prefix=f"{shown}/" if shown else "", fix=fix)


class _Write(NamedTuple):
    """A value for one leaf, and the name under which it came."""

    name: str
    given: Leaf
    kept: Leaf
    """The value as the leaf is kept: through the tie of the name."""


def _with_leaves(tree: PyTree, path: str, shown: str, attempt: str, value: PyTree) -> PyTree:
    """The tree with the leaves of a value below a path, each written through its tie."""
    tied = aliases(tree)
    writes: dict[str, _Write] = {}
    conflicts: list[str] = []
    for below, leaf in _seen_leaves(value):
        name = join(path, below)
        tie = tied.get(name)
        new = _Write(join(shown, below), leaf, leaf if tie is None else tie.write(leaf))
        first = writes.setdefault(name if tie is None else tie.source, new)
        if not _agree(first.kept, new.kept):
            conflicts.append(
                f"{attempt}: {quoted(first.name)}, {describe(first.given)}, and {quoted(new.name)}, {describe(new.given)}, are one"
                f" tied leaf, and their values {_how_far(first.kept, new.kept)}"
            )
    if conflicts:
        raise TieError(with_fixes(conflicts, ["Give both the same value, or untie them first"]))
    return replace_leaves(tree, {own_path: one.kept for own_path, one in writes.items()})


def _seen_leaves(value: PyTree) -> list[tuple[str, Leaf]]:
    """The leaves of a value under all their names."""
    kept = dict(leaves(value))
    tied = [(alias, tie.read(kept[tie.source])) for alias, tie in aliases(value).items() if tie.source in kept]
    return [*kept.items(), *tied]


def _agree(a: Leaf, b: Leaf) -> bool:
    if a is not b and (isinstance(a, Tracer) or isinstance(b, Tracer)):
        return False  # nobody can know
    return same(a, b)


def _how_far(a: Leaf, b: Leaf) -> str:
    if isinstance(a, Tracer) or isinstance(b, Tracer):
        return "may differ, as inside jax.jit they are not known"
    far = largest_difference(a, b)
    return "differ" if far is None else f"differ by up to {far:.3g}"


# --------------------------------------------------------------------------------------- update


def update(tree: T, selector: Selector, function: Callable[[Leaf], Leaf]) -> T:
    """A tree in which each selected leaf is `function(leaf)`, of the same shape and dtype.

    >>> update(Tree({"enc": {"kernel": 1, "bias": 2}}), "**/bias", lambda b: b * 10)["enc/bias"]
    20

    In a stack a number selects a single layer. A leaf that only an alias matches is passed to
    `function` as that alias shows it, transposed for example. Other dtypes are given by rules, as in
    `jax.tree.map(jnp.astype, tree, label(tree, {"**/norm": jnp.float32, "**": jnp.bfloat16}))`.

    Args:
        tree: any pytree.
        selector: which leaves: a pattern, a regex, a predicate, a mask, or a sequence of these.
        function: from a leaf to the new leaf.

    Raises:
        PatternError: the selector is malformed, or a part of it matches nothing.
        PathError: two leaves of a plain tree have one path, or it has more than 256 levels.
        StructureError: the function changed a shape or a dtype. What the function itself raises comes through,
            with a note that names the path.
    """
    if not callable(function):
        order = (
            "the order is update(tree, selector, function)" if callable(selector) else "to set a value use ptree.set"
        )
        raise StructureError(f"update takes a function of a leaf, got {describe(function)}; {order}")
    new: dict[str, Leaf] = {}
    seen_otherwise: list[Selected] = []
    for one in choose_layers(tree, selector):
        if one.layers or one.alias:
            seen_otherwise.append(one)
        else:
            new[one.own_path] = _updated(one.own_path, one.leaf, function)
    changed = replace_leaves(tree, new)
    for one in seen_otherwise:
        updated = _updated(one.name, get(tree, one.name), function, is_layer=bool(one.layers))
        changed = set(changed, one.name, updated)
    return changed


def _updated(path: str, leaf: Leaf, function: Callable[[Leaf], Leaf], *, is_layer: bool = False) -> Leaf:
    try:
        value = function(leaf)
    except Exception as error:
        error.add_note(f"in ptree.update, at {quoted(path)}, {describe(leaf)}")
        raise
    _check_leaf("update", path, leaf, value, is_layer=is_layer)
    return value
