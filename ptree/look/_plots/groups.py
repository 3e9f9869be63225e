"""The groups of layers that have a panel or a line each in a plot: the largest ones, the names of their layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .._layers import group_by_layer
from .figures import label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_PANELS = 16


def layer_groups(names: Sequence[str], *, in_one: bool) -> dict[str, tuple[str, ...]]:
    if in_one:
        return {"": tuple(names)}
    return {group.name: group.paths for group in group_by_layer(names)}


def largest_groups(groups: Mapping[str, tuple[str, ...]], counts: Mapping[str, int]) -> dict[str, tuple[str, ...]]:
    """The groups with the most numbers, in their order."""
    size = {title: sum(counts[name] for name in names) for title, names in groups.items()}
    kept = sorted(groups, key=lambda title: -size[title])[:MOST_PANELS]
    return {title: names for title, names in groups.items() if title in kept}


def left_out(count: int) -> str:
    return f"{count} smaller groups of leaves are not drawn: give a selector" if count else ""


def short_names(names: Sequence[str]) -> tuple[str, ...]:
    """The segment in which the names differ, or the whole names."""
    segments = [name.split("/") for name in names]
    if len(names) == 1 or len({len(parts) for parts in segments}) > 1:
        return tuple(names)
    different = [place for place, column in enumerate(zip(*segments)) if len({*column}) > 1]
    if len(different) != 1:
        return tuple(names)
    return tuple(parts[different[0]] for parts in segments)


def name_layers(ax: Axes, names: Sequence[str]) -> None:
    """Write some of the names of the layers below the axis, so many as there is room for."""
    is_numbered = all(name.isdecimal() for name in names)
    every = max(1, math.ceil(len(names) / (8 if is_numbered else 4)))
    places = list(range(0, len(names), every))
    ax.set_xticks(places, [label(names[place], 16) for place in places])


def evenly_spread(count: int, most: int) -> list[int]:
    """The places of all, or of so many that are evenly spread, the first and the last included."""
    if count <= most:
        return list(range(count))
    return [round(at * (count - 1) / (most - 1)) for at in range(most)]
