"""Layers that PyTorch, Equinox and Gluon lay out alike, channels first: matrices (out, in), kernels (out, in, *window)."""

from __future__ import annotations

from collections.abc import Sequence

from ... import nn
from .._operations.axes import Conv, ConvTranspose
from .framework import LayerRow, Place, rows_of_leaves
from .matrices import AS_IS, LINEAR, dense_rows, unflattened
from .several_axes import require_one_order


def dense(place: Place) -> Sequence[LayerRow]:
    """The rows of a Dense layer: a matrix (out, in)."""
    return dense_rows(place, "weight", "bias", LINEAR)


def conv(place: Place) -> Sequence[LayerRow]:
    """The rows of a convolution: a kernel (out, in, *window)."""
    return rows_of_leaves(place, {"kernel": ("weight", Conv()), "bias": ("bias", AS_IS)})


def conv_transpose(place: Place) -> Sequence[LayerRow]:
    """The rows of a transposed convolution: a kernel (in, out / groups, *window)."""
    assert isinstance(place.layer, nn.ConvTranspose)
    kernel = ConvTranspose(place.layer.groups)
    return rows_of_leaves(place, {"kernel": ("weight", kernel), "bias": ("bias", AS_IS)})


def embedding(place: Place) -> Sequence[LayerRow]:
    """The row of an embedding."""
    return rows_of_leaves(place, {"table": ("weight", AS_IS)})


def norm(place: Place) -> Sequence[LayerRow]:
    """The rows of a norm: its scale is a weight."""
    require_one_order(place)
    order = unflattened(place)
    return rows_of_leaves(place, {"scale": ("weight", order), "bias": ("bias", order)})
