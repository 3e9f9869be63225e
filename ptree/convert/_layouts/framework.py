"""Framework: how one framework names the arrays of each layer, and lays them out; the rows of a single layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from ..._words import lines, quoted
from ...nn import Layer
from .._operations.operation import Operation
from .._operations.public import as_is

Shape: TypeAlias = tuple[int, ...]


class NoEqualError(Exception):
    """Error for a layer that the framework has no equal of; the text ends the sentence `'0', LSTM(8): ...`."""


@dataclass(frozen=True)
class Place:
    """A layer at a place in the model, with what its rows depend on."""

    layer: Layer
    leaves: Mapping[str, Shape]
    """Path of a leaf in the layer -> its shape in a single layer; with those of layers inside."""
    module: str
    """The path of the module in the framework: `encoder/layer/3`."""
    parts: Mapping[str, str] = field(default_factory=dict)
    """The parts of the layer for which `names` has a module of its own -> the path of that module."""
    input_shape: Shape | None = None
    """The shape of its input; None where the layer is not called itself, but its `apply`."""
    flattened: Shape | None = None
    """The sizes (space..., channels) of the features that it reads flattened, where the framework has the channels first."""
    form: str = ""
    """Which of several forms the framework's layer has, such as `transpose_kernel`; empty for the usual one."""


@dataclass(frozen=True)
class LayerRow:
    """A row of one layer: names in the framework's module -> paths in the layer, with the operation."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    operation: Operation = as_is
    collection: str = ""
    """`STATISTICS` for running statistics, which some frameworks keep apart; empty for parameters."""
    module: str | None = None
    """The path of the module, where it is another one than that of the layer."""


Rule: TypeAlias = Callable[[Place], Sequence[LayerRow]]
"""The rows of a layer of one class.

Raises:
    NoEqualError: the framework has no such layer.
"""

STATISTICS = "statistics"
"""The collection of running statistics."""
PARAMETERS = "parameters"
"""The collection of parameters, of a framework that keeps a pair (parameters, statistics) of a model that has statistics."""


@dataclass(frozen=True)
class Framework:
    """The names and layouts of one framework."""

    title: str
    """For messages: `PyTorch`."""
    rules: Mapping[type[Layer], Rule]
    name: Callable[[str, str, str], str]
    """The name of an array, from the collection, which is empty for parameters where there is no pair, the path of the module, and its name in the module."""
    part_path: Callable[[str, Layer, str], str]
    """The path of a part's module, from the path of the layer's module, the layer, and the part's path in it."""
    forms: Mapping[type[Layer], tuple[str, ...]] = field(default_factory=dict)
    """The forms that a layer may have beside the usual one."""
    has_channels_first: bool = False
    names_shared_twice: bool = True
    """Whether the arrays of a module that is used in two places have names in both."""
    keeps_statistics_apart: bool = False
    """Whether a model with running statistics is a pair (parameters, statistics)."""

    def rule_of(self, layer: Layer) -> Rule | None:
        """The rule of a layer's class or of one that it derives from."""
        for kind in type(layer).__mro__:
            if kind in self.rules:
                return self.rules[kind]
        return None


Renamed: TypeAlias = Mapping[str, "tuple[str, Operation]"]
"""Path of a leaf in the layer -> its name in the module, and the operation from there."""


def rows_of_leaves(place: Place, leaves: Renamed, collection: str = "") -> list[LayerRow]:
    """A row for each of these leaves that the layer has."""
    rows: list[LayerRow] = []
    for leaf, (name, operation) in leaves.items():
        if leaf in place.leaves:
            rows.append(LayerRow((name,), (leaf,), operation, collection))
    return rows


def quoted_names(names: Iterable[str]) -> str:
    """Names for a message: `'q/kernel', 'k/kernel'`; the first ten of many."""
    shown = [quoted(name) for name in names]
    return lines(shown, ", ")


def joined(*segments: str) -> str:
    """Segments of a path joined by `/`; empty ones are left out."""
    return "/".join(segment for segment in segments if segment)
