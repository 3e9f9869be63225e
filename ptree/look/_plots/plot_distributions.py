"""plot_distributions: the distribution of the numbers in each layer, with the mean and standard deviation that a spec declares drawn over it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..._paths import STACKED, Selector
from .._sources.source_of import source_of
from .distributions import Distribution, distribution_of, layers_of_leaves, readable_paths
from .figures import BAD, DATA, DATA_BANDS, DECLARED, PALE, figure_for, grid, label, legend_of, note, panels, tidy
from .groups import largest_groups, layer_groups, left_out, name_layers, short_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

    from ..._tree import PyTree
    from ...initializers._spread import Spread

_MOST_HISTOGRAMS = 12
"""Layers: of more, bands of quantiles are drawn along the layers."""
_BINS = 80
_FARTHEST = 1e307
"""The ends of a panel: matplotlib subtracts them, and the difference of larger ones may be infinite."""
_BANDS = ((0.001, 0.999), (0.023, 0.977), (0.159, 0.841))
"""Of a Gaussian the inner two end at two and at one standard deviation."""


@dataclass(frozen=True)
class _Panel:
    """Layers that are drawn in one panel, each with its declared spread if there is one."""

    title: str
    names: tuple[str, ...]
    layers: tuple[Distribution, ...]
    declared: tuple[Spread | None, ...]


def plot_distributions(
    thing: PyTree,
    selector: Selector | None = None,
    *,
    spec: PyTree = None,
    ax: Axes | None = None,
    figure: Figure | SubFigure | None = None,
) -> Figure:
    """Draw the distribution of the numbers in each layer, a panel for each group of leaves such as `h/{0..11}/attn/kernel`.

    >>> import jax, ptree as pt
    >>> spec = pt.nn.Sequential(pt.nn.Dense(32), pt.nn.Dense(32)).spec(jax.ShapeDtypeStruct((1, 16), "float32"))
    >>> params = pt.init(spec, jax.random.key(0))
    >>> plot_distributions(params, "**/kernel", spec=spec).savefig("kernels.png")   # doctest: +SKIP

    Up to 12 layers are drawn as histograms, more as bands between the quantiles 0.1 and 99.9 %, 2.3 and 97.7 %, 15.9 and
    84.1 %, which for a Gaussian are two and one standard deviation from the mean. Numbers are counted by their upper 16
    bits as float32, so a quantile is off by at most 0.8 %; the least and the largest number are exact. Of complex numbers the sizes are counted.

    Args:
        thing: a tree, an open file, or the path of a file or of a folder of checkpoints.
        selector: which leaves; all by default. The 16 largest groups are drawn.
        spec: `Param` leaves under the same paths: the mean plus and minus the standard deviation of each initialiser,
            and its bounds, are drawn over the numbers.
        ax: axes for all layers in one panel.
        figure: a figure, or a part of one, for the panels; a new one by default.

    Returns:
        The figure, which is not shown: `figure.savefig("kernels.png")`.

    Raises:
        ImportError: matplotlib is not installed.
        PatternError: the selector matches nothing.
        StructureError: no selected leaf has numbers.
        FileError: a leaf cannot be read.
    """
    with source_of(thing) as source:
        paths = readable_paths(source, selector)
        layers = {layer.name: layer for layer in layers_of_leaves(source, paths)}
        groups = layer_groups([*layers], in_one=ax is not None)
        shown = largest_groups(groups, {name: math.prod(layer.shape) for name, layer in layers.items()})
        distributions = {name: distribution_of(source, layers[name]) for group in shown.values() for name in group}
    declared = {} if spec is None else _declared(spec)
    drawn = [_panel(title, names, distributions, declared) for title, names in shown.items()]
    rows, columns = grid(len(drawn))
    target, axes = figure_for(ax, figure, (max(4.2 * columns, 6.4), max(2.6 * rows, 3.6)))
    axes = axes or panels(target, rows, columns, len(drawn))
    for panel, panel_axes in zip(drawn, axes):
        _draw_panel(panel_axes, panel)
    if ax is None:
        legend_of(target, axes)
        note(target, left_out(len(groups) - len(shown)))
    return target


def _declared(spec: PyTree) -> dict[str, Spread]:
    from .declared import declared_spreads  # with JAX, which a plot of a file does without

    return declared_spreads(spec)


def _panel(
    title: str, names: Sequence[str], distributions: Mapping[str, Distribution], declared: Mapping[str, Spread]
) -> _Panel:
    layers = tuple(distributions[name] for name in names)
    spreads = tuple(_declared_for(layer, declared) for layer in layers)
    if any(layer.is_complex for layer in layers):
        title = f"sizes |z| of {title}"
    return _Panel(title, short_names(names), layers, spreads)


def _declared_for(distribution: Distribution, declared: Mapping[str, Spread]) -> Spread | None:
    """The declared spread of a layer, whether the tree or the spec has it in a stack."""
    layer = distribution.layer
    for path in (layer.name, layer.leaf):
        if path in declared:
            return declared[path]
    segments = layer.name.split("/")
    for place, segment in enumerate(segments):
        stacked = "/".join([*segments[:place], STACKED, *segments[place + 1 :]])
        if segment.isdecimal() and stacked in declared:
            return declared[stacked]
    return None


# ------------------------------------------------------------------------------ one panel


def _draw_panel(ax: Axes, panel: _Panel) -> None:
    tidy(ax, panel.title)
    if len(panel.layers) <= _MOST_HISTOGRAMS:
        _draw_histograms(ax, panel)
    else:
        _draw_bands(ax, panel)


def _draw_histograms(ax: Axes, panel: _Panel) -> None:
    """A histogram for each layer, one below the other, each as high as its row."""
    edges = np.linspace(*_range(panel), _BINS + 1)
    middles = (edges[1:] + edges[:-1]) / 2
    for row, (layer, spread) in enumerate(zip(panel.layers, panel.declared)):
        counts = layer.histogram(edges)
        heights = 0.9 * counts / max(counts.max(), 1)
        ax.fill_between(middles, row, row - heights, step="mid", color=DATA, linewidth=0)
        ax.axhline(row, color="#cccccc", linewidth=0.5)
        _draw_declared_row(ax, row, spread)
        _write_remark(ax, row, layer, edges)
    ax.set_xlim(edges[0], edges[-1])
    ax.set_ylim(len(panel.layers) - 0.9, -1.05)  # the first layer is at the top
    places = [row - 0.4 for row in range(len(panel.names))]
    ax.set_yticks(places, [label(name, 24) for name in panel.names])
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    if len(panel.names) == 1:
        ax.set_yticks([])


def _draw_declared_row(ax: Axes, row: int, spread: Spread | None) -> None:
    if spread is None:
        return
    ends = (spread.mean - spread.std, spread.mean + spread.std)
    ax.vlines(ends, row - 0.95, row, color=DECLARED, linewidth=1.4, label="declared mean ± std")
    bounds = [bound for bound in (spread.low, spread.high) if math.isfinite(bound)]
    if bounds and spread.std > 0:
        ax.vlines(bounds, row - 0.6, row, color=DECLARED, linewidth=1, linestyle=":", label="declared bounds")


def _write_remark(ax: Axes, row: int, layer: Distribution, edges: np.ndarray) -> None:
    """Write how many numbers are not finite, and how far numbers go that are outside of the panel."""
    least, largest = layer.quantiles([0, 1])
    outside: list[str] = []
    if least < edges[0]:
        outside.append(f"min {least:.2g}")
    if largest > edges[-1]:
        outside.append(f"max {largest:.2g}")
    place = {"fontsize": 7, "ha": "right", "transform": ax.get_yaxis_transform()}
    if outside:
        ax.text(0.99, row - 0.62, ", ".join(outside), color=PALE, **place)
    if layer.moments.nonfinite:
        ax.text(0.99, row - 0.3, f"{layer.moments.nonfinite:,} NaN or inf", color=BAD, **place)


def _range(panel: _Panel) -> tuple[float, float]:
    """The numbers from the least to the largest, without far outliers, and with the declared spread."""
    ends: list[float] = []
    for layer, spread in zip(panel.layers, panel.declared):
        ends += _ends_without_outliers(layer)
        if spread is not None:
            ends += [spread.mean - 1.1 * spread.std, spread.mean + 1.1 * spread.std]
    finite = [end for end in ends if math.isfinite(end)] or [0.0]
    low, high = max(min(finite), -_FARTHEST), min(max(finite), _FARTHEST)
    margin = 0.03 * (high - low) or 0.5 * abs(high) or 0.5
    return low - margin, high + margin


def _ends_without_outliers(layer: Distribution) -> list[float]:
    least, low, high, largest = layer.quantiles([0, 0.001, 0.999, 1])
    if layer.moments.finite < 1000:  # there the quantiles are the ends, or next to them
        return [least, largest]
    width = high - low
    return [max(least, low - width), min(largest, high + width)]


def _draw_bands(ax: Axes, panel: _Panel) -> None:
    """Bands between quantiles along the layers."""
    at = np.arange(len(panel.layers))
    for (low, high), color in zip(_BANDS, DATA_BANDS):
        ends = np.array([layer.quantiles([low, high]) for layer in panel.layers])
        text = f"{100 * low:g} to {100 * high:g} %"
        ax.fill_between(at, ends[:, 0], ends[:, 1], color=color, linewidth=0, label=text)
    ax.plot(at, [layer.quantiles([0.5])[0] for layer in panel.layers], color=DATA, linewidth=1, label="median")
    _draw_declared_lines(ax, at, panel.declared)
    bad = [place for place, layer in enumerate(panel.layers) if layer.moments.nonfinite]
    if bad:
        places = [0.03] * len(bad)
        ax.plot(bad, places, "x", color=BAD, label="NaN or inf", transform=ax.get_xaxis_transform(), markersize=5)
    ax.set_xlim(0, max(len(at) - 1, 1))
    name_layers(ax, panel.names)


def _draw_declared_lines(ax: Axes, at: np.ndarray, declared: Sequence[Spread | None]) -> None:
    if not any(declared):
        return
    nothing = (math.nan, math.nan)
    around_mean = [nothing if one is None else (one.mean - one.std, one.mean + one.std) for one in declared]
    bounds = [nothing if one is None else (one.low, one.high) for one in declared]
    for text, style, both in (("declared mean ± std", "--", around_mean), ("declared bounds", ":", bounds)):
        ends = np.array(both)
        ends[~np.isfinite(ends)] = math.nan
        for side in (0, 1):
            if np.isfinite(ends[:, side]).any():
                ax.plot(at, ends[:, side], color=DECLARED, linewidth=1.2, linestyle=style, label=text)
