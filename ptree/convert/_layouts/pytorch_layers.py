"""Layers in PyTorch: matrices (out, in), kernels (out, in, *window), gates with two biases, the fused matrix of attention."""

from __future__ import annotations

from collections.abc import Sequence

from ... import nn
from ...nn import Layer
from .._operations.axes import SplitAxis
from .._operations.constants import Fill
from .._operations.operation import chain
from .._operations.parts import Split
from .channels_first_layers import conv, conv_transpose, dense, embedding, norm
from .framework import Framework, LayerRow, Place, joined, rows_of_leaves
from .matrices import (
    LINEAR,
    has_named_projections,
    is_square_attention,
    kernel_of_matrix,
    projection_rows,
    unflattened,
)
from .recurrent_names import layer_number, two_bias_rows


def _batch_norm(place: Place) -> Sequence[LayerRow]:
    order = unflattened(place)
    statistics = {"mean": ("running_mean", order), "var": ("running_var", order)}
    counter = LayerRow(("num_batches_tracked",), (), Fill(0, "int64"))
    return [*norm(place), *rows_of_leaves(place, statistics), counter]


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
        nn.Dense: dense,
        nn.Conv: conv,
        nn.ConvTranspose: conv_transpose,
        nn.Embedding: embedding,
        nn.BatchNorm: _batch_norm,
        nn.LayerNorm: norm,
        nn.RMSNorm: norm,
        nn.GroupNorm: norm,
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
