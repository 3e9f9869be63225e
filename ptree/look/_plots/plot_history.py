"""plot_history: norms of parameters, gradients and updates, and the update-to-parameter ratio, over the steps of a training run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import numpy as np

from ..._errors import PathError, StructureError
from ..._words import listed, quoted, suggestion
from .._layers import group_by_layer
from .._training.history import History
from .._training.history_columns import ratio_is_undefined, ratio_of, select_paths
from .figures import BAD, DATA, PALE, figure_for, label, panels, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

    from ..._paths import Selector

_RATIO = "updates/ratio"
_BY_DEFAULT = ("loss", "params/norm", "grads/norm", "updates/norm", _RATIO)
_MOST_PANELS = 6
_MOST_LINES = 10
"""Leaves: of more, colours in a row for each are drawn."""
_MOST_STEPS = 1000
_MOST_NAMES = 12

Arrays: TypeAlias = Mapping[str, Any]
"""Statistic -> path -> an array `[step]`; or statistic -> an array `[step]`, such as the loss."""


@runtime_checkable
class Recorded(Protocol):
    """What a history offers: steps, paths, names of statistics, and `values(statistic)`, `[step, leaf]` or `[step]`."""

    @property
    def steps(self) -> np.ndarray: ...
    @property
    def paths(self) -> list[str]: ...
    @property
    def statistics(self) -> list[str]: ...
    def values(self, statistic: str) -> np.ndarray: ...


@dataclass(frozen=True)
class _Track:
    """One statistic over the steps: of each leaf, or a number such as the loss, which has no paths."""

    statistic: str
    steps: np.ndarray
    paths: tuple[str, ...]
    values: np.ndarray
    """`[step, leaf]`"""
    undefined: np.ndarray
    """`[step, leaf]`: a ratio to a leaf of zeros, NaN and no fault."""
    recorded: np.ndarray
    """`[step, leaf]`: whether it was observed; the gradient of a frozen leaf was not, and its value is NaN."""

    @property
    def bad(self) -> np.ndarray:
        """`[step, leaf]`: what is NaN or inf and should be a number."""
        return ~np.isfinite(self.values) & ~self.absent

    @property
    def absent(self) -> np.ndarray:
        """`[step, leaf]`: what is NaN and no fault."""
        return self.undefined | ~self.recorded

    def columns(self, chosen: Sequence[int]) -> _Track:
        """Some leaves, in this order."""
        paths = tuple(self.paths[at] for at in chosen)
        undefined, recorded = self.undefined[:, chosen], self.recorded[:, chosen]
        return replace(self, paths=paths, values=self.values[:, chosen], undefined=undefined, recorded=recorded)


def _track(statistic: str, steps: np.ndarray, paths: tuple[str, ...], values: np.ndarray) -> _Track:
    nowhere = np.zeros(values.shape, bool)
    return _Track(statistic, steps, paths, values, undefined=nowhere, recorded=~nowhere)


def plot_history(
    history: Recorded | Arrays,
    selector: Selector | None = None,
    *,
    statistics: Sequence[str] | None = None,
    ax: Axes | None = None,
    figure: Figure | SubFigure | None = None,
) -> Figure:
    """Draw norms and update-to-parameter ratios over training, a panel for each statistic.

    >>> norms = {"enc/w": [4.0, 3.0, 2.0], "enc/b": [0.0, 0.1, 0.2]}
    >>> figure = plot_history({"grads/norm": norms}, "**/w")
    >>> figure.axes[0].lines[0].get_ydata().tolist()
    [4.0, 3.0, 2.0]

    Up to 10 leaves are lines; of more, each leaf is a row of colours, on a scale of powers of ten. Of more than 1,000 steps each
    point is the largest value of several steps, so that no spike is lost. The ratio is |update| / |parameter|, which
    is computed from the two norms where the history does not have it; where a leaf of zeros is updated, as a bias is at the first
    step, it is undefined, and a gap is drawn.

    Args:
        history: a `ptree.look.History`, or arrays: statistic -> path -> `[step]`, and for the loss statistic -> `[step]`.
        selector: which leaves; all by default.
        statistics: names such as "grads/norm"; by default the loss, the norms and the ratio, as far as they are there.
        ax: axes for one statistic.
        figure: a figure, or a part of one, for the panels; a new one by default.

    Raises:
        ImportError: matplotlib is not installed.
        PathError: there is no such statistic.
        PatternError: the selector matches nothing.
        StructureError: there is nothing to draw, arrays of different lengths, or several statistics for one `ax`.
    """
    tracks = _tracks(history, selector, statistics)
    if ax is not None and len(tracks) > 1:
        names = [track.statistic for track in tracks]
        raise StructureError(f"ax= is for one statistic, got {listed(names)}: give statistics=[...] or figure=")
    target, axes = figure_for(ax, figure, (9.0, 2.4 * len(tracks) + 0.6))
    axes = axes or panels(target, len(tracks), 1, len(tracks))
    for track, track_axes in zip(tracks, axes):
        _draw(target, track_axes, track)
    axes[-1].set_xlabel("step", fontsize=8)
    return target


# ------------------------------------------------------------------------------ what is drawn


def _tracks(history: Recorded | Arrays, selector: Selector | None, statistics: Sequence[str] | None) -> list[_Track]:
    if isinstance(statistics, str):
        statistics = [statistics]
    if isinstance(history, Mapping):
        every = _tracks_of_arrays(history)
    elif isinstance(history, Recorded):
        every = _tracks_of_history(history, statistics)
    else:
        raise StructureError(f"expected a History, or arrays as statistic -> path -> [step], got {quoted(history)}")
    names = _chosen(list(every), statistics)
    return [_of_paths(every[name], selector) for name in names]


def _chosen(names: Sequence[str], statistics: Sequence[str] | None) -> list[str]:
    if not names:
        raise StructureError("the history is empty: nothing was recorded")
    if statistics is None:
        usual = [name for name in _BY_DEFAULT if name in names]
        return usual or list(names)[:_MOST_PANELS]
    missing = [name for name in statistics if name not in names]
    if missing:
        raise PathError(f"no statistic {quoted(missing[0])}: there are {listed(names)}.{suggestion(missing[0], names)}")
    return list(statistics)


def _tracks_of_history(history: Recorded, statistics: Sequence[str] | None) -> dict[str, _Track]:
    names = _chosen(history.statistics, statistics)  # each one is read from the disk
    paths = tuple(history.paths)
    steps = np.asarray(history.steps)
    tracks: dict[str, _Track] = {}
    for name in names:
        values = np.asarray(history.values(name), np.float64)
        has_leaves = values.ndim == 2
        track = _track(name, steps, paths if has_leaves else (), values.reshape(len(steps), -1))
        if name == _RATIO:
            track = replace(track, undefined=_undefined_in(history, tracks, values))
        if has_leaves and isinstance(history, History):
            track = replace(track, recorded=history.are_recorded(name))
        tracks[name] = track
    return tracks


def _undefined_in(history: Recorded, tracks: Mapping[str, _Track], ratio: np.ndarray) -> np.ndarray:
    """Where the ratios of a history are undefined, as far as its norms say so; those that are drawn too are not read again."""
    names = ("updates/norm", "params/norm")
    if not {*names} <= {*history.statistics}:
        return np.zeros(ratio.shape, bool)
    updates, params = (tracks[name].values if name in tracks else np.asarray(history.values(name)) for name in names)
    return ratio_is_undefined(updates, params)


def _tracks_of_arrays(arrays: Arrays) -> dict[str, _Track]:
    tracks: dict[str, _Track] = {}
    for name, given in arrays.items():
        by_path = given if isinstance(given, Mapping) else {"": given}
        columns = {path: np.asarray(column, np.float64) for path, column in by_path.items()}
        shapes = {column.shape for column in columns.values()}
        if len(shapes) != 1 or len(next(iter(shapes))) != 1:
            shown = ", ".join(str(list(shape)) for shape in sorted(shapes)) or "none"
            raise StructureError(f"expected arrays [step] of one length for {quoted(name)}, got shapes {shown}")
        values = np.stack([*columns.values()], 1)
        paths = tuple(columns) if isinstance(given, Mapping) else ()
        tracks[name] = _track(name, np.arange(len(values)), paths, values)
    return _with_ratio(tracks)


def _with_ratio(tracks: dict[str, _Track]) -> dict[str, _Track]:
    updates, params = tracks.get("updates/norm"), tracks.get("params/norm")
    if _RATIO in tracks or updates is None or params is None:
        return tracks
    if updates.paths != params.paths or updates.values.shape != params.values.shape:
        return tracks
    undefined = ratio_is_undefined(updates.values, params.values)
    ratio = _track(_RATIO, updates.steps, updates.paths, ratio_of(updates.values, params.values))
    return {**tracks, _RATIO: replace(ratio, undefined=undefined)}


def _of_paths(track: _Track, selector: Selector | None) -> _Track:
    """The selected leaves of a track, at no more steps than can be drawn."""
    if track.paths and selector is not None:
        chosen = {*select_paths(dict.fromkeys(track.paths, 0), selector)}
        track = track.columns([at for at, path in enumerate(track.paths) if path in chosen])
    return _largest_of_runs(track)


def _largest_of_runs(track: _Track) -> _Track:
    """The largest value of each run of steps; NaN where one of them is NaN. What is absent counts where it is all of a run."""
    length = -(-len(track.steps) // _MOST_STEPS)
    if length <= 1:
        return track
    starts = np.arange(0, len(track.steps), length)
    recorded = np.logical_or.reduceat(track.recorded, starts)
    absent = np.logical_and.reduceat(track.absent, starts)
    largest = np.maximum.reduceat(np.where(track.absent, -np.inf, track.values), starts)
    values = np.where(absent, math.nan, largest)
    return replace(track, steps=track.steps[starts], values=values, undefined=absent & recorded, recorded=recorded)


# ------------------------------------------------------------------------------ one panel


def _draw(figure: Any, ax: Axes, track: _Track) -> None:
    from matplotlib.ticker import MaxNLocator

    tidy(ax, track.statistic)
    if not track.recorded.any():
        nothing = "not recorded" if len(track.steps) else "no steps"
        ax.text(0.5, 0.5, nothing, fontsize=8, ha="center", color=PALE, transform=ax.transAxes)
    elif len(track.paths) <= _MOST_LINES:
        _draw_lines(ax, track)
    else:
        _draw_rows(figure, ax, _by_group(track.columns(np.flatnonzero(track.recorded.any(0)).tolist())))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))  # a step is a whole number


def _by_group(track: _Track) -> _Track:
    """The leaves in groups of layers: mixed, a kernel and a bias of each layer would be stripes."""
    place_of = {path: at for at, path in enumerate(track.paths)}
    return track.columns([place_of[path] for group in group_by_layer(track.paths) for path in group.paths])


def _draw_lines(ax: Axes, track: _Track) -> None:
    from matplotlib import colormaps

    colors = colormaps["tab10"].colors if track.paths else (DATA,)  # pyright: ignore[reportAttributeAccessIssue]
    for path, values, color, recorded in zip(track.paths or ("",), track.values.T, colors, track.recorded.T):
        if not recorded.any():
            continue  # after its colour is taken: a leaf has one colour in all panels
        finite = np.where(np.isfinite(values), values, math.nan)
        marker = "." if len(values) <= 40 else ""
        ax.plot(track.steps, finite, color=color, linewidth=1, marker=marker, label=label(path, 40) or None)
    positive = track.values[np.isfinite(track.values) & (track.values > 0)]
    is_wide = positive.size and positive.max() > 100 * positive.min()
    if is_wide and not (track.values < 0).any():
        ax.set_yscale("log")
    else:
        ax.ticklabel_format(axis="y", useOffset=False)  # 0.001, not 1e-9 over a line and +1e-3 beside it
    bad = track.steps[track.bad.any(1)]
    if bad.size:
        ax.plot(bad, np.full(bad.size, 0.03), "x", color=BAD, transform=ax.get_xaxis_transform(), label="NaN or inf")
    if track.paths or bad.size:
        # beside the axes: lines may be anywhere in them
        ax.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _draw_rows(figure: Any, ax: Axes, track: _Track) -> None:
    """A row of colours for each leaf; the layers of a group are beside each other."""
    from matplotlib.colors import LogNorm, Normalize

    values = np.ma.masked_invalid(np.where(np.isfinite(track.values), track.values, math.nan).T)
    positive = values.compressed()
    positive = positive[positive > 0]
    is_signed = bool((values < 0).any())
    if is_signed or not positive.size:
        size = float(np.abs(values.compressed()).max(initial=0)) or 1.0
        norm, colors = Normalize(-size, size), "RdBu_r"
    else:
        norm, colors = LogNorm(*_log_limits(positive)), "viridis"
        values = np.ma.masked_where(values <= 0, values)
    ax.set_facecolor("#d0d0d0")
    edges = _edges(track.steps)
    rows = np.arange(len(track.paths) + 1) - 0.5
    drawn = ax.pcolormesh(edges, rows, values, norm=norm, cmap=colors, rasterized=True)
    grey = "grey: " + _meanings_of_grey(track)
    bad = track.bad.T
    if bad.any():
        black = np.ma.masked_array(np.zeros(bad.shape), ~bad)
        ax.pcolormesh(edges, rows, black, cmap="gray", vmin=0, vmax=1, rasterized=True)
        ax.set_title(f"{grey}, black: NaN or inf", fontsize=7, loc="right", color=PALE)
    elif np.ma.getmaskarray(values).any():
        ax.set_title(grey, fontsize=7, loc="right", color=PALE)
    ax.invert_yaxis()
    every = math.ceil(len(track.paths) / _MOST_NAMES)
    ax.set_yticks(range(0, len(track.paths), every), [label(path, 32) for path in track.paths[::every]], fontsize=7)
    bar = figure.colorbar(drawn, cax=ax.inset_axes((1.01, 0, 0.015, 1)))
    bar.ax.tick_params(labelsize=7)


def _meanings_of_grey(track: _Track) -> str:
    meanings = ["0"]
    if track.undefined.any():
        meanings.append("undefined")
    if not track.recorded.all():
        meanings.append("not recorded")
    return " or ".join(meanings)


def _log_limits(positive: np.ndarray) -> tuple[float, float]:
    """From the least to the largest, at most eight powers of ten, and at least a factor of two."""
    high = float(positive.max())
    low = max(float(positive.min()), high * 1e-8)
    return (low, high) if high > 2 * low else (high / 1.5, high * 1.5)


def _edges(steps: np.ndarray) -> np.ndarray:
    """The borders between steps, each half way."""
    steps = np.asarray(steps, np.float64)
    if len(steps) == 1:
        return np.array([steps[0] - 0.5, steps[0] + 0.5])
    middles = (steps[1:] + steps[:-1]) / 2
    return np.concatenate([[2 * steps[0] - middles[0]], middles, [2 * steps[-1] - middles[-1]]])
