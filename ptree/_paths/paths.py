"""Paths: the keys from the root to a node or a leaf, joined by `/`, as in `"blocks/3/attn/kernel"`. Strings only."""

from __future__ import annotations

import operator
import re
from functools import lru_cache
from itertools import pairwise

from .._errors import PathError
from .._words import quoted

STACKED = ":"
"""The one name in a node that is a stack of layers."""

DEEPEST = 256
"""How many segments a path, and levels a tree, may have: JAX, pickle and Python itself recurse over them."""


# --------------------------------------------------------------------------------- paths


def split(path: str | int) -> list[str]:
    """The segments of a path; the root is the empty path.

    >>> split("blocks/3/kernel"), split(3), split("")
    (['blocks', '3', 'kernel'], ['3'], [])

    Raises:
        PathError: no string and no whole number, an empty segment, or more than 256 segments.
    """
    if type(path) is not str:
        if hasattr(path, "__index__") and not isinstance(path, bool):
            try:
                return [str(operator.index(path))]  # pyright: ignore[reportArgumentType]
            except TypeError:  # an array of more than one number
                pass
            except ValueError as error:
                raise PathError("no path can be a number of more digits than Python prints") from error
        if not isinstance(path, str):
            raise PathError(f"no path {quoted(path)}: a path is a string such as 'blocks/3/kernel', or an int")
    if not path:
        return []
    segments = path.split("/")
    if "" in segments:
        raise PathError(f"no path {quoted(path)}: it has an empty segment (a '/' too many)")
    if len(segments) > DEEPEST:
        raise PathError(
            f"no path {quoted(path)}: it has {len(segments)} segments, and no tree has over {DEEPEST} levels"
        )
    return segments


def join(above: str, below: str) -> str:
    """The path of what is below a node; the root is the empty path."""
    return f"{above}/{below}" if above and below else above or below


def natural(name: str) -> list[tuple[int, int, str]]:
    """A sort key that puts `layer_2` before `layer_10`."""
    parts = re.split(r"(\d+)", name)
    return [(0, len(p.lstrip("0")), p.lstrip("0")) if p.isdecimal() else (1, 0, p) for p in parts if p]


@lru_cache(maxsize=4096)
def in_order(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names of a plain dict as a person would list them.

    JAX rebuilds a dict with its keys sorted as strings. Names in just that order say nothing about how
    they were declared, so they are listed naturally; any other order was somebody's choice and is kept.

    >>> in_order(("layer_10", "layer_2")), in_order(("head", "body"))
    (('layer_2', 'layer_10'), ('head', 'body'))
    """
    if any(a > b for a, b in pairwise(names)):
        return names
    return tuple(sorted(names, key=natural))
