"""First: what `first` saw, as data, as tables of text and HTML, with a verdict on activations and gradients; its plot."""

from __future__ import annotations

import csv
import io
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Any

from .._words import printable, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

_VANISHING = 1e-2
_EXPLODING = 1e2
_STEADY = 3.0
"""A factor between the first layer and the last that is called steady."""
_MOST_ROWS = 40
"""Rows of a table in text: of more the middle is left out."""
_STANDARD_ERRORS = 6
"""Between the seen and the declared spread: more are no chance in millions of leaves."""


@dataclass(frozen=True)
class FirstLayer:
    """What flows through one layer: root mean squares and largest sizes, NaN and inf included."""

    path: str
    source: float | None
    """Of the activations that flow in; None of whole numbers, such as tokens."""
    output: float
    """Of what the layer gives, before an activation function."""
    largest: float
    gradient: float
    """Of the loss with respect to the output."""
    largest_gradient: float

    __module__ = "ptree.look"


@dataclass(frozen=True)
class FirstLeaf:
    """The declared and the seen spread of one leaf; declared is None where nothing is declared."""

    path: str
    shape: tuple[int, ...]
    declared_mean: float | None
    declared_std: float | None
    bounds: tuple[float, float] | None
    """Infinite where there is no bound."""
    mean: float
    std: float
    largest: float
    count: int
    """How many numbers are finite."""
    nonfinite: int
    gradient: float | None
    """Root mean square of the gradient; None of leaves of whole numbers."""

    __module__ = "ptree.look"

    @property
    def problem(self) -> str:
        """What is wrong with the leaf: numbers that are not finite, or a spread that is not the declared one; "" if nothing is."""
        if self.nonfinite:
            return f"{self.nonfinite:,} numbers are NaN or inf"
        if self.declared_std is None or not self.count:
            return ""
        # of a Gaussian; of other distributions without long tails it is less
        error = self.declared_std * math.sqrt(1 / (2 * self.count))
        if abs(self.std - self.declared_std) > _STANDARD_ERRORS * error + 0.01 * self.declared_std:
            return f"std {self.std:.3g}, declared {self.declared_std:.3g}"
        return ""


@dataclass(frozen=True, repr=False)
class First:
    """What a model looks like before training: a row for each layer and for each leaf, and verdicts."""

    layers: tuple[FirstLayer, ...]
    """In the order in which they are computed."""
    leaves: tuple[FirstLeaf, ...]

    __module__ = "ptree.look"

    @cached_property
    def verdicts(self) -> tuple[str, ...]:
        """A line on the activations, one on the gradients, and one for each leaf with a problem."""
        activations = [layer.source for layer in self.layers[1:] if layer.source is not None]
        gradients = [layer.gradient for layer in reversed(self.layers[:-1])]
        problems = [f"{leaf.path}: {leaf.problem}" for leaf in self.leaves if leaf.problem]
        return (_verdict("activations", activations), _verdict("gradients, backward,", gradients), *problems)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain Python that JSON can hold: NaN and infinite numbers as text."""
        return {
            "verdicts": list(self.verdicts),
            "layers": [_plain(asdict(layer)) for layer in self.layers],
            "leaves": [_plain(asdict(leaf)) for leaf in self.leaves],
        }

    def to_csv(self) -> str:
        """The layers, a line for each, under the names of their fields."""
        file = io.StringIO()
        names = [field.name for field in fields(FirstLayer)]
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(layer) for layer in self.layers)
        return file.getvalue()

    def text(self, width: int = 80, *, color: bool = False) -> str:
        """The verdicts, the layers and the leaves as tables at most so many characters wide.

        Args:
            width: from 40 on.
            color: with ANSI codes: what is wrong is red.
        """
        verdicts = [_colored(line, color and _is_bad(line)) for line in self.verdicts]
        layers = _fitting(self._layer_cells(), [1, 2, 3], width)
        leaves = _fitting(self._leaf_cells(), [1, 2, 3], width)
        return "\n".join([*verdicts, "", *layers, "", *leaves])

    def __repr__(self) -> str:
        is_terminal = os.isatty(1)
        return self.text(shutil.get_terminal_size().columns if is_terminal else 80)

    def _repr_html_(self) -> str:
        verdicts = "".join(
            f'<div style="color:{"#c62828" if _is_bad(line) else "inherit"}">{escape(printable(line))}</div>'
            for line in self.verdicts
        )
        return verdicts + _html_table(self._layer_cells()) + _html_table(self._leaf_cells())

    def plot(self, *, figure: Figure | SubFigure | None = None) -> Figure:
        """Draw activations and gradients along the layers, on a scale of powers of ten.

        Raises:
            ImportError: matplotlib is not installed.
        """
        from ._plots_first import plot_first

        return plot_first(self.layers, self.verdicts[:2], figure)

    def _layer_cells(self) -> list[list[str]]:
        rows = [["layer", "in", "out", "gradient"]]
        for layer in self.layers:
            rows.append([layer.path, _number(layer.source), _number(layer.output), _number(layer.gradient)])
        return rows

    def _leaf_cells(self) -> list[list[str]]:
        rows = [["leaf", "declared std", "std", "gradient", "bounds"]]
        for leaf in self.leaves:
            numbers = [_number(leaf.declared_std), _number(leaf.std), _number(leaf.gradient)]
            rows.append([leaf.path, *numbers, _bounds(leaf.bounds)])
        return rows


# ------------------------------------------------------------------------------ verdicts


def _verdict(what: str, values: Sequence[float]) -> str:
    """Say how the size of a signal changes from its first layer to its last."""
    if len(values) < 2:
        return f"{what} flow through too few layers to compare"
    broken = next((at for at, value in enumerate(values) if not math.isfinite(value)), None)
    if broken is not None:
        return f"{what} are NaN or inf from layer {broken + 1} of {len(values)} on: exploding"
    start, end = values[0], values[-1]
    if start == 0 or end == 0:
        zero = next(at for at, value in enumerate(values) if value == 0)
        return f"{what} are 0 from layer {zero + 1} of {len(values)} on: nothing flows"
    between = f"from {start:.3g} to {end:.3g} over {len(values)} layers"
    ratio = end / start
    if 1 / _STEADY <= ratio <= _STEADY:
        return f"{what} stay near {start:.3g}, {end:.3g} after {len(values)} layers: steady"
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


def _bounds(bounds: tuple[float, float] | None) -> str:
    if bounds is None or not any(map(math.isfinite, bounds)):
        return ""
    return f"{bounds[0]:.3g}..{bounds[1]:.3g}"


def _fitting(rows: list[list[str]], right: Sequence[int], width: int) -> list[str]:
    """A table, without its last columns where they leave no room for names, and without its middle where it is long."""
    while len(rows[0]) > 3 and _width(rows) > width:
        rows = [row[:-1] for row in rows]
    header, *others = rows
    if len(others) > _MOST_ROWS:
        head, tail = others[: _MOST_ROWS // 2], others[-_MOST_ROWS // 2 :]
        others = [*head, [f"... {len(others) - _MOST_ROWS} more"] + [""] * (len(header) - 1), *tail]
    return table([header, *others], right=right, width=width)


def _width(rows: Sequence[Sequence[str]]) -> int:
    columns = zip(*rows)
    return sum(min(max(map(len, column)), 40) + 2 for column in columns) - 2


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


def _plain(value: Any) -> Any:
    """As JSON can hold it."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
