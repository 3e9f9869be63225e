"""Layers in PyTorch: matrices (out, in), kernels (out, in, *window), gates with two biases, the fused matrix of attention."""

from __future__ import annotations

from collections.abc import Sequence

from ... import nn
from ...nn import Layer
from .._operations.axes import Conv, ConvTranspose, SplitAxis
from .._operations.constants import Fill
from .._operations.operation import chain
from .._operations.parts import Split
from .framework import Framework, LayerRow, Place, joined, rows_of_leaves
from .matrices import (
    AS_IS,
    LINEAR,
    dense_rows,
    has_named_projections,
    is_square_attention,
    kernel_of_matrix,
    projection_rows,
    unflattened,
)
from .recurrent_names import layer_number, two_bias_rows
from .several_axes import require_one_order


def _dense(place: Place) -> Sequence[LayerRow]:
    return dense_rows(place, "weight", "bias", LINEAR)


def _conv(place: Place) -> Sequence[LayerRow]:
    return rows_of_leaves(place, {"kernel": ("weight", Conv()), "bias": ("bias", AS_IS)})


def _conv_transpose(place: Place) -> Sequence[LayerRow]:
    assert isinstance(place.layer, nn.ConvTranspose)
    kernel = ConvTranspose(place.layer.groups)
    return rows_of_leaves(place, {"kernel": ("weight", kernel), "bias": ("bias", AS_IS)})


def _embedding(place: Place) -> Sequence[LayerRow]:
    return rows_of_leaves(place, {"table": ("weight", AS_IS)})


def _norm(place: Place) -> Sequence[LayerRow]:
    require_one_order(place)
    order = unflattened(place)
    return rows_of_leaves(place, {"scale": ("weight", order), "bias": ("bias", order)})


def _batch_norm(place: Place) -> Sequence[LayerRow]:
    order = unflattened(place)
    statistics = {"mean": ("running_mean", order), "var": ("running_var", order)}
    counter = LayerRow(("num_batches_tracked",), (), Fill(0, "int64"))
    return [*_norm(place), *rows_of_leaves(place, statistics), counter]


def _recurrent(place: Place) -> Sequence[LayerRow]:
    module, number = layer_number(place.module)
    names = {part: f"{{}}_{short}_l{number}" for part, short in (("input", "ih"), ("hidden", "hh"))}
    return two_bias_rows("", names, module)


def _bidirectional(place: Place) -> Sequence[LayerRow]:
    if place.parts:  # two layers of their own
        return []
    module, number = layer_number(place.module)
    rows: list[LayerRow] = []
    for direction, suffix in (("forward", ""), ("backward", "_reverse")):
        names = {part: f"{{}}_{short}_l{number}{suffix}" for part, short in (("input", "ih"), ("hidden", "hh"))}
        rows += two_bias_rows(f"{direction}/", names, module)
    return rows


def _attention(place: Place) -> Sequence[LayerRow]:
    if has_named_projections(place) or not is_square_attention(place):
        return projection_rows(place, ("q", "k", "v", "o"), "weight", "bias", LINEAR)
    q, k, v = (place.leaves[f"{part}/kernel"] for part in "qkv")
    apart = SplitAxis(-1, q[1:])
    if q == k == v:
        kernels = tuple(f"{part}/kernel" for part in "qkv")
        rows = [LayerRow(("in_proj_weight",), kernels, chain(Split(3), LINEAR, apart))]
    else:  # made with kdim or vdim
        rows = [LayerRow((f"{part}_proj_weight",), (f"{part}/kernel",), chain(LINEAR, apart)) for part in "qkv"]
    output = kernel_of_matrix(place.leaves["o/kernel"], 1, LINEAR)
    rows.append(LayerRow(("out_proj/weight",), ("o/kernel",), output))
    if "q/bias" in place.leaves:
        biases = tuple(f"{part}/bias" for part in "qkv")
        rows.append(LayerRow(("in_proj_bias",), biases, chain(Split(3), SplitAxis(0, q[1:]))))
        rows.append(LayerRow(("out_proj/bias",), ("o/bias",)))
    return rows


def _name(collection: str, module: str, name: str) -> str:
    return joined(module, name).replace("/", ".")


def _part_path(module: str, layer: Layer, part: str) -> str:
    return joined(module, part)


PYTORCH = Framework(
    "PyTorch",
    {
        nn.Dense: _dense,
        nn.Conv: _conv,
        nn.ConvTranspose: _conv_transpose,
        nn.Embedding: _embedding,
        nn.BatchNorm: _batch_norm,
        nn.LayerNorm: _norm,
        nn.RMSNorm: _norm,
        nn.GroupNorm: _norm,
        nn.LSTM: _recurrent,
        nn.GRU: _recurrent,
        nn.RNN: _recurrent,
        nn.Bidirectional: _bidirectional,
        nn.MultiHeadAttention: _attention,
    },
    _name,
    _part_path,
    has_channels_first=True,
)
