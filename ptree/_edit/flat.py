"""Unflatten a flat dict, path -> leaf, to a Tree or into the containers of `like`; asdict makes nested plain dicts of a tree."""

from __future__ import annotations

from collections.abc import Mapping

from .._errors import PathError, StructureError
from .._tree import Leaf, PyTree, Tree, child_named, entries, leaves, names_in, replace_leaves, tree_of
from .._words import describe
from .check import Differences, structure_error


def unflatten(flat: Mapping[str, PyTree], like: PyTree = None) -> PyTree:
    """A Tree from a flat dict, path -> leaf; or the containers of `like` with the flat dict's leaves.

    >>> unflatten({"enc/kernel": 1, "enc/bias": 2})["enc"]
    Tree(
      kernel  1
      bias    2
    )
    >>> unflatten({"0/b": 1, "1": 2}, like=[{"b": 0}, 0])
    [{'b': 1}, 2]

    With `like` the paths must be its paths; shapes and dtypes are free, so that it also makes masks and labels.

    Args:
        flat: path -> leaf, as `flatten` gives it.
        like: a tree whose containers the result has; a Tree by default.

    Raises:
        StructureError: no mapping; two names land on one path, or the leaves are not those of `like`.
        PathError: a name that is no path.
        TieError: an alias without its source.
    """
    if not isinstance(flat, Mapping):
        raise StructureError(f"unflatten takes a flat dict, path -> leaf; got {describe(flat)}")
    if like is not None:
        return _unflattened_like(flat, like)
    if "" in flat:
        raise PathError("bad key '' at the root: it is empty; a single leaf needs no Tree")
    return tree_of(flat, sort=False)


def _unflattened_like(flat: Mapping[str, PyTree], like: PyTree) -> PyTree:
    expected: dict[str, Leaf] = dict(leaves(like))
    no_leaves = entries(like).keys() - expected.keys()  # aliases and empty nodes
    got = {str(path): value for path, value in flat.items() if str(path) not in no_leaves}
    missing = [path for path in expected if path not in got]
    unexpected = [path for path in got if path not in expected]
    if missing or unexpected:
        raise structure_error("cannot unflatten into `like`", Differences(missing, unexpected))
    return replace_leaves(like, got)


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
