"""plot_similarity: how similar two checkpoints are, layer by layer: cosine, relative change, overlap of singular directions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..._paths import Selector
from .._layers import LayerGroup, group_by_layer
from .._sources.source_of import source_of
from .figures import figure_for, label, note, panels, tidy
from .groups import evenly_spread
from .similarity import LayerSimilarity, Similarity, similarity_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

    from ..._tree import PyTree

_MOST_LINES = 12
_MOST_ALONE = 8
_MOST_OVERLAPS = 8
"""Layers of a group whose singular directions are compared."""


def plot_similarity(
    a: PyTree, b: PyTree, selector: Selector | None = None, *, figure: Figure | SubFigure | None = None
) -> Figure:
    """Draw how similar two checkpoints are, layer by layer: a line for each group of leaves such as `h/{0..11}/attn/kernel`.

    >>> import numpy as np
    >>> a = {"h": [{"w": np.eye(4)}, {"w": np.eye(4)}]}
    >>> b = {"h": [{"w": np.eye(4)}, {"w": 1.5 * np.eye(4)}]}
    >>> change = plot_similarity(a, b).axes[1]
    >>> change.get_ylabel(), change.lines[0].get_ydata().tolist()
    ('relative change', [0.0, 0.5])

    There are three panels: the cosine of the angle between the two, as vectors; the relative change `|b - a| / |a|`; and the
    overlap of the subspaces of the 8 largest singular values, the mean of the squared cosines of their principal
    angles (Björck and Golub 1973), 1 where they are the same. Only weights are compared: what the two compute may be
    the same where the weights are not. Leaves that stand in no group are at the right. The overlap is computed for
    matrices of at most 1,024 columns and 4 million numbers, in at most 8 layers of a group.

    Args:
        a: a tree, an open file, or the path of a file or of a folder of checkpoints.
        b: the other one.
        selector: which leaves of `a`; all by default. The 12 largest groups and 8 leaves without a group are drawn.
        figure: a figure, or a part of one; a new one by default.

    Raises:
        ImportError: matplotlib is not installed.
        PatternError: the selector matches nothing.
        StructureError: the two have no leaf of the same path and shape.
        FileError: a leaf cannot be read.
    """
    with source_of(a) as first, source_of(b) as second:
        found = similarity_of(first, second, selector, _layers_with_overlap)
    target, _ = figure_for(None, figure, (9.0, 7.5))
    groups = group_by_layer([layer.path for layer in found.layers])
    counts = {layer.path: layer.count for layer in found.layers}
    groups.sort(key=lambda group: -sum(counts[path] for path in group.paths))  # stable
    lines = [group for group in groups if len(group.paths) > 1]
    alone = [group for group in groups if len(group.paths) == 1]
    axes = panels(target, 3, 1, 3)
    _draw(axes, lines[:_MOST_LINES], alone[:_MOST_ALONE], {layer.path: layer for layer in found.layers})
    left_out = len(lines[_MOST_LINES:]) + len(alone[_MOST_ALONE:])
    note(target, _left_out(found, left_out))
    return target


def _layers_with_overlap(names: Sequence[str]) -> set[str]:
    chosen: set[str] = set()
    for group in group_by_layer(names):
        chosen.update(group.paths[place] for place in evenly_spread(len(group.paths), _MOST_OVERLAPS))
    return chosen


def _left_out(found: Similarity, groups: int) -> str:
    parts: list[str] = []
    if found.only_one:
        parts.append(f"leaves in one of the two alone: {len(found.only_one)}")
    if found.other_shape:
        parts.append(f"leaves of another shape: {len(found.other_shape)}")
    unknown = sum(math.isnan(layer.relative) for layer in found.layers)
    if unknown:
        parts.append(f"layers with NaN or inf, not drawn: {unknown}")
    if groups:
        parts.append(f"smaller groups that are not drawn: {groups}; give a selector")
    return "; ".join(parts)


_MEASURES = ("cosine", "relative change", "overlap of the 8 largest\nsingular directions")


def _draw(
    axes: Sequence[Axes],
    lines: Sequence[LayerGroup],
    alone: Sequence[LayerGroup],
    layers: Mapping[str, LayerSimilarity],
) -> None:
    from matplotlib import colormaps

    longest = max((len(group.paths) for group in lines), default=0)
    colors = [*colormaps["tab10"].colors, "#333333", "#aaaaaa"]  # pyright: ignore[reportAttributeAccessIssue]
    for ax, measure in zip(axes, _MEASURES):
        tidy(ax)
        ax.set_ylabel(measure, fontsize=8)
        for group, color in zip(lines, colors):
            values = np.array([_value(layers[path], measure) for path in group.paths])
            is_finite = np.isfinite(values)
            at = np.arange(len(values))
            marker = "." if longest <= 40 else ""
            ax.plot(at[is_finite], values[is_finite], color=color, linewidth=1, marker=marker, label=label(group.name))
        step = max(longest / 24, 1)
        places = [longest + step * (number + 0.5) for number in range(len(alone))]
        ax.plot(places, [_value(layers[group.name], measure) for group in alone], "D", color="#555555", markersize=4)
        if alone and lines:
            ax.axvline(longest - 1 + step / 2, color="#cccccc", linewidth=0.8)
        _set_ticks(ax, longest, places, alone)
        ax.set_xlim(-0.5 * step, longest - 1 + step * (len(alone) + 1))
        ax.grid(axis="y", color="#eeeeee")
    _set_scales(axes, [_value(layer, "relative change") for layer in layers.values()])
    for ax in axes[:-1]:
        ax.tick_params(axis="x", labelbottom=False)
    if lines:
        axes[0].figure.legend(
            *axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=2, fontsize=8, frameon=False
        )  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]


def _value(layer: LayerSimilarity, measure: str) -> float:
    if measure == "cosine":
        return layer.cosine
    if measure == "relative change":
        return layer.relative if math.isfinite(layer.relative) else math.nan
    return layer.overlap


def _set_ticks(ax: Axes, longest: int, places: Sequence[float], alone: Sequence[LayerGroup]) -> None:
    every = max(1, math.ceil(longest / 12))
    numbers = list(range(0, longest, every))
    names = [str(number) for number in numbers] + [label(group.name, 22) for group in alone]
    ax.set_xticks([*numbers, *places], names)
    for tick in ax.get_xticklabels()[len(numbers) :]:
        tick.set_rotation(35)
        tick.set_horizontalalignment("right")


def _set_scales(axes: Sequence[Axes], changes: Sequence[float]) -> None:
    positive = [change for change in changes if change > 0]
    if positive and max(positive) > 30 * min(positive):
        # linear below the least change, so that layers that did not change are there
        axes[1].set_yscale("symlog", linthresh=min(positive))
    largest = max((change for change in changes if math.isfinite(change)), default=0.0)
    axes[1].set_ylim(0, 1.3 * largest or 1)
    axes[2].set_ylim(0, 1.05)
