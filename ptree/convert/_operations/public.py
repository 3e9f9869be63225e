"""The operations by their public names; those without options are ready made, the others are called with them."""

from __future__ import annotations

from . import axes, biases, carried, constants, copies, dtypes, parts, weight_norm, zeros
from .operation import AsIs, Operation
from .options import check_kind, plain, require_count


def heads(count: int, axis: int = -1) -> Operation:
    """An axis of `heads * size` features as two axes, `(heads, size)`: `split_axis(axis, (count, -1))`.

    >>> import numpy as np
    >>> heads(12).apply([np.ones((768, 768))])[0].shape
    (768, 12, 64)

    Args:
        count: how many heads.
        axis: the axis of features.

    Raises:
        PatternError: a count that is no whole number above 0.
    """
    count = plain(count)
    check_kind("heads", "count", "int", count)
    require_count("heads", "count", count)
    return axes.SplitAxis(axis, (count, -1))


as_is, linear, conv, carry = AsIs(), axes.Linear(), axes.Conv(), carried.Carry()
conv_transpose = axes.ConvTranspose
permute = axes.Permute
swap = axes.Swap
flip = axes.Flip
squeeze = axes.Squeeze
expand = axes.Expand
split_axis = axes.SplitAxis
merge_axes = axes.MergeAxes
depthwise = axes.Depthwise
flatten_order = axes.FlattenOrder
reshape = axes.Reshape
split = parts.Split
concatenate = parts.Concatenate
gates = parts.Gates
stack = parts.Stack
unstack = parts.Unstack
repeat = parts.Repeat
add = constants.Add
fill = constants.Fill
cast = dtypes.Cast
zero_fill = zeros.ZeroFill
summed = zeros.Summed
unsummed = zeros.Unsummed
first = copies.First
shared_bias = biases.SharedBias
zero_part = biases.ZeroPart
weight_norm = weight_norm.WeightNorm


def is_name(text: str) -> bool:
    """Whether a text is the name of an operation."""
    operation = globals().get(text)
    is_class = isinstance(operation, type) and issubclass(operation, Operation)
    return operation is heads or (text.islower() and (is_class or isinstance(operation, Operation)))
