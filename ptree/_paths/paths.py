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


def split(path: str | int) -> list[str]:
    """The segments of a path; the root is the empty path.

    >>> split("blocks/3/kernel"), split(3), split("")
    (['blocks', '3', 'kernel'], ['3'], [])

    Raises:
        PathError: no string and no whole number, an empty segment, or more than 256 segments.
    """
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
    """A path that is a whole number of any library, or a string of a subclass, as a string."""
    if isinstance(path, str):
        return path
    try:
        number = operator.index(path)  # pyright: ignore[reportArgumentType]
    except TypeError:
        number = None
    if number is None or isinstance(path, bool):
        raise PathError(f"no path {quoted(path)}: a path is a string such as 'blocks/3/kernel', or an int")
    try:
        return str(number)
    except ValueError:
        raise PathError("no path can be a number of more digits than Python prints") from None


def join(above: str, below: str) -> str:
    """The path of what is below a node; the root is the empty path."""
    if above and below:
        return f"{above}/{below}"
    return above or below


def natural(name: str) -> list[tuple[int, int, str]]:
    """A sort key that puts `layer_2` before `layer_10`: numbers by value and before text, text by its characters."""
    key: list[tuple[int, int, str]] = []
    for part in re.split(r"(\d+)", name):
        if part.isdecimal():
            digits = part.lstrip("0")
            key.append((0, len(digits), digits))
        elif part:
            key.append((1, 0, part))
    return key


@lru_cache(maxsize=4096)
def in_order(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names of a plain dict as a person would list them.

    JAX rebuilds a dict with its keys sorted as strings. Names in just that order say nothing about how
    they were declared, so they are listed naturally; any other order was somebody's choice and is kept.

    >>> in_order(("layer_10", "layer_2")), in_order(("head", "body"))
    (('layer_2', 'layer_10'), ('head', 'body'))
    """
    chosen = any(first > second for first, second in pairwise(names))
    return names if chosen else tuple(sorted(names, key=natural))
