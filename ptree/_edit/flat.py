"""Unflatten a flat dict, path -> leaf, to a Tree, or a flat dict or a Tree into the containers of `like`; asdict makes nested
plain dicts of a tree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product

from jax.core import Tracer

from .._errors import PathError, StructureError, TieError
from .._tree import (
    Index,
    Leaf,
    PyTree,
    Tie,
    Tree,
    child_named,
    entries,
    leaves,
    names_in,
    replace_leaves,
    same,
    stacked_axes,
    tree_of,
)
from .._words import describe, quoted, with_fixes
from .check import Differences, structure_error
from .leaf_names import LeafName, names_of_leaves
from .pattern_walk import layer_path


def unflatten(flat: Mapping[str, PyTree], like: PyTree = None) -> PyTree:
    """A Tree from a flat dict, path -> leaf; or the containers of `like` with the leaves of a flat dict or of a Tree.

    >>> unflatten({"enc/kernel": 1, "enc/bias": 2})["enc"]
    Tree(
      kernel  1
      bias    2
    )
    >>> unflatten({"0/b": 1, "1": 2}, like=[{"b": 0}, 0])
    [{'b': 1}, 2]

    A Tree gives each of its leaves under all names that `like` has for it, and a stack its single layers where those of
    `like` are apart. So it is the way back from `ptree.tie(model, table)` to a model of Equinox or Flax:

    >>> from ptree import tie
    >>> layers = [{"w": 1}, {"w": 2}]
    >>> unflatten(tie(layers, {"1": "0"}), like=layers)
    [{'w': 1}, {'w': 1}]

    With `like` the paths must be its paths; shapes and dtypes are free, so that it also makes masks and labels. Ties are
    those of `like`. Inside `jax.jit` values are not known: there an alias of `like` is what its source gets.

    Args:
        flat: path -> leaf, as `flatten` gives it.
        like: a tree whose containers the result has; a Tree by default.

    Raises:
        StructureError: no mapping; two names land on one path, or the leaves are not those of `like`.
        PathError: a name that is no path.
        TieError: an alias without its source; two different values for one tied leaf of `like`.
    """
    if not isinstance(flat, Mapping):
        raise StructureError(f"unflatten takes a flat dict, path -> leaf, or a Tree; got {describe(flat)}")
    if like is not None:
        return _unflattened_like(flat, like)
    if type(flat) is Tree:
        return flat
    if "" in flat:
        raise PathError("bad key '' at the root: it is empty; a single leaf needs no Tree")
    return tree_of(flat, sort=False)


def _unflattened_like(flat: Mapping[str, PyTree], like: PyTree) -> PyTree:
    expected: dict[str, Leaf] = dict(leaves(like))
    there = entries(like)
    aliases = {name.name: name.tie for name in names_of_leaves(like) if name.tie is not None}
    if type(flat) is not Tree and _has_other_ties(flat, there):
        flat = tree_of(flat, sort=False)  # which reads as values what is tied in it
    if type(flat) is Tree:
        given = dict(_values_by_name(flat, expected, aliases))
    else:
        given = {str(path): value for path, value in flat.items()}
    no_leaves = (there.keys() | aliases.keys()) - expected.keys()  # aliases and empty nodes
    missing = [path for path in expected if path not in given]
    unexpected = [path for path in given if path not in expected and path not in no_leaves]
    if missing or unexpected:
        raise structure_error("cannot unflatten into `like`", Differences(missing, unexpected))
    _check_aliases(given, aliases)
    return replace_leaves(like, given)


def _has_other_ties(flat: Mapping[str, PyTree], there: Mapping[str, PyTree]) -> bool:
    """Whether a flat dict has ties that the entries of another tree do not have."""
    return any(type(value) is Tie and there.get(str(path)) != value for path, value in flat.items())


def _values_by_name(tree: Tree, expected: Mapping[str, Leaf], aliases: Mapping[str, Tie]) -> Iterator[tuple[str, Leaf]]:
    """Each leaf of a Tree under all its names, and of a stack each single layer, where no whole one is expected.

    Without the aliases that are tied to the same in `like`.
    """
    for name in names_of_leaves(tree):
        if name.name in expected:
            yield name.name, name.seen()
        elif name.name in aliases:
            if aliases[name.name] != name.tie:
                yield name.name, name.seen()
        else:
            for layers in _single_layers(name):
                yield layer_path(name.name, layers), name.seen(layers)


def _single_layers(name: LeafName) -> Iterator[Index]:
    """The indices of all layers of a leaf in stacks; of any other leaf the empty index."""
    sizes = getattr(name.seen_shape(), "shape", ())[: stacked_axes(name.name)]
    return product(*map(range, sizes))


def _check_aliases(given: Mapping[str, PyTree], aliases: Mapping[str, Tie]) -> None:
    """Raise where the value that is given for an alias is known to differ from that of its source."""
    conflicts: list[str] = []
    for alias, tie in aliases.items():
        value, source = given.get(alias), given.get(tie.source)
        if alias not in given or type(value) is Tie or _is_unknown(value) or _is_unknown(source):
            continue
        if not same(value, tie.read(source)):
            conflicts.append(
                f"cannot unflatten into `like`: {quoted(alias)} is tied to {quoted(tie.shown())} there, and their values differ"
            )
    if conflicts:
        raise TieError(with_fixes(conflicts, ["Give both the same value, or untie `like` first."]))


def _is_unknown(value: PyTree) -> bool:
    """Whether the values of an array are not known: inside of `jax.jit`."""
    return isinstance(value, Tracer)


def asdict(tree: PyTree) -> dict[str, PyTree]:
    """The tree as nested plain dicts, which hold no ties: tied paths hold the same object. No leaf is copied.

    >>> asdict(Tree({"enc/kernel": 1}))
    {'enc': {'kernel': 1}}

    For what takes only dicts, such as linen's `apply` and `nnx.merge`.

    Args:
        tree: a Tree, or a mapping that becomes one.

    Raises:
        StructureError, PathError: as from `Tree`, for a mapping that is no Tree yet.
    """
    tree = tree if type(tree) is Tree else Tree(tree)
    found: dict[str, PyTree] = {}
    for name in names_in(tree) or ():
        value = child_named(tree, name)
        found[name] = asdict(value) if type(value) is Tree else value
    return found
