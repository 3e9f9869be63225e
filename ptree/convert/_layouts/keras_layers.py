"""Layers in Keras 3: `variable.path`, matrices (in, out), depthwise kernels of their own, one bias where PyTorch has two."""

from __future__ import annotations

from collections.abc import Sequence

from ... import nn
from ...nn import Layer
from .._operations.axes import Depthwise, Swap
from .._operations.operation import Operation, chain
from .._operations.parts import Gates, Unstack
from .._operations.zeros import Unsummed
from .framework import Framework, LayerRow, NoEqualError, Place, joined, rows_of_leaves
from .matrices import AS_IS, attention_rows

_CELLS: dict[type[Layer], str] = {nn.LSTM: "lstm", nn.GRU: "gru", nn.RNN: "simple_rnn"}


def _dense(place: Place) -> Sequence[LayerRow]:
    # several axes in or out are those of an EinsumDense
    return rows_of_leaves(place, {"kernel": ("kernel", AS_IS), "bias": ("bias", AS_IS)})


def _conv(place: Place) -> Sequence[LayerRow]:
    return rows_of_leaves(place, {"kernel": ("kernel", _depthwise(place)), "bias": ("bias", AS_IS)})


def _depthwise(place: Place) -> Operation:
    """From the kernel of a DepthwiseConv, for as many groups as channels; else from that of a Conv."""
    layer = place.layer
    assert isinstance(layer, nn.Conv)
    is_each_channel = layer.groups > 1 and place.leaves["kernel"][-2] == 1
    if not is_each_channel or place.form == "groups":
        return AS_IS
    return Depthwise(layer.features // layer.groups)


def _conv_transpose(place: Place) -> Sequence[LayerRow]:
    assert isinstance(place.layer, nn.ConvTranspose)
    if place.layer.groups > 1:
        raise NoEqualError("its ConvTranspose has no groups")
    return rows_of_leaves(place, {"kernel": ("kernel", Swap(-1, -2)), "bias": ("bias", AS_IS)})


def _embedding(place: Place) -> Sequence[LayerRow]:
    return rows_of_leaves(place, {"table": ("embeddings", AS_IS)})


def _norm(place: Place) -> Sequence[LayerRow]:
    return rows_of_leaves(
        place,
        {
            "scale": ("gamma", AS_IS),
            "bias": ("beta", AS_IS),
            "mean": ("moving_mean", AS_IS),
            "var": ("moving_variance", AS_IS),
        },
    )


def _rms_norm(place: Place) -> Sequence[LayerRow]:
    return rows_of_leaves(place, {"scale": ("scale", AS_IS)})


def _one_bias(place: Place) -> Sequence[LayerRow]:
    """An LSTM or a plain RNN: the gates in the order i, f, g, o, and one bias."""
    cell = f"{_cell_name(place.layer)}_cell"
    return [
        LayerRow((f"{cell}/kernel",), ("input/kernel",)),
        LayerRow((f"{cell}/recurrent_kernel",), ("hidden/kernel",)),
        LayerRow((f"{cell}/bias",), ("input/bias", "hidden/bias"), Unsummed(2)),
    ]


def _gru(place: Place) -> Sequence[LayerRow]:
    """A GRU with `reset_after=True`, the default: the gates in the order z, r, n, and two biases in one array."""
    gates = Gates("zrn", "rzn")
    return [
        LayerRow(("gru_cell/kernel",), ("input/kernel",), gates),
        LayerRow(("gru_cell/recurrent_kernel",), ("hidden/kernel",), gates),
        LayerRow(("gru_cell/bias",), ("input/bias", "hidden/bias"), chain(Unstack(2), gates)),
    ]


def _attention(place: Place) -> Sequence[LayerRow]:
    return attention_rows(place, ("query", "key", "value", "attention_output"))


def _cell_name(layer: Layer) -> str:
    return next(name for kind, name in _CELLS.items() if isinstance(layer, kind))


def _name(collection: str, module: str, name: str) -> str:
    return joined(module, name)


def _part_path(module: str, layer: Layer, part: str) -> str:
    if isinstance(layer, nn.Bidirectional):
        cells = dict(layer.parts())
        return joined(module, f"{part}_{_cell_name(cells[part])}")
    return joined(module, part)


KERAS = Framework(
    "Keras",
    {
        nn.Dense: _dense,
        nn.Conv: _conv,
        nn.ConvTranspose: _conv_transpose,
        nn.Embedding: _embedding,
        nn.BatchNorm: _norm,
        nn.LayerNorm: _norm,
        nn.RMSNorm: _rms_norm,
        nn.GroupNorm: _norm,
        nn.LSTM: _one_bias,
        nn.GRU: _gru,
        nn.RNN: _one_bias,
        nn.MultiHeadAttention: _attention,
    },
    _name,
    _part_path,
    forms={nn.Conv: ("groups",)},
    names_shared_twice=False,
)
