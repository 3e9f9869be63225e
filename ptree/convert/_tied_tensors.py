"""Find tensors of PyTorch in the very same memory, as modules have them that share a parameter."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from .._tree import Leaf
from ..files._kinds import has_memory


def tied_tensors(leaves: Iterable[tuple[str, Leaf]]) -> dict[str, str]:
    """The name of each tensor with the memory, shape and strides of an earlier one -> the earlier name.

    `torch.save` keeps such tensors tied in a file. Arrays of other frameworks are not changed in place, so that one array under
    two names, such as zeros for two biases, says nothing of a tie.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        return {}
    first: dict[object, str] = {}
    tied: dict[str, str] = {}
    for name, leaf in leaves:
        if not isinstance(leaf, torch.Tensor) or str(leaf.layout) != "torch.strided" or not has_memory(leaf):
            continue
        if leaf.device.type == "meta" or not leaf.numel():
            continue
        memory = (leaf.data_ptr(), leaf.device, leaf.dtype, leaf.shape, leaf.stride())
        earlier = first.setdefault(memory, name)
        if earlier != name:
            tied[name] = earlier
    return tied
