"""Names with dots, as PyTorch's modules have them, as paths: `h.0.attn.weight` is `h/0/attn/weight`."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from .._words import quoted, suggestion

_DOT = re.compile(r"(?<!\.)\.(?!\.)")
_MOST_SEGMENTS = 32
"""Of a text that is spelled otherwise for a hint."""


def paths_of_names(names: Iterable[str]) -> dict[str, str]:
    """The path of each name in a file that another program wrote: dots are slashes, if no name has a slash.

    >>> paths_of_names(["h.0.w", "head"])
    {'h/0/w': 'h.0.w', 'head': 'head'}
    """
    names = list(names)
    as_they_are = {name: name for name in names}
    if any("/" in name for name in names):
        return as_they_are
    paths = {name.replace(".", "/"): name for name in names}
    has_empty_segment = any("" in path.split("/") for path in paths)
    if has_empty_segment or len(paths) < len(names):
        return as_they_are
    return paths


def paths_of_nested_names(names: Iterable[str]) -> dict[str, str]:
    """The path of each name of a file in which names with dots lie in dicts, joined with slashes: both are slashes.

    >>> paths_of_nested_names(["model/h.0.w", "optimizer/lr"])
    {'model/h/0/w': 'model/h.0.w', 'optimizer/lr': 'optimizer/lr'}
    """
    names = list(names)
    dotted = {name.replace("/", "."): name for name in names}
    if len(dotted) < len(names):
        return {name: name for name in names}
    paths = paths_of_names(dotted)
    if any("/" not in path and "." in path for path in paths):  # some name is no path
        return {name: name for name in names}
    return {path: dotted[name] for path, name in paths.items()}


def with_slashes(text: str) -> str:
    """A name with dots, or a pattern of such names, as a path.

    >>> with_slashes("h.{0..3}.attn"), with_slashes("h/0/a.b")
    ('h/{0..3}/attn', 'h/0/a.b')
    """
    return text if "/" in text else _DOT.sub("/", text)


def other_spellings(text: str) -> list[str]:
    """A path, or a pattern of paths, with slashes for dots, and with dots for its last slashes, up to all of them.

    Among dots a `**` is a `*`, which matches dots too.

    >>> other_spellings("model/h/0/w")
    ['model/h/0.w', 'model/h.0.w', 'model.h.0.w']
    >>> other_spellings("**/w"), other_spellings("h.0.w")[0]
    (['*.w'], 'h/0/w')
    """
    segments = re.split(f"/|{_DOT.pattern}", text)
    if len(segments) > _MOST_SEGMENTS:
        return []
    found: dict[str, None] = {}
    for count in reversed(range(len(segments))):  # of the segments in front of slashes
        with_dots = ".".join("*" if segment == "**" else segment for segment in segments[count:])
        found["/".join([*segments[:count], with_dots])] = None
    return [spelling for spelling in found if spelling != text]


def hint_of_name(wrong: str, names: Collection[str]) -> str:
    """Suggest the name that was likely meant: the same with other separators, or the nearest; "" if none is near.

    >>> hint_of_name("h/0/w", ["h.0.w", "h.0.b"])
    " Did you mean 'h.0.w'?"
    """
    same = [spelling for spelling in other_spellings(wrong) if spelling in names]
    return f" Did you mean {quoted(same[0])}?" if same else suggestion(wrong, names)
