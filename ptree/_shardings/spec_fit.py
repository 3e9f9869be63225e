"""Fit a PartitionSpec to a shape and the axes of a mesh: all reasons why it does not fit, the shape of a part."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

from jax.sharding import PartitionSpec

from .._tree import axes_of
from .._words import quoted, suggestion

AxisSizes: TypeAlias = Mapping[str, int]
"""The axes of a mesh by name: how many devices there are along each."""
Shape: TypeAlias = tuple[int, ...]


class Misfit(NamedTuple):
    """Why a PartitionSpec does not fit a shape."""

    wrong: tuple[str, ...] = ()
    """What no shape of the same rank would change: axes that the mesh does not have or that are there twice, a wrong rank."""
    indivisible: tuple[tuple[int, str], ...] = ()
    """The dimensions that cannot be divided into equal parts, and why."""

    @property
    def problems(self) -> list[str]:
        """All of them, in words."""
        return [*self.wrong, *(why for _, why in self.indivisible)]


def misfit(spec: PartitionSpec, shape: Shape, sizes: AxisSizes, rank_hint: str = "") -> Misfit:
    """Find all reasons why a PartitionSpec does not fit a shape on a mesh with axes of these sizes.

    >>> misfit(PartitionSpec("data", "tensor"), (9, 8), {"data": 2}).problems
    ["the mesh has no axis 'tensor', it has data=2", 'dimension 0 of size 9 cannot be divided by data=2: 8 and 10 can']

    Args:
        spec: entries for the dimensions of the shape; the last ones may be left out.
        shape: that of one layer, for a leaf in a stack.
        sizes: the axes of the mesh.
        rank_hint: what to say besides if there are more entries than dimensions.
    """
    if spec.unreduced or spec.reduced:  # JAX refuses to give its entries then
        return Misfit((_NOT_OF_A_PLACED_ARRAY,))
    wrong = [_LEFT_OPEN] if PartitionSpec.UNCONSTRAINED in tuple(spec) else []
    axes = [axes_of(entry) for entry in spec]
    wrong += _unfit_names([name for names in axes for name in names], sizes)
    if len(spec) > len(shape):
        wrong.append(_wrong_rank(len(spec), len(shape), rank_hint))
    indivisible: list[tuple[int, str]] = []
    for dimension, (size, names) in enumerate(zip(shape, axes, strict=False)):
        parts = _parts(names, sizes)
        if size % parts:
            indivisible.append((dimension, _cannot_divide(dimension, size, names, sizes)))
    return Misfit(tuple(wrong), tuple(indivisible))


_LEFT_OPEN = "UNCONSTRAINED leaves it open where the parts are: write None or an axis"
_NOT_OF_A_PLACED_ARRAY = (
    "an array with unreduced or reduced axes is the result of a computation, and cannot be placed so"
)


def _unfit_names(names: Sequence[str], sizes: AxisSizes) -> list[str]:
    problems: list[str] = []
    for name in dict.fromkeys(names):
        if name not in sizes:
            near = suggestion(str(name), map(str, sizes))
            problems.append(f"the mesh has no axis {quoted(name)}, it has {in_words(sizes)}{'.' if near else ''}{near}")
        elif names.count(name) > 1:
            problems.append(f"{quoted(name)} is in it {names.count(name)} times, and an axis can divide one dimension")
    return problems


def _wrong_rank(entries: int, dimensions: int, hint: str) -> str:
    if hint:
        return f"its {entries} entries are for {entries} axes, and one layer has {dimensions}. {hint}"
    return f"its {entries} entries are for {entries} axes, and the leaf has {dimensions}"


def _cannot_divide(dimension: int, size: int, names: Sequence[str], sizes: AxisSizes) -> str:
    parts = _parts(names, sizes)
    by = " x ".join(f"{name}={sizes[name]}" for name in names if name in sizes)
    if len(names) > 1:
        by += f" = {parts}"
    below = size - size % parts
    fitting = f"{below + parts} can" if below == 0 else f"{below} and {below + parts} can"
    return f"dimension {dimension} of size {size} cannot be divided by {by}: {fitting}"


def in_words(sizes: AxisSizes) -> str:
    """The axes of a mesh in words: `data=4, model=2`."""
    return ", ".join(f"{name}={size}" for name, size in sizes.items()) or "none"


def _parts(names: Sequence[str], sizes: AxisSizes) -> int:
    return math.prod(sizes.get(name, 1) for name in names)


def part_shape(spec: PartitionSpec, shape: Shape, sizes: AxisSizes) -> Shape:
    """The shape of what one device holds of an array, for a PartitionSpec that fits.

    >>> part_shape(PartitionSpec("data"), (8, 6), {"data": 4})
    (2, 6)
    """
    parts = list(shape)
    for dimension, entry in enumerate(spec):
        if entry is not None:
            parts[dimension] //= _parts(axes_of(entry), sizes)
    return tuple(parts)
