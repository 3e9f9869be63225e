"""plot_singular_values: the singular values of each matrix, convolution and layer of a stack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..._errors import StructureError
from ..._paths import Selector
from ..._words import listed
from .._sources.source import Source
from .._sources.source_of import source_of
from .distributions import LayerOfLeaf, layers_of_leaves, readable_paths
from .figures import BAD, figure_for, grid, label, note, panels, tidy
from .groups import evenly_spread, largest_groups, layer_groups, left_out, short_names
from .spectra import is_matrix, singular_values

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

    from ..._tree import PyTree

MOST_LAYERS = 16
"""Lines in a panel: of more layers evenly spread ones are computed and drawn."""
_MOST_IN_LEGEND = 8
_ROUNDING = 1e-8


@dataclass(frozen=True)
class _Panel:
    title: str
    names: tuple[str, ...]
    spectra: tuple[np.ndarray, ...]
    """The singular values of each layer; none where a number is not finite."""
    count: int
    """How many layers there are."""


def plot_singular_values(
    thing: PyTree,
    selector: Selector | None = None,
    *,
    ax: Axes | None = None,
    figure: Figure | SubFigure | None = None,
) -> Figure:
    """Draw the singular values of each matrix, the largest first, a panel for each group of layers and a line for each layer.

    >>> import numpy as np
    >>> figure = plot_singular_values({"w": np.diag([4.0, 2.0, 1.0])})
    >>> [round(float(value), 6) for value in figure.axes[0].lines[0].get_ydata()]
    [4.0, 2.0, 1.0]

    A kernel of a convolution is the matrix of its last axis against all others. The values come from the product of the
    matrix with itself, so those below 1e-8 of the largest are rounding errors, and are not drawn. Where both sides are longer than
    2,048, the largest 256 are computed with random vectors. Of more than 16 layers in a group evenly spread ones are
    drawn, and 16 groups, those with the most numbers.

    Args:
        thing: a tree, an open file, or the path of a file or of a folder of checkpoints.
        selector: which leaves; all by default. Leaves with fewer than two axes are left out.
        ax: axes for all layers in one panel.
        figure: a figure, or a part of one, for the panels; a new one by default.

    Raises:
        ImportError: matplotlib is not installed.
        PatternError: the selector matches nothing.
        StructureError: no selected leaf has numbers, or none is a matrix.
        FileError: a leaf cannot be read.
    """
    with source_of(thing) as source:
        layers = _matrices(source, selector)
        groups = layer_groups([*layers], in_one=ax is not None)
        shown = largest_groups(groups, {name: int(np.prod(layer.shape)) for name, layer in layers.items()})
        drawn = [_panel(source, title, [layers[name] for name in names]) for title, names in shown.items()]
    rows, columns = grid(len(drawn))
    target, axes = figure_for(ax, figure, (max(4.2 * columns, 6.4), max(2.8 * rows, 3.6)))
    axes = axes or panels(target, rows, columns, len(drawn))
    for panel, panel_axes in zip(drawn, axes):
        _draw(target, panel_axes, panel)
    if ax is None:
        note(target, left_out(len(groups) - len(shown)))
    return target


def _matrices(source: Source, selector: Selector | None) -> dict[str, LayerOfLeaf]:
    paths = readable_paths(source, selector)
    layers = {layer.name: layer for layer in layers_of_leaves(source, paths) if is_matrix(layer)}
    if not layers:
        raise StructureError(f"there is no matrix to draw, a leaf of two axes or more, in {listed(paths)}")
    return layers


def _panel(source: Source, title: str, layers: Sequence[LayerOfLeaf]) -> _Panel:
    names = short_names([layer.name for layer in layers])
    places = evenly_spread(len(layers), MOST_LAYERS)
    spectra = tuple(singular_values(source, layers[place]) for place in places)
    return _Panel(title, tuple(names[place] for place in places), spectra, len(layers))


def _draw(figure: Any, ax: Axes, panel: _Panel) -> None:
    from matplotlib import colormaps

    title = panel.title
    if len(panel.names) < panel.count:
        title = f"{title}, {len(panel.names)} of {panel.count} layers"
    tidy(ax, title)
    colors = colormaps["viridis"](np.linspace(0, 0.9, len(panel.names)))
    missing: list[str] = []
    for name, values, color in zip(panel.names, panel.spectra, colors):
        if not values.size:
            missing.append(name)
        above_rounding = np.where(values > _ROUNDING * values.max(initial=0), values, np.nan)
        marker = "." if len(values) <= 32 else ""
        ax.plot(
            np.arange(1, len(values) + 1),
            above_rounding,
            color=color,
            linewidth=1,
            marker=marker,
            label=label(name, 20),
        )
    largest = max(float(values.max(initial=0)) for values in panel.spectra)
    if largest > 0:
        ax.set_yscale("log")
    elif len(missing) < len(panel.names):
        ax.text(0.5, 0.5, "all zero", fontsize=8, ha="center", transform=ax.transAxes)
    ax.set_xlim(0, 1.03 * max(len(values) for values in panel.spectra) or 1)
    if missing:
        ax.text(0.02, 0.04, label(f"not drawn: {', '.join(missing)}"), color=BAD, fontsize=7, transform=ax.transAxes)
    if 1 < len(panel.names) <= _MOST_IN_LEGEND:
        ax.legend(fontsize=7, frameon=False)
    elif len(panel.names) > 1:
        _draw_scale(figure, ax, panel.names)


def _draw_scale(figure: Any, ax: Axes, names: Sequence[str]) -> None:
    """A scale of colours in the place of a legend with a line for each layer."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    colors = ListedColormap(colormaps["viridis"](np.linspace(0, 0.9, 256)))
    scale = ScalarMappable(Normalize(0, len(names) - 1), colors)
    bar = figure.colorbar(scale, cax=ax.inset_axes((0.93, 0.45, 0.025, 0.5)))
    bar.ax.yaxis.set_ticks_position("left")
    places = [0, len(names) - 1]
    bar.set_ticks(places, labels=[label(names[place], 16) for place in places])
    bar.ax.tick_params(labelsize=7, length=0)
