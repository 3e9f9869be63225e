"""Layers in Equinox: paths of the module's fields, matrices (out, in), biases (out, 1, 1), running statistics under their index."""

from __future__ import annotations

from collections.abc import Sequence

from ... import nn
from ...nn import Layer
from .._operations.axes import Conv, Flip, Squeeze
from .._operations.biases import SharedBias
from .._operations.constants import Fill
from .._operations.operation import Operation, chain
from .._operations.parts import Concatenate
from .._operations.zeros import Unsummed
from .channels_first_layers import dense, embedding, norm
from .framework import STATISTICS, Framework, LayerRow, NoEqualError, Place, joined, rows_of_leaves
from .matrices import LINEAR, has_named_projections, has_one_head_count, projection_rows, unflattened


def _conv(place: Place) -> Sequence[LayerRow]:
    return rows_of_leaves(place, {"kernel": ("weight", Conv()), "bias": ("bias", _bias(place))})


def _conv_transpose(place: Place) -> Sequence[LayerRow]:
    axes_of_space = tuple(range(len(place.leaves["kernel"]) - 2))
    kernel = chain(Conv(), Flip(axes_of_space))
    return rows_of_leaves(place, {"kernel": ("weight", kernel), "bias": ("bias", _bias(place))})


def _bias(place: Place) -> Operation:
    """From (out, 1, ...), with an axis for each one of space, to (out)."""
    return chain(*[Squeeze(-1)] * (len(place.leaves["kernel"]) - 2))


def _batch_norm(place: Place) -> Sequence[LayerRow]:
    """A BatchNorm with `mode="ema"`."""
    order = unflattened(place)
    statistics = {"mean": ("ema_state_index/0", order), "var": ("ema_state_index/1", order)}
    is_first_step = LayerRow(("ema_first_time_index",), (), Fill(False, "bool"), STATISTICS)
    return [*norm(place), *rows_of_leaves(place, statistics, STATISTICS), is_first_step]


def _kernels() -> list[LayerRow]:
    return [
        LayerRow(("weight_ih",), ("input/kernel",), LINEAR),
        LayerRow(("weight_hh",), ("hidden/kernel",), LINEAR),
    ]


def _lstm(place: Place) -> Sequence[LayerRow]:
    return [*_kernels(), LayerRow(("bias",), ("input/bias", "hidden/bias"), Unsummed(2))]


def _gru(place: Place) -> Sequence[LayerRow]:
    (width,) = place.leaves["input/bias"]
    bias = chain(Concatenate((width, width // 3)), SharedBias(3, 1))
    return [*_kernels(), LayerRow(("bias", "bias_n"), ("input/bias", "hidden/bias"), bias)]


def _rnn(place: Place) -> Sequence[LayerRow]:
    raise NoEqualError("it has no cell of a plain RNN")


def _attention(place: Place) -> Sequence[LayerRow]:
    if not has_named_projections(place) and not has_one_head_count(place):
        raise NoEqualError(
            "its MultiheadAttention has no kv_heads: name the four Linear modules, names={'attn/q': ..., 'attn/k': ...}"
        )
    modules = ("query_proj", "key_proj", "value_proj", "output_proj")
    return projection_rows(place, modules, "weight", "bias", LINEAR)


def _name(collection: str, module: str, name: str) -> str:
    return joined(module, name)


def _part_path(module: str, layer: Layer, part: str) -> str:
    if isinstance(layer, nn.Sequential) and part.isdecimal():
        return joined(module, "layers", part)
    return joined(module, part)


EQUINOX = Framework(
    "Equinox",
    {
        nn.Dense: dense,
        nn.Conv: _conv,
        nn.ConvTranspose: _conv_transpose,
        nn.Embedding: embedding,
        nn.BatchNorm: _batch_norm,
        nn.LayerNorm: norm,
        nn.RMSNorm: norm,
        nn.GroupNorm: norm,
        nn.LSTM: _lstm,
        nn.GRU: _gru,
        nn.RNN: _rnn,
        nn.MultiHeadAttention: _attention,
    },
    _name,
    _part_path,
    has_channels_first=True,
)
