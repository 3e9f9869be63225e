"""Matrices that may read the flattened features of a convolution: PyTorch orders them as (channels, *window), ptree the other way."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isqrt

from .._operations import axes
from .._operations.operation import Operation, chain
from .families import Family
from .fitting import Shape, is_turned, steps_of
from .possible_pairs import Pair

FLATTENED = "if it reads flattened features of a convolution, their order may differ"


@dataclass(frozen=True)
class _Matrix:
    """A matrix in the order of the source."""

    path: str
    features: int
    """In."""
    channels_before: int | None
    """Of the convolution right before it; None where there is none."""

    def is_in_doubt(self, given: Collection[int]) -> bool:
        """Whether nothing that was given before has as many features: not the convolution, or without one no matrix."""
        if self.channels_before is not None:
            return self.channels_before != self.features
        return self.features not in given


def may_read_flattened(pairs: Sequence[Pair], order: Mapping[str, int]) -> dict[str, Operation | None]:
    """The matrices whose features in may be the flattened features of a convolution, which PyTorch orders differently.

    Path -> the operation that puts them in order, where it can be guessed.

    No doubt: as many features as the convolution before it has channels; or, with no convolution before, as another layer gives.
    """
    convolutions = [pair for pair in pairs if _is_convolution_of_pytorch(pair)]
    windows = {shape[-1]: len(shape) - 2 for pair in convolutions for shape in pair.targets[0].shapes}
    given = {shape[-1] for pair in pairs if _is_kernel(pair) for shape in pair.targets[0].shapes}
    found: dict[str, Operation | None] = {}
    for matrix in _matrices(pairs, order):
        features = matrix.features
        divisors = [count for count in windows if features > count and features % count == 0]
        if divisors and matrix.is_in_doubt(given | windows.keys()):
            channels = matrix.channels_before
            channels = channels if channels in divisors else divisors[-1]
            found[matrix.path] = _reordered(features, channels, windows[channels])
    return found


def _matrices(pairs: Sequence[Pair], order: Mapping[str, int]) -> Iterator[_Matrix]:
    channels: int | None = None
    for _, path, pair, before, after in sorted(_members(pairs, order), key=lambda member: member[0]):
        if _is_convolution_of_pytorch(pair):
            channels = after[-1]
        elif _is_kernel(pair):
            features = before[1] if is_turned(pair.operations[0]) else before[0]
            yield _Matrix(path, features, channels)
            channels = None


def _members(pairs: Sequence[Pair], order: Mapping[str, int]) -> Iterator[tuple[int, str, Pair, Shape, Shape]]:
    """Each array of the source: its place in it, its path, its pair, its shape and that of its target."""
    for pair in pairs:
        shapes = zip(pair.source.members.values(), pair.source.shapes, pair.targets[0].shapes, strict=True)
        for member, before, after in shapes:
            yield order[member.path], member.path, pair, before, after


def _is_kernel(pair: Pair) -> bool:
    return is_matrix(pair.source, pair.targets[0])


def _is_convolution_of_pytorch(pair: Pair) -> bool:
    steps = {type(step) for step in steps_of(pair.operations[0])}
    return bool(steps & {axes.Conv, axes.ConvTranspose}) and len(pair.source.shapes[0]) > 2


def _reordered(features: int, channels: int, window: int) -> Operation | None:
    """`flatten_order` from (channels, *window) to (*window, channels), of a square window; None where there is none."""
    places = features // channels
    if window == 1:
        return axes.FlattenOrder((channels, places), (1, 0))
    side = isqrt(places)
    if window != 2 or side * side != places:
        return None
    return axes.FlattenOrder((channels, side, side), (1, 2, 0))


def without_flattened(pair: Pair, flattened: Mapping[str, Operation | None]) -> list[Pair]:
    """A pair in parts: each of the matrices in doubt with both operations, and all others."""
    members = [*zip(pair.source.members.items(), pair.targets[0].members.items(), strict=True)]
    rest = [member for member in members if member[0][1].path not in flattened]
    if len(rest) == len(members):
        return [pair]
    parts: list[Pair] = []
    if rest:
        source = Family(pair.source.texts, dict(source for source, _ in rest))
        target = Family(pair.targets[0].texts, dict(target for _, target in rest))
        parts.append(replace(pair, source=source, targets=(target,)))
    for (_, source), (_, target) in members:
        if source.path in flattened:
            order = flattened[source.path]
            operations = pair.operations
            if order is not None:
                operations = (*operations, *(chain(operation, order) for operation in operations))
            single = Family((source.path,), {(): source}), Family((target.path,), {(): target})
            doubts = (*pair.doubts, FLATTENED)
            parts.append(replace(pair, source=single[0], targets=(single[1],), operations=operations, doubts=doubts))
    return parts


def is_matrix(source: Family, target: Family) -> bool:
    """Whether a pair is of the kernels of a layer without a window."""
    is_kernel = "kernel" in target.roles or not target.roles
    return len(source.shapes[0]) == 2 and is_kernel
