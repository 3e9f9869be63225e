"""Doubts of the kernels of transposed convolutions: Flax, Haiku and Equinox hold them mirrored; PyTorch, Keras and ptree do not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from ..._draw import Param
from ..._edit import leaves
from ..._tree import PyTree, Tree
from ...files._kernels import layout_of_name
from .._named_arrays import NamedArray
from .._operations import axes
from .._operations.operation import AsIs, Operation, chain
from .._table.square_kernels import says_transposed
from .fitting import steps_of
from .known_layouts import mirror
from .possible_pairs import Pair

MIRRORED = "Flax, Haiku and Equinox hold the kernel of a transposed convolution mirrored, other frameworks do not"
_OF_FLAX = re.compile(r"(^|/)(params/|ConvTranspose_\d+/)")


def is_of_ptree(like: PyTree) -> bool:
    """Whether a target is a tree or a spec of ptree, whose kernels are not mirrored."""
    if isinstance(like, Tree):
        return True
    return isinstance(like, dict) and any(isinstance(leaf, Param) for _, leaf in leaves(like))


def with_doubts_of_mirrors(pair: Pair, targets: Mapping[str, Operation], *, is_of_ptree: bool) -> Pair:
    """A pair with a doubt, and the mirrored operations beside the others, where a kernel may have to be mirrored.

    Args:
        targets: what the classes of modules say of each path of the target.
        is_of_ptree: whether the target is a tree of ptree.
    """
    source, target = (next(iter(family.members.values())) for family in (pair.source, pair.targets[0]))
    window = len(pair.targets[0].shapes[0]) - 2
    if window < 1 or not _is_kernel(pair) or not _is_transposed(pair, source.layout, targets.get(target.path)):
        return pair
    is_plain_target = is_of_ptree and layout_of_name(target.path) == "kernel" and not _OF_FLAX.search(target.path)
    if is_plain_target and _is_source_known(pair, source):
        return pair
    if pair.operations == (AsIs(),) and _is_same_layer(source, target, targets):
        return pair
    mirrored = [_mirrored(operation, window) for operation in pair.operations]
    operations = tuple(dict.fromkeys((*pair.operations, *mirrored)))
    return replace(pair, operations=operations, doubts=(*pair.doubts, MIRRORED))


def _is_kernel(pair: Pair) -> bool:
    roles = pair.targets[0].roles
    return len(pair.targets) == 1 and (not roles or "kernel" in roles)


def _is_transposed(pair: Pair, source: Operation | None, target: Operation | None) -> bool:
    """Whether a class, a name or the only layout that fits says that it is the kernel of a transposed convolution."""
    known = [layout for layout in (source, target) if layout is not None]
    if known:
        return any(_has_step(layout, (axes.ConvTranspose, axes.Swap, axes.Flip)) for layout in known)
    if says_transposed(pair.source.path) or says_transposed(pair.targets[0].path):
        return True
    return all(_has_step(operation, (axes.ConvTranspose,)) for operation in pair.operations)


def _is_source_known(pair: Pair, source: NamedArray) -> bool:
    """Whether the operations take it into account that the source is mirrored, or it is not: its class or its layout says it."""
    if source.layout is not None:
        return True
    # PyTorch's is (in, out, *window), and Keras' (*window, out, in): no mirrored kernel lies so under these names
    kinds = {"weight": axes.ConvTranspose, "kernel": axes.Swap}
    kind = kinds.get(layout_of_name(source.path))
    return kind is not None and all(_has_step(operation, (kind,)) for operation in pair.operations)


def _is_same_layer(source: NamedArray, target: NamedArray, targets: Mapping[str, Operation]) -> bool:
    """Whether both are of one framework: by their classes, or the same name."""
    layout = targets.get(target.path)
    if source.layout is not None and layout is not None:
        return source.layout == layout
    return source.path == target.path or bool(_OF_FLAX.search(source.path) and _OF_FLAX.search(target.path))


def _mirrored(operation: Operation, window: int) -> Operation:
    """An operation with the mirror after it, or without it where it is there."""
    *before, last = steps_of(operation)
    if isinstance(last, axes.Flip):
        return chain(*before)
    return operation >> mirror(window)


def _has_step(operation: Operation, kinds: tuple[type[Operation], ...]) -> bool:
    return any(isinstance(step, kinds) for step in steps_of(operation))
