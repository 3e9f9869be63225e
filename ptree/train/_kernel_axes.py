"""Which axes of a kernel are summed over: its first axes, whose number its shape or the bias beside it says."""

from __future__ import annotations

from .._edit import get_or
from .._paths import join
from .._tree import MISSING, Leaf, PyTree
from ..stacks import layer_shape


def input_axes(params: PyTree, path: str, kernel: Leaf) -> int | None:
    """How many axes of one layer's kernel are summed over; None where nothing says so."""
    shape = layer_shape(path, kernel)
    if len(shape) == 2:
        return 1
    # A bias is added to the output, so it has the axes that are not summed over.
    bias_path = join(path.rpartition("/")[0], "bias")
    bias = get_or(params, bias_path, MISSING)
    outputs = () if bias is MISSING else layer_shape(bias_path, bias)
    if 0 < len(outputs) < len(shape) and shape[-len(outputs) :] == outputs:
        return len(shape) - len(outputs)
    return None
