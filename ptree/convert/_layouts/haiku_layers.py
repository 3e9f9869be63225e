"""Layers in Haiku: `module/w`, matrices of attention, [in; hidden] fused in an LSTM, averages of BatchNorm in a state of their own."""

from __future__ import annotations

from collections.abc import Sequence

from ... import nn
from ...nn import Layer
from .._operations.axes import Flip, Reshape, Swap
from .._operations.constants import Add, Fill
from .._operations.copies import First
from .._operations.operation import Operation, chain
from .._operations.parts import Gates, Split
from .._operations.zeros import Unsummed
from .framework import PARAMETERS, STATISTICS, Framework, LayerRow, NoEqualError, Place, joined, rows_of_leaves
from .matrices import AS_IS, dense_rows, has_named_projections, has_one_head_count, projection_rows

_STEPS = 2**30
"""The counter of averages that have counted many steps, so that Haiku does not correct them for their start at zero."""


def _dense(place: Place) -> Sequence[LayerRow]:
    return dense_rows(place, "w", "b", AS_IS)


def _conv(place: Place) -> Sequence[LayerRow]:
    return rows_of_leaves(place, {"kernel": ("w", AS_IS), "bias": ("b", AS_IS)})


def _conv_transpose(place: Place) -> Sequence[LayerRow]:
    assert isinstance(place.layer, nn.ConvTranspose)
    if place.layer.groups > 1:
        raise NoEqualError("its ConvNDTranspose has no groups")
    axes_of_space = tuple(range(len(place.leaves["kernel"]) - 2))
    kernel = chain(Swap(-1, -2), Flip(axes_of_space))
    return rows_of_leaves(place, {"kernel": ("w", kernel), "bias": ("b", AS_IS)})


def _embedding(place: Place) -> Sequence[LayerRow]:
    return rows_of_leaves(place, {"table": ("embeddings", AS_IS)})


def _norm(place: Place) -> Sequence[LayerRow]:
    return rows_of_leaves(place, {"scale": ("scale", AS_IS), "bias": ("offset", AS_IS)})


def _batch_norm(place: Place) -> Sequence[LayerRow]:
    alone = _without_broadcast_axes(place)
    rows = rows_of_leaves(place, {"scale": ("scale", alone), "bias": ("offset", alone)})
    for leaf in ("mean", "var"):
        average, hidden, counter = (f"~/{leaf}_ema/{name}" for name in ("average", "hidden", "counter"))
        rows.append(LayerRow((average, hidden), (leaf,), chain(First(2), alone), STATISTICS))
        rows.append(LayerRow((counter,), (), Fill(_STEPS, "int32"), STATISTICS))
    return rows


def _without_broadcast_axes(place: Place) -> Operation:
    """From (1, ..., features), with as many axes as the input, to (features)."""
    if place.input_shape is None:
        raise NoEqualError(
            "its scale has as many axes as the input, which is not seen where its `apply` is called: give the rows in"
            " own={name: (path, reshape(...))}"
        )
    (features,) = place.leaves["mean"]
    whole = (1,) * (len(place.input_shape) - 1) + (features,)
    return Reshape(whole, (features,)) if len(whole) > 1 else AS_IS


def _lstm(place: Place) -> Sequence[LayerRow]:
    features_in, width = place.leaves["input/kernel"]
    sizes = (features_in, width // 4)
    gates = Gates("igfo", "ifgo")
    # Haiku adds 1 to the forget gate, the third of its gates, in each step
    bias = chain(Add(1.0, (2, 4)), gates, Unsummed(2))
    return [
        LayerRow(("linear/w",), ("input/kernel", "hidden/kernel"), chain(Split(sizes), gates)),
        LayerRow(("linear/b",), ("input/bias", "hidden/bias"), bias),
    ]


def _gru(place: Place) -> Sequence[LayerRow]:
    raise NoEqualError("its GRU applies the reset gate to the state before the product, and so computes something else")


def _rnn(place: Place) -> Sequence[LayerRow]:
    """A VanillaRNN with `double_bias=True`, the default."""
    return [
        LayerRow(("linear/w",), ("input/kernel",)),
        LayerRow(("linear/b",), ("input/bias",)),
        LayerRow(("linear_1/w",), ("hidden/kernel",)),
        LayerRow(("linear_1/b",), ("hidden/bias",)),
    ]


def _attention(place: Place) -> Sequence[LayerRow]:
    if not has_named_projections(place) and not has_one_head_count(place):
        raise NoEqualError(
            "its MultiHeadAttention has no kv_heads: name the four Linear modules, names={'attn/q': ..., 'attn/k': ...}"
        )
    return projection_rows(place, ("query", "key", "value", "linear"), "w", "b", AS_IS)


def _name(collection: str, module: str, name: str) -> str:
    place = {"": "", PARAMETERS: "0", STATISTICS: "1"}
    return joined(place[collection], module, name)


def _part_path(module: str, layer: Layer, part: str) -> str:
    return joined(module, part)


HAIKU = Framework(
    "Haiku",
    {
        nn.Dense: _dense,
        nn.Conv: _conv,
        nn.ConvTranspose: _conv_transpose,
        nn.Embedding: _embedding,
        nn.BatchNorm: _batch_norm,
        nn.LayerNorm: _norm,
        nn.RMSNorm: _norm,
        nn.GroupNorm: _norm,
        nn.LSTM: _lstm,
        nn.GRU: _gru,
        nn.RNN: _rnn,
        nn.MultiHeadAttention: _attention,
    },
    _name,
    _part_path,
    names_shared_twice=False,
    keeps_statistics_apart=True,
)
