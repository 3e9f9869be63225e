"""The operations by their public names; those without options are ready made, the others are called with them."""

from __future__ import annotations

from collections.abc import Callable

from . import axes, biases, parts, values
from .operation import NAMES, AsIs, Operation


def heads(count: int, axis: int = -1) -> Operation:
    """An axis of `heads * size` features as two axes, `(heads, size)`: `split_axis(axis, (count, -1))`."""
    return axes.SplitAxis(axis, (count, -1))


as_is, linear, conv, carry = AsIs(), axes.Linear(), axes.Conv(), values.Carry()
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
add = values.Add
cast = values.Cast
zero_fill = values.ZeroFill
summed = values.Summed
unsummed = values.Unsummed
first = values.First
shared_bias = biases.SharedBias
zero_part = biases.ZeroPart
weight_norm = values.WeightNorm
fill = values.Fill

CONSTANTS: dict[str, Operation] = {"as_is": as_is, "linear": linear, "conv": conv, "carry": carry}
"""Operations without options."""
BACK: dict[str, Operation] = {"conv_back": axes.ConvBack(), "write_back": values.WriteBack()}
"""Their inverses that the contents page does not list; the text of a table may hold them."""
FUNCTIONS: dict[str, Callable[..., Operation]] = {
    "conv_transpose": conv_transpose,
    "permute": permute,
    "swap": swap,
    "flip": flip,
    "squeeze": squeeze,
    "expand": expand,
    "split_axis": split_axis,
    "merge_axes": merge_axes,
    "depthwise": depthwise,
    "flatten_order": flatten_order,
    "reshape": reshape,
    "split": split,
    "concatenate": concatenate,
    "gates": gates,
    "stack": stack,
    "unstack": unstack,
    "repeat": repeat,
    "add": add,
    "cast": cast,
    "zero_fill": zero_fill,
    "summed": summed,
    "unsummed": unsummed,
    "first": first,
    "shared_bias": shared_bias,
    "zero_part": zero_part,
    "weight_norm": weight_norm,
    "fill": fill,
    "heads": heads,
}
"""Operations with options."""
BACK_FUNCTIONS: dict[str, Callable[..., Operation]] = {
    "conv_transpose_back": axes.ConvTransposeBack,
    "depthwise_back": axes.DepthwiseBack,
    "unrepeat": parts.Unrepeat,
    "take_first": values.TakeFirst,
    "weight_norm_back": values.WeightNormBack,
    "constant": values.Constant,
    "copies": values.Copies,
    "shared_bias_back": biases.SharedBiasBack,
    "zero_part_back": biases.ZeroPartBack,
}
"""Their inverses."""


def _names_of_classes() -> dict[type[Operation], str]:
    names = {type(operation): name for name, operation in {**CONSTANTS, **BACK}.items()}
    for name, made in {**FUNCTIONS, **BACK_FUNCTIONS}.items():
        if isinstance(made, type):  # `heads` is a function, which makes a split_axis
            names[made] = name
    return names


NAMES.update(_names_of_classes())
