"""Layers in Flax linen: the collections `params` and `batch_stats`, `layers_0` of a Sequential, small kernels of each gate."""

from __future__ import annotations

from collections.abc import Sequence

from ... import nn
from ...nn import Layer
from .._operations.biases import SharedBias
from .._operations.operation import chain
from .._operations.parts import Concatenate
from .._operations.zeros import Unsummed
from .flax_layers import QUERY_NORMS, RULES, kernels_of_gates
from .framework import STATISTICS, Framework, LayerRow, Place, joined


def _lstm(place: Place) -> Sequence[LayerRow]:
    biases = tuple(f"cell/h{gate}/bias" for gate in "ifgo")
    return [
        kernels_of_gates("input", [f"i{gate}" for gate in "ifgo"]),
        kernels_of_gates("hidden", [f"h{gate}" for gate in "ifgo"]),
        LayerRow(biases, ("hidden/bias", "input/bias"), chain(Concatenate(4), Unsummed(2))),
    ]


def _gru(place: Place) -> Sequence[LayerRow]:
    biases = ("cell/ir/bias", "cell/iz/bias", "cell/in/bias", "cell/hn/bias")
    return [
        kernels_of_gates("input", [f"i{gate}" for gate in "rzn"]),
        kernels_of_gates("hidden", [f"h{gate}" for gate in "rzn"]),
        LayerRow(biases, ("input/bias", "hidden/bias"), chain(Concatenate(4), SharedBias(3, 1))),
    ]


def _rnn(place: Place) -> Sequence[LayerRow]:
    return [
        LayerRow(("cell/i/kernel",), ("input/kernel",)),
        LayerRow(("cell/h/kernel",), ("hidden/kernel",)),
        LayerRow(("cell/i/bias",), ("input/bias", "hidden/bias"), Unsummed(2)),
    ]


def _name(collection: str, module: str, name: str) -> str:
    return joined("batch_stats" if collection == STATISTICS else "params", module, name)


def _part_path(module: str, layer: Layer, part: str) -> str:
    if isinstance(layer, nn.MultiHeadAttention):
        return joined(module, QUERY_NORMS.get(part, part))
    if isinstance(layer, nn.Bidirectional):
        return joined(module, f"{part}_rnn")
    if isinstance(layer, nn.Sequential) and part.isdecimal():
        return joined(module, f"layers_{part}")
    above, _, number = joined(module, part).rpartition("/")
    # modules in a list have the name of its field, and their number
    return f"{above}_{number}" if above and number.isdecimal() else joined(module, part)


LINEN = Framework(
    "Flax linen",
    {**RULES, nn.LSTM: _lstm, nn.GRU: _gru, nn.RNN: _rnn},
    _name,
    _part_path,
    forms={nn.ConvTranspose: ("transpose_kernel",)},
    names_shared_twice=False,
)
