"""Names with dots, as PyTorch's modules have them, as paths: `h.0.attn.weight` is `h/0/attn/weight`."""

from __future__ import annotations

import re
from collections.abc import Iterable

_DOT = re.compile(r"(?<!\.)\.(?!\.)")


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
