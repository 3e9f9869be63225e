"""Layers of Flax, as linen and nnx both have them: kernels as here, transposed convolutions flipped, small kernels of each gate."""

from __future__ import annotations

from collections.abc import Sequence

from ... import nn
from ...nn import Layer
from .._operations.axes import Flip, Swap
from .._operations.parts import Concatenate
from .framework import STATISTICS, LayerRow, NoEqualError, Place, Rule, rows_of_leaves
from .matrices import AS_IS, attention_rows

QUERY_NORMS = {"q_norm": "query_ln", "k_norm": "key_ln"}
"""The norms of queries and keys in attention with `normalize_qk=True`."""


def _kernel_and_bias(place: Place) -> Sequence[LayerRow]:
    # several axes in or out are those of DenseGeneral or LinearGeneral
    return rows_of_leaves(place, {"kernel": ("kernel", AS_IS), "bias": ("bias", AS_IS)})


def _conv_transpose(place: Place) -> Sequence[LayerRow]:
    assert isinstance(place.layer, nn.ConvTranspose)
    if place.layer.groups > 1:
        raise NoEqualError("its ConvTranspose has no groups")
    axes_of_space = tuple(range(len(place.leaves["kernel"]) - 2))
    kernel = Swap(-1, -2) if place.form == "transpose_kernel" else Flip(axes_of_space)
    return rows_of_leaves(place, {"kernel": ("kernel", kernel), "bias": ("bias", AS_IS)})


def _embedding(place: Place) -> Sequence[LayerRow]:
    return rows_of_leaves(place, {"table": ("embedding", AS_IS)})


def _norm(place: Place) -> Sequence[LayerRow]:
    rows = rows_of_leaves(place, {"scale": ("scale", AS_IS), "bias": ("bias", AS_IS)})
    statistics = {"mean": ("mean", AS_IS), "var": ("var", AS_IS)}
    return [*rows, *rows_of_leaves(place, statistics, STATISTICS)]


def _attention(place: Place) -> Sequence[LayerRow]:
    return attention_rows(place, ("query", "key", "value", "out"))


def kernels_of_gates(part: str, modules: Sequence[str]) -> LayerRow:
    """The row of the small kernels of the gates, as one kernel."""
    names = tuple(f"cell/{module}/kernel" for module in modules)
    return LayerRow(names, (f"{part}/kernel",), Concatenate(len(modules), -1))


RULES: dict[type[Layer], Rule] = {
    nn.Dense: _kernel_and_bias,
    nn.Conv: _kernel_and_bias,
    nn.ConvTranspose: _conv_transpose,
    nn.Embedding: _embedding,
    nn.BatchNorm: _norm,
    nn.LayerNorm: _norm,
    nn.RMSNorm: _norm,
    nn.GroupNorm: _norm,
    nn.MultiHeadAttention: _attention,
}
"""The rules that linen and nnx share."""
