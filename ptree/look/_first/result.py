"""First: what `first` saw, as data, as tables of text and HTML, with a verdict on activations and gradients; its plot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Any

from ..._terminal import terminal_width
from ..._words import printable, table
from .._layers import LayerGroup, group_by_layer, sparkline
from .._plain_values import csv_text, json_value
from .plot_first import plot_first
from .rows import FirstLayer, FirstLeaf

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

_VANISHING = 1e-2
_EXPLODING = 1e2
_STEADY = 3.0
"""A factor between the first layer and the last that is called steady."""
_MOST_ROWS = 40
"""Rows of a table in text: of more the middle is left out."""


@dataclass(frozen=True, repr=False)
class First:
    """What a model looks like before training: a row for each layer and for each leaf, and verdicts.

    >>> import jax, jax.numpy as jnp
    >>> from ptree import look, nn
    >>> net, x = nn.Sequential(nn.Dense(8), nn.Dense(4)), jnp.ones((2, 4))
    >>> seen = look.first(net, x, jax.random.key(0))
    >>> len(seen.layers), len(seen.leaves), len(seen.verdicts)
    (2, 4, 2)
    """

    layers: tuple[FirstLayer, ...]
    """In the order in which they are computed."""
    leaves: tuple[FirstLeaf, ...]
    """In listing order."""

    __module__ = "ptree.look"

    @cached_property
    def verdicts(self) -> tuple[str, ...]:
        """A line on the activations, one on the gradients, and one for each leaf with a problem."""
        activations = [layer.source for layer in self.layers[1:] if layer.source is not None]
        gradients = [layer.gradient for layer in reversed(self.layers[:-1])]
        problems = [f"{leaf.path}: {leaf.problem}" for leaf in self.leaves if leaf.problem]
        return (_verdict("activations", activations), _verdict("gradients", gradients, "backward "), *problems)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain Python that JSON can hold: NaN and infinite numbers as text."""
        return {
            "verdicts": list(self.verdicts),
            "layers": [json_value(asdict(layer)) for layer in self.layers],
            "leaves": [json_value(asdict(leaf)) for leaf in self.leaves],
        }

    def to_csv(self) -> str:
        """The layers, a line for each, under the names of their fields."""
        names = [field.name for field in fields(FirstLayer)]
        return csv_text(names, (asdict(layer).values() for layer in self.layers))

    def text(self, width: int = 80, *, color: bool = False) -> str:
        """The verdicts, the layers and the leaves as tables at most so many characters wide.

        Args:
            width: from 40 on.
            color: with ANSI codes: what is wrong is red.
        """
        verdicts = [_colored(line, color and _is_bad(line)) for line in self.verdicts]
        layers = _fitting(self._layer_table(), width)
        leaves = _fitting(self._leaf_table(), width)
        return "\n".join([*verdicts, "", *layers, "", *leaves])

    def __repr__(self) -> str:
        return self.text(terminal_width())

    def _repr_html_(self) -> str:
        verdicts = "".join(
            f'<div style="color:{"#c62828" if _is_bad(line) else "inherit"}">{escape(printable(line))}</div>'
            for line in self.verdicts
        )
        return verdicts + _html_table(self._layer_table()) + _html_table(self._leaf_table())

    def plot(self, *, figure: Figure | SubFigure | None = None) -> Figure:
        """Draw activations and gradients along the layers, on a scale of powers of ten.

        Args:
            figure: a figure, or a part of one; a new one by default.

        Raises:
            ImportError: matplotlib is not installed.
        """
        return plot_first(self.layers, self.verdicts[:2], figure)

    def _layer_table(self) -> list[list[str]]:
        columns = {
            "in": [layer.source for layer in self.layers],
            "out": [layer.output for layer in self.layers],
            "gradient": [layer.gradient for layer in self.layers],
        }
        return _rows("layer", [layer.path for layer in self.layers], columns, bars=("in", "gradient"))

    def _leaf_table(self) -> list[list[str]]:
        columns: dict[str, list[float | None]] = {}
        if any(leaf.declared_std is not None for leaf in self.leaves):
            columns["declared"] = [leaf.declared_std for leaf in self.leaves]
        columns |= {
            "std": [leaf.std for leaf in self.leaves],
            "gradient": [leaf.gradient for leaf in self.leaves],
        }
        return _rows("leaf", [leaf.path for leaf in self.leaves], columns, bars=("std",))


# ------------------------------------------------------------------------------ verdicts


def _verdict(what: str, values: Sequence[float], direction: str = "") -> str:
    """Say how the size of a signal changes from its first layer to its last."""
    count = len(values)
    broken = next((at for at, value in enumerate(values) if not math.isfinite(value)), None)
    if broken is not None:
        return f"{what} are NaN or inf {direction}from layer {broken + 1} of {count} on"
    if count < 2:
        return f"{what} flow through too few layers to compare"
    start, end = values[0], values[-1]
    if start == 0 or end == 0:
        zero = next(at for at, value in enumerate(values) if value == 0)
        return f"{what} are 0 {direction}from layer {zero + 1} of {count} on: nothing flows"
    between = f"from {start:.3g} to {end:.3g} {direction}over {count} layers"
    ratio = end / start
    if 1 / _STEADY <= ratio <= _STEADY:
        return f"{what} go {between}: steady"
    if ratio < 1:
        return f"{what} shrink {between}{': vanishing' if ratio < _VANISHING else ''}"
    return f"{what} grow {between}{': exploding' if ratio > _EXPLODING else ''}"


def _is_bad(verdict: str) -> bool:
    is_about_leaf = "declared" in verdict or "NaN" in verdict
    return is_about_leaf or verdict.endswith(("vanishing", "exploding", "nothing flows"))


# ------------------------------------------------------------------------------ text


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return "0" if value == 0 else f"{value:.3g}"


def _rows(
    head: str, names: Sequence[str], columns: Mapping[str, Sequence[float | None]], bars: Sequence[str]
) -> list[list[str]]:
    """A row for each name; of many names one for each group of layers, with the first and the last number and bars by layer."""
    place_of = {name: at for at, name in enumerate(names)}
    groups = [LayerGroup(name, (name,)) for name in names]
    if len(names) > _MOST_ROWS:
        groups = group_by_layer(names)
    has_bars = any(len(group.paths) > 1 for group in groups)
    rows = [[head, *columns, *(f"{bar} by layer" for bar in bars if has_bars)]]
    for group in groups:
        values = {name: [column[place_of[path]] for path in group.paths] for name, column in columns.items()}
        cells = [_first_and_last(column) for column in values.values()]
        lines = [_logarithmic_bars(values[bar]) for bar in bars if has_bars]
        rows.append([group.name, *cells, *lines])
    return rows


def _first_and_last(values: Sequence[float | None]) -> str:
    first, last = _number(values[0]), _number(values[-1])
    return first if first == last else f"{first}..{last}"


def _logarithmic_bars(values: Sequence[float | None]) -> str:
    """Bars of the logarithms; a steady signal has bars of one height."""
    positive = [value for value in values if value is not None and 0 < value < math.inf]
    if len(values) < 2 or not positive:
        return ""
    if max(positive) < _STEADY * min(positive):
        return sparkline([None if value is None else 1.0 for value in values])
    lowest = math.log10(min(positive))
    return sparkline([_log10(value, lowest) for value in values])


def _log10(value: float | None, lowest: float) -> float | None:
    if value is None:
        return None
    if not math.isfinite(value):
        return math.nan
    return math.log10(value) if value > 0 else lowest


def _fitting(rows: list[list[str]], width: int) -> list[str]:
    """A table without its last columns where they leave no room for names, and without its middle where it is long."""
    header, *others = rows
    if len(others) > _MOST_ROWS:
        head, tail = others[: _MOST_ROWS // 2], others[-_MOST_ROWS // 2 :]
        others = [*head, [f"... {len(others) - _MOST_ROWS} more"] + [""] * (len(header) - 1), *tail]
    rows = [header, *others]
    while len(rows[0]) > 3 and _width(rows) > width:
        rows = [row[:-1] for row in rows]
    return table(rows, right=range(1, 4), width=width)


def _width(rows: Sequence[Sequence[str]]) -> int:
    """The width of a table whose names may be shortened to 24 characters."""
    longest = [max(map(len, column)) for column in zip(*rows)]
    return min(longest[0], 24) + sum(longest[1:]) + 2 * len(longest[1:])


def _colored(line: str, is_red: bool) -> str:
    shown = printable(line)
    return f"\x1b[31m{shown}\x1b[0m" if is_red else shown


def _html_table(rows: Sequence[Sequence[str]]) -> str:
    header, *others = rows
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    lines = [_html_row(row) for row in others]
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _html_row(row: Sequence[str]) -> str:
    name, *numbers = (escape(printable(cell)) for cell in row)
    return f'<tr><td style="text-align:left">{name}</td>{"".join(f"<td>{cell}</td>" for cell in numbers)}</tr>'
