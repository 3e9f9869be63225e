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


def with_slashes(text: str) -> str:
    """A name with dots, or a pattern of such names, as a path.

    >>> with_slashes("h.{0..3}.attn"), with_slashes("h/0/a.b")
    ('h/{0..3}/attn', 'h/0/a.b')
    """
    return text if "/" in text else _DOT.sub("/", text)
