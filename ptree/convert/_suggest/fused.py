"""Fused projections: one array of a source that holds the query, key and value kernels (or biases) of a target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .._operations import parts
from .._operations.axes import Linear, SplitAxis
from .._operations.operation import Operation, chain
from .families import Family, offsets
from .name_words import words_of

_PROJECTIONS = ("query", "key", "value")
# PyTorch's MultiheadAttention and GPT-2: queries, then keys, then values. Others lie head by head, and have the same shape.
_IN_ORDER = ("in_proj_weight", "in_proj_bias", "c_attn/weight", "c_attn/bias")


@dataclass(frozen=True)
class FusedTargets:
    """The query, key and value of one attention layer of the target."""

    families: tuple[Family, ...]
    name: str
    """What the three names have in common."""


def fused_targets(targets: Sequence[Family]) -> list[FusedTargets]:
    """The leaves of a target in threes: query, key and value that lie side by side."""
    groups: dict[str, dict[str, Family]] = {}
    for family in targets:
        found = _projection_in("*".join(family.texts))
        if found is not None:
            name, projection = found
            groups.setdefault(name, {})[projection] = family
    complete: list[FusedTargets] = []
    for name, group in groups.items():
        families = tuple(group[projection] for projection in _PROJECTIONS if projection in group)
        if len(families) == len(_PROJECTIONS) and _are_parallel(families):
            complete.append(FusedTargets(families, name))
    return complete


def _projection_in(template: str) -> tuple[str, str] | None:
    """The template without the segment that says which projection it is, and which one."""
    segments = template.split("/")
    for at in range(len(segments) - 1, -1, -1):
        found = words_of(f"{segments[at]}/kernel") & {*_PROJECTIONS}
        if len(found) == 1:
            name = "/".join((*segments[:at], "{}", *segments[at + 1 :]))
            return name, next(iter(found))
    return None


def _are_parallel(families: Sequence[Family]) -> bool:
    """Whether the members have the same numbers, and features in and size of a head are the same."""
    return all([*family.members] == [*families[0].members] for family in families[1:])


def fused_operations(source: Family, targets: FusedTargets) -> list[Operation]:
    """The operations that split the members of a source into those of the three targets."""
    if any(offsets(source, target) is None for target in targets.families):
        return []
    shapes = source.shapes
    if len({*shapes}) > 1 or any(len({*target.shapes}) > 1 for target in targets.families):
        return []
    return [
        operation
        for operation in _candidates(shapes[0], [target.shapes[0] for target in targets.families])
        if operation is not None
    ]


def _candidates(before: tuple[int, ...], after: Sequence[tuple[int, ...]]) -> list[Operation | None]:
    """Splits along the axis of features out, which the fused shape shows."""
    if len({shape[-1] for shape in after}) > 1 and len(after[0]) > 2:  # heads of several sizes
        return []
    rank = len(before)
    if rank == 1:
        return [_split_and_heads(before, after, 0, is_turned=False)]
    if rank != 2:
        return []
    return [
        _split_and_heads(before, after, 0, is_turned=True),
        _split_and_heads(before, after, 1, is_turned=False),
    ]


def _split_and_heads(
    before: tuple[int, ...], after: Sequence[tuple[int, ...]], axis: int, *, is_turned: bool
) -> Operation | None:
    """`split(...)` along an axis, `linear` where features out come first, and heads where the targets have them."""
    has_features_in = len(before) == 2
    sizes: list[int] = []
    for shape in after:
        features_in, *features_out = shape if has_features_in else (1, *shape)
        if len(features_out) not in (1, 2) or (has_features_in and features_in != before[1 - axis]):
            return None
        size = 1
        for factor in features_out:
            size *= factor
        sizes.append(size)
    if sum(sizes) != before[axis]:
        return None
    even = len({*sizes}) == 1
    operation: Operation = parts.Split(len(sizes) if even else tuple(sizes), axis)
    if is_turned:
        operation = chain(operation, Linear())
    has_heads = len(after[0]) == (3 if has_features_in else 2)
    if has_heads:
        operation = chain(operation, SplitAxis(-1, (-1, after[0][-1])))
    return operation


def is_in_known_order(source: Family) -> bool:
    """Whether a framework is known that writes these names, and queries before keys before values."""
    return f"/{source.path}".endswith(tuple(f"/{name}" for name in _IN_ORDER))
