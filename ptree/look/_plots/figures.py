"""Figures and axes for plots: matplotlib imported where it is used, panels in a grid, labels of layers, colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..._words import printable, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

DATA = "#2f6f9f"
DATA_BANDS = ("#dbe8f2", "#a9c8df", "#6c9fc4")
DECLARED = "#d9730d"
BAD = "#c62828"
PALE = "#777777"

_MOST_COLUMNS = 4
_LONGEST_TITLE = 44


def figure_for(ax: Axes | None, figure: Figure | SubFigure | None, size: tuple[float, float]) -> tuple[Any, list[Axes]]:
    """The figure to draw in, and its axes if the caller gave them: those of `ax`, `figure`, or a new one of this size in inches.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError: both are given, or one that is neither.
    """
    try:
        from matplotlib.axes import Axes
        from matplotlib.figure import Figure, FigureBase
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'ptree-jax[plot]'") from error
    if ax is not None and figure is not None:
        raise TypeError("expected ax= or figure=, got both: an ax has a figure already")
    if ax is not None:
        if not isinstance(ax, Axes):
            raise TypeError(f"expected axes of matplotlib as ax, got {type(ax).__name__}; one of plt.subplots()[1]")
        return ax.figure, [ax]
    if figure is not None:
        if not isinstance(figure, FigureBase):
            raise TypeError(f"expected a figure of matplotlib as figure, got {type(figure).__name__}")
        return figure, []
    # not through pyplot, which would keep the figure and might open a window
    return Figure(figsize=size, layout="constrained"), []


def grid(count: int) -> tuple[int, int]:
    """Rows and columns for so many panels: at most four columns, rather wide than high."""
    columns = min(count, max(1, math.ceil(math.sqrt(count))), _MOST_COLUMNS)
    return math.ceil(count / columns), columns


def panels(figure: Any, rows: int, columns: int, count: int) -> list[Axes]:
    """Add so many axes to a figure, row by row."""
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for ax in axes[count:]:
        ax.remove()
    return axes[:count]


def label(name: str, width: int = _LONGEST_TITLE) -> str:
    """A name as matplotlib draws it: on one line, not too long, and a dollar sign as itself rather than as mathematics."""
    return shortened(printable(name), width).replace("$", r"\$")


def tidy(ax: Axes, title: str = "") -> None:
    """Remove what says nothing from axes, and write small."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(which="both", labelsize=8)
    for axis in (ax.xaxis, ax.yaxis):
        axis.get_offset_text().set_fontsize(8)
    if title:
        ax.set_title(label(title), fontsize=9, loc="left")


def note(figure: Any, text: str) -> None:
    """Write what was left out below all panels."""
    if text:
        figure.supxlabel(label(text, 160), fontsize=8, color=PALE, x=0.01, ha="left")


def legend_of(figure: Any, axes: Sequence[Axes]) -> None:
    """One legend for all panels, above them, with each label once."""
    handles: dict[str, Any] = {}
    for ax in axes:
        drawn, labels = ax.get_legend_handles_labels()
        handles.update(dict(zip(labels, drawn)))
    if handles:
        columns = min(len(handles), 4 if len(axes) == 1 else 8)
        figure.legend(
            handles.values(), handles.keys(), loc="outside upper right", ncols=columns, fontsize=8, frameon=False
        )
