"""Difference: one row of a diff. Compare two leaves: the kind of their difference and its size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import chain
from math import prod
from operator import add

import numpy as np

from ..._paths import STACKED
from ..._words import describe
from .._sources.source import UNKNOWN_DTYPE, Source
from .leaves import (
    UNREADABLE,
    Side,
    are_equal,
    axes_between,
    change_of,
    change_through,
    changes_by_layer,
    have_equal_checksums,
    is_key,
    reason_of,
)
from .sizes import Sizes, have_equal_bytes
from .stack_pairs import StackPair

WITHIN = "within the tolerance"
"""The kind of a leaf that differs by no more than the tolerance, and counts as the same."""
_CLEARLY_ANOTHER = 0.5
"""A cosine: where a square matrix has changed more than that, it may be transposed."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One difference between two trees or files: a leaf, or a tied name.

    >>> import numpy as np
    >>> from ptree import look
    >>> found = look.diff({"w": np.ones(2), "b": np.ones(2)}, {"w": np.zeros(2), "b": np.ones(2)})
    >>> found.rows[0].kind, found.rows[0].path, found.rows[0].relative
    ('changed', 'w', 1.0)
    """

    kind: str
    """renamed, changed, retyped, transposed, reshaped, restacked, tied, untied, retied, added, removed or unread."""
    path: str
    """The path after the change; of a leaf that is removed, before it."""
    path_before: str | None = None
    """The path before the change; None for a leaf that is added."""
    shape_before: tuple[int, ...] | None = None
    """The shape before the change; None for what is no array."""
    shape: tuple[int, ...] | None = None
    """The shape after the change; None for what is no array."""
    dtype_before: str = ""
    """The dtype before the change, in short, such as f32."""
    dtype: str = ""
    """The dtype after the change."""
    differing: int | None = None
    """How many numbers differ; this and the next three are None where numbers were not compared."""
    relative: float | None = None
    """|after - before| / |before|, over the numbers that are finite in both; inf where all before is 0."""
    largest: float | None = None
    """The largest |after - before| of a number."""
    cosine: float | None = None
    """The cosine of the angle between both, as vectors; NaN where either is all zeros."""
    nonfinite_before: int = 0
    """How many numbers are NaN or inf before the change."""
    nonfinite: int = 0
    """How many numbers are NaN or inf after the change."""
    by_layer: tuple[float, ...] = ()
    """The relative size in each layer of a stack."""
    note: str = ""
    """What else there is to say: `exactly the rounding`, `= wte/weight`, why it cannot be read."""

    __module__ = "ptree.look"


def difference_of(before: Side, after: Side, tolerance: float) -> Difference | None:
    """The difference between a leaf before and after; None where it is the same in all but its name."""
    try:
        return _difference(before, after, tolerance)
    except UNREADABLE as error:
        return _row("unread", before, after, note=reason_of(error))


def _difference(before: Side, after: Side, tolerance: float) -> Difference | None:
    if UNKNOWN_DTYPE in (before.dtype, after.dtype):  # of a missing shard, a damaged leaf of an archive
        return _row("unread", before, after, note=_problem(before, after))
    if before.is_object or after.is_object:
        return _difference_of_objects(before, after)
    if before.shape != after.shape:
        return _difference_of_shapes(before, after, tolerance)
    has_numbers = not (before.info.is_declared or after.info.is_declared)
    if before.dtype != after.dtype:
        return _difference_of_dtypes(before, after) if has_numbers else _row("retyped", before, after)
    if not has_numbers:
        return None
    if _is_one_object(before, after):
        return None
    if before.info.problem or after.info.problem:
        return _row("unread", before, after, note=_problem(before, after))
    return _difference_of_numbers(before, after, tolerance)


def _is_one_object(before: Side, after: Side) -> bool:
    """Whether both trees share the leaf, which then need not be read."""
    if before.source.is_file or after.source.is_file:
        return False
    return before.source.value(before.path) is after.source.value(after.path)


def _problem(before: Side, after: Side) -> str:
    problem, new_problem = before.info.problem, after.info.problem
    if problem == new_problem:
        return problem
    parts = [f"before: {problem}" if problem else "", f"after: {new_problem}" if new_problem else ""]
    return "; ".join(part for part in parts if part)


def _row(
    kind: str, before: Side, after: Side, sizes: Sizes | None = None, *, by_layer: Sequence[float] = (), note: str = ""
) -> Difference:
    row = Difference(
        kind=kind,
        path=after.path,
        path_before=before.path,
        shape_before=before.shape,
        shape=after.shape,
        dtype_before=before.dtype,
        dtype=after.dtype,
        by_layer=tuple(by_layer),
        note=note,
    )
    return row if sizes is None else with_sizes(row, sizes)


def with_sizes(row: Difference, sizes: Sizes) -> Difference:
    """The row with the sizes of a change."""
    # of PRNG keys a size would say nothing, and where a number became NaN or inf the others may not have changed at all
    has_size = not is_key(row.dtype) and not (sizes.is_broken and not sizes.norm_change)
    return replace(
        row,
        differing=sizes.differing,
        relative=sizes.relative if has_size else None,
        largest=sizes.largest if has_size else None,
        cosine=sizes.cosine if has_size else None,
        nonfinite_before=sizes.nonfinite_before,
        nonfinite=sizes.nonfinite_after,
    )


# -------------------------------------------------------------------------- kinds of leaves


def _difference_of_objects(before: Side, after: Side) -> Difference | None:
    """The difference between two leaves of which one is a text, a function or another object."""
    if before.is_object and after.is_object:
        one, other = before.source.value(before.path), after.source.value(after.path)
        if one is other or _are_equal_objects(one, other):
            return None
        shown, new_shown = describe(one), describe(other)
        return _row(
            "changed", before, after, note=f"another {shown}" if shown == new_shown else f"{shown} -> {new_shown}"
        )
    return _row("retyped", before, after)


def _are_equal_objects(one: object, other: object) -> bool:
    try:
        return bool(one == other)
    except Exception:
        return False  # a class of someone else may refuse to be compared


def _difference_of_shapes(before: Side, after: Side, tolerance: float) -> Difference:
    can_be_read = not (before.info.problem or after.info.problem)
    order = axes_between(before, after) if can_be_read else None
    if order is None:
        is_same = can_be_read and _hold_the_same_numbers(before, after)
        return _row("reshaped", before, after, note="the same numbers" if is_same else "")
    return _transposed(before, after, order, change_through(before, after, order))


def _hold_the_same_numbers(before: Side, after: Side) -> bool:
    """Whether two leaves of other shapes are equal number by number, as attention heads that are split."""
    return before.dtype == after.dtype and before.info.count == after.info.count > 0 and are_equal(before, after)


def _transposed(before: Side, after: Side, order: tuple[int, ...], sizes: Sizes) -> Difference:
    is_plain = len(order) == 2
    return _row("transposed", before, after, sizes, note="" if is_plain else f"axes {order}")


def _difference_of_dtypes(before: Side, after: Side) -> Difference:
    if before.info.problem or after.info.problem:
        return _row("retyped", before, after, note=_problem(before, after))
    if before.is_key or after.is_key:
        return _row("retyped", before, after)
    sizes = change_of(before.chunks_to_compute(after), after.chunks_to_compute(before))
    if not sizes.differing:
        note = "the same numbers"
    elif sizes.is_rounding:
        note = "exactly the rounding"
    else:
        note = "more than the rounding"
    return _row("retyped", before, after, sizes, note=note)


def _difference_of_numbers(before: Side, after: Side, tolerance: float) -> Difference | None:
    if have_equal_checksums(before, after):
        return None
    if before.is_small and after.is_small:
        # read once, where a large leaf is read again from its start if it is not the same: half the time of 100,000 leaves
        one, other = before.read(), after.read()
        if have_equal_bytes(one, other):
            return None
        chunks = iter([one]), iter([other])
    elif are_equal(before, after):
        return None
    else:
        chunks = before.chunks_to_compute(after), after.chunks_to_compute(before)
    sizes, by_layer = _change(*chunks, after)
    if not sizes.differing:
        return None
    if sizes.is_within(tolerance):
        return _row(WITHIN, before, after, sizes)
    # not of every changed leaf, as a corner of both is read again
    order = axes_between(before, after) if abs(sizes.cosine) < _CLEARLY_ANOTHER else None
    if order is not None:
        through = change_through(before, after, order)
        if through.relative < sizes.relative:
            return _transposed(before, after, order, through)
    return _row("changed", before, after, sizes, by_layer=by_layer)


def _change(before: Iterator[np.ndarray], after: Iterator[np.ndarray], leaf: Side) -> tuple[Sizes, list[float]]:
    """The sizes of a change, and the relative size in each layer of a stack."""
    stacked = leaf.path.split("/").count(STACKED)
    shape = leaf.shape or ()
    if not 0 < stacked <= len(shape):
        return change_of(before, after), []
    layers = changes_by_layer(before, after, prod(shape[stacked:]))
    return reduce(add, layers, Sizes()), [layer.relative for layer in layers]


# ---------------------------------------------------------------------------------- stacks


def difference_of_stack(before: Source, after: Source, pair: StackPair, tolerance: float, verify: bool) -> Difference:
    """The difference between a stack and its layers, each of which is a leaf."""
    of_stack, of_layers = (before, after) if pair.is_before else (after, before)
    stack = Side(of_stack, pair.stack, verify)
    layers = {path: Side(of_layers, path, verify) for path in pair.layers}
    first = layers[pair.layers[0]]
    sides = (stack, first) if pair.is_before else (first, stack)
    names = (pair.stack, pair.name) if pair.is_before else (pair.name, pair.stack)
    row = replace(_row("restacked", *sides), path_before=names[0], path=names[1], note=f"{len(layers)} layers")
    layer_shape = tuple(size for axis, size in enumerate(stack.shape or ()) if axis not in pair.axes)
    problems = [side.info.problem for side in (stack, *layers.values()) if side.info.problem]
    if _are_declared(stack, *layers.values()):
        problems = []
    misfits = [layer for layer in layers.values() if layer.shape != layer_shape and not layer.info.problem]
    if misfits:
        return replace(row, note=f"another shape in {len(misfits)} of {len(layers)} layers")
    if problems:
        return replace(row, kind="unread", note=problems[0])
    if _are_declared(stack, *layers.values()):
        return row
    try:
        sizes = _changes_of_stack(stack, layers, pair)
    except UNREADABLE as error:
        return replace(row, kind="unread", note=reason_of(error))
    whole = reduce(add, sizes, Sizes())
    if not whole.differing:
        row = replace(row, note=f"{row.note}, the same numbers")
    by_layer = () if whole.is_within(tolerance) else tuple(size.relative for size in sizes)
    return replace(with_sizes(row, whole), by_layer=by_layer)


def _are_declared(*sides: Side) -> bool:
    return any(side.info.is_declared for side in sides)


def _changes_of_stack(stack: Side, layers: Mapping[str, Side], pair: StackPair) -> list[Sizes]:
    shape = stack.shape or ()
    stacked = stack.path.split("/").count(STACKED)
    single = chain.from_iterable(
        _chunks_of_layer(layers[path], index, stack) for path, index in pair.in_order(shape[:stacked])
    )
    whole = stack.chunks_to_compute(next(iter(layers.values())))
    chunks = (whole, single) if pair.is_before else (single, whole)
    sizes = changes_by_layer(*chunks, prod(shape[stacked:]))
    for layer in layers.values():
        if stacked > len(pair.axes):
            layer.check()  # apart, as its parts are not read in the order of the bytes
    return sizes


def _chunks_of_layer(layer: Side, index: tuple[int, ...], stack: Side) -> Iterator[np.ndarray]:
    """The numbers of a layer, or of a part of it where the layer is a stack itself."""
    if not index:
        return layer.chunks_to_compute(stack)
    rest = [slice(size) for size in (layer.shape or ())[len(index) :]]
    return iter([layer.block([*(slice(at, at + 1) for at in index), *rest]).reshape(-1)])


def relative_of_layer(row: Difference) -> float | None:
    """The relative size of a change as a bar shows it: NaN where only NaN or inf came, None where it is not known."""
    is_nonfinite = row.relative is None and row.nonfinite > row.nonfinite_before
    return math.nan if is_nonfinite else row.relative


def order_by_size(row: Difference) -> tuple[bool, float]:
    """The key by which differences are sorted: new NaN or inf first, then the largest relative size; last those without."""
    size = -1.0 if row.relative is None else row.relative
    return row.nonfinite <= row.nonfinite_before, -size
