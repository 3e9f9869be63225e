"""The plot of `first`: activations and gradients along the layers of a model before training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .._plots.figures import BAD, DATA, DECLARED, PALE, figure_for, label, panels, tidy
from .rows import FirstLayer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

_MOST_NAMES = 24
_MOST_POINTS = 60


def plot_first(layers: Sequence[FirstLayer], verdicts: Sequence[str], figure: Figure | SubFigure | None) -> Figure:
    """Draw root mean squares: what flows in and out of each layer above, the gradient of the output below."""
    target, _ = figure_for(None, figure, (9.0, 5.5))
    above, below = panels(target, 2, 1, 2)
    tidy(above, "")
    tidy(below, "")
    for ax, verdict in zip((above, below), verdicts):
        ax.set_title(label(verdict, 100), fontsize=9, loc="left")
    sources = [math.nan if layer.source is None else layer.source for layer in layers]
    _draw(above, sources, "activations in", PALE)
    _draw(above, [layer.output for layer in layers], "activations out", DATA)
    _draw(below, [layer.gradient for layer in layers], "gradient of the output", DECLARED)
    for ax in (above, below):
        _set_scale(ax)
        ax.set_ylabel("root mean square", fontsize=8)
        ax.legend(fontsize=8, frameon=False)
        ax.set_xlim(-0.5, max(len(layers) - 0.5, 0.5))
        ax.grid(axis="y", color="#eeeeee")
    every = max(1, math.ceil(len(layers) / _MOST_NAMES))
    places = range(0, len(layers), every)
    below.set_xticks(places, [label(layers[place].path, 24) for place in places], rotation=40, ha="right")
    above.set_xticks(places, [""] * len(places))
    return target


def _draw(ax: Axes, values: Sequence[float], text: str, color: str) -> None:
    numbers = np.array(values)
    at = np.arange(len(numbers))
    is_drawn = np.isfinite(numbers) & (numbers > 0)
    marker = "." if len(numbers) <= _MOST_POINTS else ""
    ax.plot(at, np.where(is_drawn, numbers, math.nan), color=color, linewidth=1.2, marker=marker, label=text)
    for wrong, remark in ((numbers == 0, "0"), (np.isinf(numbers), "inf or NaN")):
        if wrong.any():
            place = 0.03 if remark == "0" else 0.97
            ax.plot(
                at[wrong], np.full(wrong.sum(), place), "x", color=BAD, label=remark, transform=ax.get_xaxis_transform()
            )


def _set_scale(ax: Axes) -> None:
    """Powers of ten, and at least three of them, so that a small change looks small."""
    drawn = [line.get_ydata() for line in ax.lines if line.get_transform() == ax.transData]
    numbers = np.concatenate([np.asarray(values, float) for values in drawn])
    numbers = numbers[np.isfinite(numbers)]
    if not numbers.size:
        return
    ax.set_yscale("log")
    low, high = float(numbers.min()), float(numbers.max())
    middle = math.sqrt(low) * math.sqrt(high)
    ax.set_ylim(min(low / 2, middle / 30), max(high * 2, middle * 30))
