"""Dense layers and attention that frameworks keep as matrices: axes split into heads, a matrix for several axes, and fused ones."""

from __future__ import annotations

from collections.abc import Sequence

from ...nn import Dense
from .._operations.axes import FlattenOrder, Linear, SplitAxis
from .._operations.operation import Operation, chain
from .._operations.public import as_is as AS_IS
from .framework import LayerRow, Place, Shape, rows_of_leaves

LINEAR = Linear()


def kernel_of_matrix(shape: Shape, axes_out: int, matrix: Operation = AS_IS) -> Operation:
    """From a matrix to a kernel (in..., out...) of several axes; `matrix` makes it (in, out)."""
    axes_in = len(shape) - axes_out
    steps = [matrix]
    if axes_out > 1:
        steps.append(SplitAxis(1, shape[axes_in:]))
    if axes_in > 1:
        steps.append(SplitAxis(0, shape[:axes_in]))
    return chain(*steps)


def bias_of_vector(shape: Shape) -> Operation:
    """From a vector to a bias of several axes."""
    return SplitAxis(0, shape) if len(shape) > 1 else AS_IS


def axes_out(layer: Dense) -> int:
    """How many axes a Dense layer gives for its last ones."""
    return len(layer.features) if isinstance(layer.features, tuple) else 1


def unflattened(place: Place) -> Operation:
    """The order of features that are read flattened: channels last, from channels first."""
    if place.flattened is None:
        return AS_IS
    *space, channels = place.flattened
    order = (*range(1, len(place.flattened)), 0)
    return FlattenOrder((channels, *space), order)


def dense_rows(place: Place, weight: str, bias: str, matrix: Operation) -> list[LayerRow]:
    """The rows of a Dense layer that is a matrix and a vector in the framework."""
    assert isinstance(place.layer, Dense)
    kernel = chain(kernel_of_matrix(place.leaves["kernel"], axes_out(place.layer), matrix), unflattened(place))
    rows = [LayerRow((weight,), ("kernel",), kernel)]
    if "bias" in place.leaves:
        rows.append(LayerRow((bias,), ("bias",), bias_of_vector(place.leaves["bias"])))
    return rows


PROJECTIONS = ("q", "k", "v", "o")
"""The parts of attention with a kernel and a bias each."""


def projection_rows(
    place: Place, modules: Sequence[str], weight: str, bias: str, matrix: Operation, parts: Sequence[str] = PROJECTIONS
) -> list[LayerRow]:
    """The rows of attention whose projections are Dense layers of matrices; a module for each of `parts`, inside of the layer's."""
    rows: list[LayerRow] = []
    for part, module in zip(parts, modules, strict=True):
        kernel, vector = f"{part}/kernel", f"{part}/bias"
        operation = kernel_of_matrix(place.leaves[kernel], 1 if part == "o" else 2, matrix)
        whole = place.parts.get(part)
        within = "" if whole is not None else f"{module}/"
        rows.append(LayerRow((f"{within}{weight}",), (kernel,), operation, module=whole))
        if vector in place.leaves:
            operation = bias_of_vector(place.leaves[vector])
            rows.append(LayerRow((f"{within}{bias}",), (vector,), operation, module=whole))
    return rows


def attention_rows(place: Place, modules: Sequence[str]) -> list[LayerRow]:
    """The rows of attention with a module for each of q, k, v and o, whose kernels have the axes that they have here."""
    if has_named_projections(place):
        return projection_rows(place, modules, "kernel", "bias", AS_IS)
    leaves: dict[str, tuple[str, Operation]] = {}
    for part, module in zip(PROJECTIONS, modules, strict=True):
        for leaf in ("kernel", "bias"):
            leaves[f"{part}/{leaf}"] = (f"{module}/{leaf}", AS_IS)
    return rows_of_leaves(place, leaves)


def has_named_projections(place: Place) -> bool:
    """Whether `names` has a module of its own for some of q, k, v and o."""
    return any(part in place.parts for part in PROJECTIONS)


def is_square_attention(place: Place) -> bool:
    """Whether heads together are as wide as the input, keys have as many heads as queries, and nothing is normalised."""
    features, heads, head_dim = place.leaves["q/kernel"]
    has_norms = any(leaf.startswith(("q_norm/", "k_norm/")) for leaf in place.leaves)
    return heads * head_dim == features and has_one_head_count(place) and not has_norms


def has_one_head_count(place: Place) -> bool:
    """Whether attention has as many heads of keys and values as of queries."""
    return place.leaves["k/kernel"][1] == place.leaves["q/kernel"][1]
