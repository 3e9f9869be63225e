"""Operations that give a leaf of one shape from an array of another: the layouts of frameworks, heads, axes of size 1."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import prod
from typing import TypeGuard

import numpy as np

from .._operations import axes
from .._operations.operation import AsIs, Chain, Described, MisfitError, Operation, chain
from .._operations.public import heads
from .families import Family, described_of

Shape = tuple[int, ...]
_MOST_COMPARED = 1 << 16


def fitting(source: Family, target: Family) -> list[Operation]:
    """The operations that make every member of a source have the shape of the member of the target in the same place."""
    is_kernel = not target.roles or "kernel" in target.roles
    found: list[Operation] = []
    members = zip(source.members.values(), source.shapes, target.shapes, strict=True)
    for at, (member, before, after) in enumerate(members):
        operations = _between(before, after, is_kernel)
        if is_grouped(member.layout) and gives(member.layout, described_of(member), after):
            operations.append(member.layout)
        found = operations if at == 0 else [operation for operation in found if operation in operations]
        if not found:
            return []
    return found


def is_grouped(operation: Operation | None) -> TypeGuard[axes.ConvTranspose]:
    """Whether this is a transposed convolution in groups, of which shapes do not tell how many there are."""
    return isinstance(operation, axes.ConvTranspose) and operation.groups > 1


def gives(operation: Operation, before: Described, after: Shape) -> bool:
    """Whether an operation gives an array of this shape."""
    try:
        (described,) = operation.outcome([before])
    except MisfitError:
        return False
    return described.shape == after


@lru_cache(maxsize=100_000)
def _fitting_cached(before: Shape, after: Shape, is_kernel: bool) -> tuple[Operation, ...]:
    found: dict[Operation, None] = {}
    for operation in _candidates(before, after, is_kernel):
        if not any(_do_the_same(operation, other, before) for other in found):
            found.setdefault(operation)
    return tuple(found)


def _do_the_same(one: Operation, other: Operation, shape: Shape) -> bool:
    """Whether two operations give the same array, as of a matrix with one row; large arrays are not compared."""
    if one == other:
        return True
    if prod(shape) > _MOST_COMPARED:
        return False
    numbers = np.arange(prod(shape)).reshape(shape)
    return np.array_equal(one.apply([numbers])[0], other.apply([numbers])[0])


def _between(before: Shape, after: Shape, is_kernel: bool) -> list[Operation]:
    return [*_fitting_cached(before, after, is_kernel)]


def fitting_shapes(before: Shape, after: Shape) -> list[Operation]:
    """The operations that make a kernel of one shape have another."""
    return _between(before, after, is_kernel=True)


def _candidates(before: Shape, after: Shape, is_kernel: bool) -> Iterator[Operation]:
    if is_kernel:
        yield from _layouts(before, after)
    elif before == after:
        yield AsIs()
    if len(after) == len(before) + 1:
        yield from _with_heads(before, after)
    for axis, squeezed in _squeezes(before):
        if len(after) < len(before):
            for operation in _candidates(squeezed, after, is_kernel):
                yield chain(axes.Squeeze(axis), operation)


def _layouts(before: Shape, after: Shape) -> Iterator[Operation]:
    """The layouts of kernels of the same rank that fit."""
    if before == after:
        yield AsIs()
    if len(before) != len(after) or len(before) < 2:
        return
    if len(before) == 2:
        if before[::-1] == after:
            yield axes.Linear()
        return
    first, second, *window = before
    if (*window, second, first) == after:
        yield axes.Conv()
    if (*window, first, second) == after:
        yield axes.ConvTranspose()
    *window, features, others = before
    if (*window, others, features) == after:
        yield axes.Swap(-1, -2)
    if (*window, 1, features * others) == after:
        yield axes.Depthwise(others)


def _with_heads(before: Shape, after: Shape) -> Iterator[Operation]:
    """Features that the target has as two axes, heads and their size: at the end, or in front as of an output kernel."""
    if len(after) == 2:
        if before == (after[0] * after[1],):
            yield heads(after[0])
        return
    if len(after) != 3:
        return
    for layout in _layouts(before, (after[0], after[1] * after[2])):
        yield layout >> heads(after[1])
    for layout in _layouts(before, (after[0] * after[1], after[2])):
        yield layout >> heads(after[0], axis=0)


def _squeezes(before: Shape) -> list[tuple[int, Shape]]:
    """The first axis of each run of axes of size 1, and the shape without it: the others give the same array."""
    found: list[tuple[int, Shape]] = []
    for axis, size in enumerate(before):
        is_first = axis == 0 or before[axis - 1] != 1
        if size == 1 and is_first:
            found.append((axis, (*before[:axis], *before[axis + 1 :])))
    return found


def is_turned(operation: Operation) -> bool:
    """Whether an operation transposes a matrix."""
    return any(isinstance(step, axes.Linear) for step in steps_of(operation))


def steps_of(operation: Operation) -> Sequence[Operation]:
    """The operations of a chain, or the only one."""
    return operation.steps if isinstance(operation, Chain) else (operation,)
