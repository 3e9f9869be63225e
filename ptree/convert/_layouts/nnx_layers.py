"""Layers in Flax nnx: paths of the module's attributes, fused kernels of the gates, biases on one side alone."""

from __future__ import annotations

from collections.abc import Sequence

from ... import nn
from ...nn import Layer
from .._operations.biases import SharedBias, ZeroPart
from .._operations.operation import chain
from .._operations.parts import Concatenate
from .._operations.zeros import Unsummed
from .flax_layers import QUERY_NORMS, RULES, kernels_of_gates
from .framework import Framework, LayerRow, Place, joined

_FUSED = [
    LayerRow(("cell/dense_i/kernel",), ("input/kernel",)),
    LayerRow(("cell/dense_h/kernel",), ("hidden/kernel",)),
]


def _lstm(place: Place) -> Sequence[LayerRow]:
    if place.form == "LSTMCell":
        return _lstm_of_small_kernels()
    bias = LayerRow(("cell/dense_h/bias",), ("hidden/bias", "input/bias"), Unsummed(2))
    return [*_FUSED, bias]


def _lstm_of_small_kernels() -> Sequence[LayerRow]:
    biases = tuple(f"cell/h{gate}/bias" for gate in "ifgo")
    return [
        kernels_of_gates("input", ["ii", "if_", "ig", "io"]),  # `if` is a word of Python
        kernels_of_gates("hidden", [f"h{gate}" for gate in "ifgo"]),
        LayerRow(biases, ("hidden/bias", "input/bias"), chain(Concatenate(4), Unsummed(2))),
    ]


def _gru(place: Place) -> Sequence[LayerRow]:
    # no bias of the product with the state: that of the gate n, which the reset gate multiplies, must be zero
    bias = chain(ZeroPart(3), SharedBias(3, 1))
    return [*_FUSED, LayerRow(("cell/dense_i/bias",), ("input/bias", "hidden/bias"), bias)]


def _rnn(place: Place) -> Sequence[LayerRow]:
    return [*_FUSED, LayerRow(("cell/dense_i/bias",), ("input/bias", "hidden/bias"), Unsummed(2))]


def _name(collection: str, module: str, name: str) -> str:
    return joined(module, name)


def _part_path(module: str, layer: Layer, part: str) -> str:
    if isinstance(layer, nn.MultiHeadAttention):
        return joined(module, QUERY_NORMS.get(part, part))
    if isinstance(layer, nn.Bidirectional):
        return joined(module, f"{part}_rnn")
    if isinstance(layer, nn.Sequential) and part.isdecimal():
        return joined(module, "layers", part)
    return joined(module, part)


NNX = Framework(
    "Flax nnx",
    {**RULES, nn.LSTM: _lstm, nn.GRU: _gru, nn.RNN: _rnn},
    _name,
    _part_path,
    forms={nn.ConvTranspose: ("transpose_kernel",), nn.LSTM: ("LSTMCell",)},
    names_shared_twice=False,
)
