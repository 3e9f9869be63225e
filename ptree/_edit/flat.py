"""Trees as flat or nested dicts and back, and with other names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._errors import PathError, StructureError
from .._paths import split
from .._tree import Nested, Tie, Tree, build, insert
from .._words import describe
from .access import replace_leaves
from .check import structure_error
from .selectors import Selector, choose, each_entry, entries, leaves


def flatten(tree: Any, selector: Selector | None = None) -> dict[str, Any]:
    """The tree as one flat dict, path -> leaf, that `unflatten` turns back.

    >>> flatten(Tree({"enc": {"kernel": 1, "bias": 2}}))
    {'enc/kernel': 1, 'enc/bias': 2}

    So that nothing is lost, an alias stands in it as a `Tie` and a node without leaves as itself; to JAX
    neither is a leaf. For arrays under every name use `dict(items(tree, aliases=True))`.

    Raises:
        PatternError: the selector is malformed, or a part of it matches nothing.
        PathError: two leaves of a plain tree have one path, or it has more than 256 levels.
    """
    if selector is None:
        return entries(tree)
    kept = dict(choose(tree, selector))
    return {p: v for p, v in each_entry(tree) if p in kept or (type(v) is Tie and v.source in kept)}


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
        StructureError: no mapping; two names land on one path, or the leaves are not those of `like`.
        PathError: a name that is no path.
        TieError: an alias without its source.
    """
    if not isinstance(flat, Mapping):
        raise StructureError(f"unflatten takes a flat dict, path -> leaf; got {describe(flat)}")
    if like is None:
        nested = Nested()
        for path, value in flat.items():
            if not path:
                raise PathError("bad key '' at the root: it is empty; a single leaf needs no Tree")
            insert(nested, split(path), value)
        return build(nested)
    expected = dict(leaves(like))
    structure = {path for path, _ in each_entry(like)} - expected.keys()  # its aliases and empty nodes
    flat = {str(path): value for path, value in flat.items()}
    got = {path: value for path, value in flat.items() if path not in structure}
    missing, unexpected = [p for p in expected if p not in got], [p for p in got if p not in expected]
    if missing or unexpected:
        raise structure_error("cannot unflatten into `like`", missing, unexpected)
    return replace_leaves(like, got)


def asdict(tree: Any) -> dict[str, Any]:
    """The tree as nested plain dicts; tied paths hold the same object. No leaf is copied.

    >>> asdict(Tree({"enc/kernel": 1}))
    {'enc': {'kernel': 1}}

    Raises:
        StructureError, PathError: as `Tree`, for what is none yet.
    """
    tree = tree if type(tree) is Tree else Tree(tree)
    return {name: asdict(value) if type(value) is Tree else value for name, value in tree.items()}
