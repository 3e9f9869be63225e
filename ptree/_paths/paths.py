"""Paths as strings such as `"blocks/3/attn/kernel"`: split one into segments, join two, names in natural order; what a bad
path was meant by."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import pairwise

from .._errors import PathError
from .._numbers import whole_number
from .._words import quoted

STACKED = ":"
"""The one name in a node that is a stack of layers."""

DEEPEST = 256
"""The most segments of a path, and levels of a tree: JAX, pickle and Python itself recurse over them."""


def split(path: str | int) -> list[str]:
    """Split a path at each `/` into its segments; the root is the empty path.

    >>> split("blocks/3/kernel"), split(3), split("")
    (['blocks', '3', 'kernel'], ['3'], [])

    Raises:
        PathError: the path is neither a string nor a whole number, has an empty segment, or over 256 segments.
    """
    # The usual path is a plain string: one comparison of types keeps reads by path fast.
    if type(path) is not str:
        path = _text_of(path)
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


def _text_of(path: object) -> str:
    """Convert a path that is a whole number of any library, or a string of a subclass, to a string."""
    if isinstance(path, str):
        return path
    number = whole_number(path)
    if number is None:
        message = f"no path {quoted(path)}: a path is a string such as 'blocks/3/kernel', or an int"
        raise PathError(message + _meant_by(path))
    try:
        return str(number)
    except ValueError:  # Python prints at most 4,300 digits
        raise PathError("no path can be a number of more digits than Python prints") from None


def _meant_by(path: object) -> str:
    """What may have been meant by something that is no path: keys one by one, or the arguments in another order."""
    if str(getattr(path, "dtype", "")).startswith(("int", "uint")) and getattr(path, "shape", None) == ():
        # whole numbers whose value is there are paths
        return (
            ". A number that JAX traces has no value yet: [':'] gives all layers of a stack, whose leaves take it as an"
            " index, and ptree.stacks.scan runs over them"
        )
    if isinstance(path, Mapping) or hasattr(path, "shape"):
        return ". The tree comes first, and then the path"
    if not isinstance(path, tuple | list):
        return ""
    keys = [getattr(key, "key", getattr(key, "idx", getattr(key, "name", key))) for key in path]  # JAX's keys too
    if not all(isinstance(key, str | int) for key in keys):
        return ""
    return f". Write {'/'.join(map(str, keys))!r}"


def join(above: str, below: str) -> str:
    """Join two paths, that of a node and one below it; the root is the empty path."""
    if above and below:
        return f"{above}/{below}"
    return above or below


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key that puts names in natural order, `layer_2` before `layer_10`: numbers by value, and before text."""
    key: list[tuple[int, int, str]] = []
    for part in re.split(r"(\d+)", name):
        if part.isdecimal():
            # Compared as (length, digits): converting to int would fail for thousands of digits.
            digits = part.lstrip("0")
            key.append((0, len(digits), digits))
        elif part:
            key.append((1, 0, part))
    return key


@lru_cache(maxsize=4096)  # layers of one kind have equal names, so most dicts of a model are found in the cache
def in_order(names: tuple[str, ...]) -> tuple[str, ...]:
    """Put the names of a plain dict in natural order, unless somebody chose another order.

    JAX rebuilds a dict with its keys sorted as strings. Names in that order say nothing about how they were
    declared, so they are sorted naturally; any other order was chosen and is kept.

    >>> in_order(("layer_10", "layer_2")), in_order(("head", "body"))
    (('layer_2', 'layer_10'), ('head', 'body'))
    """
    chosen = any(first > second for first, second in pairwise(names))
    if chosen:
        return names
    return tuple(sorted(names, key=natural))
