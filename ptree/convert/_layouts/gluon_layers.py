"""Layers in MXNet's Gluon: matrices (out, in), one scale for each group, names of `save_parameters` and of exported files."""

from __future__ import annotations

from collections.abc import Sequence

from ... import nn
from ...nn import Layer
from .._operations.constants import Fill
from .._operations.parts import Repeat
from .channels_first_layers import conv, conv_transpose, dense, embedding
from .framework import STATISTICS, Framework, LayerRow, NoEqualError, Place, joined, rows_of_leaves
from .matrices import LINEAR, projection_rows, unflattened
from .recurrent_names import layer_number, two_bias_rows
from .several_axes import require_one_order


def _layer_norm(place: Place) -> Sequence[LayerRow]:
    return [*_scale_and_bias(place), *_constants(place)]


def _batch_norm(place: Place) -> Sequence[LayerRow]:
    order = unflattened(place)
    statistics = {"mean": ("running_mean", order), "var": ("running_var", order)}
    return [*_layer_norm(place), *rows_of_leaves(place, statistics, STATISTICS)]


def _scale_and_bias(place: Place) -> list[LayerRow]:
    require_one_order(place)
    order = unflattened(place)
    return rows_of_leaves(place, {"scale": ("gamma", order), "bias": ("beta", order)})


def _constants(place: Place) -> list[LayerRow]:
    """The rows of a gamma and a beta that are not used, which Gluon has all the same."""
    rows: list[LayerRow] = []
    shape = next(iter(place.leaves.values()))
    for leaf, name, constant in (("scale", "gamma", 1.0), ("bias", "beta", 0.0)):
        if leaf not in place.leaves:
            rows.append(LayerRow((name,), (), Fill(constant, "float32", shape)))
    return rows


def _group_norm(place: Place) -> Sequence[LayerRow]:
    """Each group has one gamma and one beta, where other frameworks have one for each channel."""
    assert isinstance(place.layer, nn.GroupNorm)
    (features,) = next(iter(place.leaves.values()))
    groups = place.layer.groups
    each = Repeat(features // groups)
    rows = rows_of_leaves(place, {"scale": ("gamma", each), "bias": ("beta", each)})
    for row in _constants(place):
        assert isinstance(row.operation, Fill)
        rows.append(LayerRow(row.sources, (), Fill(row.operation.constant, "float32", (groups,))))
    return rows


def _rms_norm(place: Place) -> Sequence[LayerRow]:
    raise NoEqualError("it has no RMSNorm; for a block of your own give own={name: path}")


def _recurrent(place: Place) -> Sequence[LayerRow]:
    module, number = layer_number(place.module)
    start = f"l{number}_" if _is_prefix(module) else f"_unfused/{number}/"
    return two_bias_rows("", _names_of_gates(start), module)


def _bidirectional(place: Place) -> Sequence[LayerRow]:
    if place.parts:  # two layers of their own
        return []
    module, number = layer_number(place.module)
    rows: list[LayerRow] = []
    for direction, letter in (("forward", "l"), ("backward", "r")):
        start = f"{letter}{number}_" if _is_prefix(module) else f"_unfused/{number}/{letter}_cell/"
        rows += two_bias_rows(f"{direction}/", _names_of_gates(start), module)
    return rows


def _names_of_gates(start: str) -> dict[str, str]:
    return {"input": f"{start}i2h_{{}}", "hidden": f"{start}h2h_{{}}"}


def _attention(place: Place) -> Sequence[LayerRow]:
    """Gluon has no attention: four Dense layers."""
    return projection_rows(place, ("q", "k", "v", "o"), "weight", "bias", LINEAR)


def _is_prefix(module: str) -> bool:
    """Whether this is the prefix of a block, `dense0_`, rather than its place in the structure, `0`."""
    return module.endswith("_")


def _name(collection: str, module: str, name: str) -> str:
    if _is_prefix(module):
        kind = "aux" if collection == STATISTICS else "arg"
        return f"{kind}:{module}{name.replace('/', '_')}"
    return joined(module, name).replace("/", ".")


def _part_path(module: str, layer: Layer, part: str) -> str:
    return f"{module}{part}_" if _is_prefix(module) else joined(module, part)


GLUON = Framework(
    "Gluon",
    {
        nn.Dense: dense,
        nn.Conv: conv,
        nn.ConvTranspose: conv_transpose,
        nn.Embedding: embedding,
        nn.BatchNorm: _batch_norm,
        nn.LayerNorm: _layer_norm,
        nn.RMSNorm: _rms_norm,
        nn.GroupNorm: _group_norm,
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
