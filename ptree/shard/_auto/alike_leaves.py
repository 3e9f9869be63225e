"""Leaves of layers that differ by their number alone: one of them stands for all, so that 100,000 leaves take under a second."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from .layer_roles import Shape
from .leaf_splits import Split


class AlikeLeaves(NamedTuple):
    """Leaves whose paths differ by numbers alone, and which are split alike."""

    paths: list[str]
    split: Split
    size: int
    """How many numbers one layer of one of them has."""

    @property
    def path(self) -> str:
        """That of the first one."""
        return self.paths[0]


def alike_paths(shapes: Mapping[str, Shape]) -> dict[str, list[str]]:
    """Put together the paths of leaves that are split alike, as they are in equal layers: the first path -> all of them.

    >>> alike_paths({"blocks/0/up/w": (4, 8), "blocks/1/up/w": (4, 8), "blocks/2/up/w": (4, 9), "0/w": (2,)})
    {'blocks/0/up/w': ['blocks/0/up/w', 'blocks/1/up/w'], 'blocks/2/up/w': ['blocks/2/up/w'], '0/w': ['0/w']}

    A leaf directly in a numbered node is by itself: there the node is the layer, whose role comes from its neighbours.
    """
    alike: dict[str, list[str]] = {}
    in_layers: dict[str, list[tuple[str, Shape]]] = {}
    for path, shape in shapes.items():
        found = (_IN_LAYER if "/" in path else _IN_LAYER_BY_DOTS).match(path)
        if found is None:
            alike[path] = [path]
        else:
            in_layers.setdefault(found[1], []).append((found[2], shape))
    first_of: dict[object, str] = {}
    for layer, content in in_layers.items():
        first = first_of.setdefault((_NUMBER.sub("0", layer), tuple(content)), layer)
        for below, _ in content:
            alike.setdefault(first + below, []).append(layer + below)
    return {path: alike[path] for path in shapes if path in alike}


_IN_LAYER = re.compile(r"(.*(?<![^/])\d+/)(.+/.+)", re.DOTALL)
"""A path in a numbered node, the innermost that has it not as its own leaf: `blocks/0/` and `up/kernel`."""
_IN_LAYER_BY_DOTS = re.compile(r"(.*(?<![^.])\d+\.)(.+\..+)", re.DOTALL)
_NUMBER = re.compile(r"(?<![^/.])\d+(?=[/.])")
