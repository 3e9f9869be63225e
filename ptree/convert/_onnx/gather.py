"""Rule for gather: rows of a table by Gather, blocks at computed places by GatherND."""

from __future__ import annotations

import jax
import numpy as np
from jax.extend.core import JaxprEqn

from .indices import Places, axis_index, index_tensor, places_of
from .translation import Translation, rule
from .values import Value


@rule("gather")
def _gather(t: Translation, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
    array, indices = inputs
    aval, options = equation.outvars[0].aval, equation.params
    numbers = options["dimension_numbers"]
    batch_axes = dict(zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims))
    collapsed = numbers.collapsed_slice_dims
    sizes = {axis: size for axis, size in enumerate(options["slice_sizes"]) if axis not in batch_axes}
    fills = options["mode"] == jax.lax.GatherScatterMode.FILL_OR_DROP
    places = places_of(t, array.shape, indices, numbers.start_index_map, batch_axes, collapsed, sizes, checks=fills)

    tensor, order = _read(t, t.graph.full(array), places)
    # The axes of the result: those of blocks at `offset_dims`, in the order of the array; the batch at the others.
    block_axes = [axis for axis in range(len(array.shape)) if axis not in collapsed and axis not in batch_axes]
    offsets = [int(axis) for axis in numbers.offset_dims]
    rest = iter(range(len(places.batch)))
    wanted = [block_axes[offsets.index(at)] if at in offsets else -1 - next(rest) for at in range(len(aval.shape))]
    tensor = t.graph.transpose(tensor, [order.index(axis) for axis in wanted])
    if places.valid:
        valid = t.graph.unsqueeze(places.valid, sorted(offsets))
        filling = t.graph.number(_filling(options["fill_value"], aval.dtype), aval.dtype)
        if aval.dtype == np.bool_:
            is_set = t.graph.add("And", valid, tensor) if not options["fill_value"] else t.graph.add("Or", t.graph.add("Not", valid), tensor)
            return [t.graph.value(is_set, aval)]
        tensor = t.graph.typed("Where", aval.dtype, aval.dtype, valid, tensor, filling, uncast=(valid,))
    return [t.graph.value(tensor, aval)]


def _read(t: Translation, tensor: str, places: Places) -> tuple[str, list[int]]:
    """The blocks, and what each axis is: an axis of the array, or -1 - n for the nth axis of the batch."""
    graph = t.graph
    batch = [-1 - at for at in range(len(places.batch))]
    whole = list(places.whole)
    if not places.indexed:  # each block is the whole array
        expanded = graph.add("Expand", tensor, graph.sizes((*places.batch, *places.shape)))
        return expanded, [*batch, *whole]
    if len(places.indexed) == 1:  # a table's rows
        (axis,) = places.indexed
        rows = graph.add("Gather", tensor, axis_index(t, places, axis, places.starts), axis=axis)
        return rows, [*range(axis), *batch, *places.windows, *range(axis + 1, len(places.shape))]
    in_front = graph.transpose(tensor, (*places.indexed, *whole))
    blocks = graph.add("GatherND", in_front, index_tensor(t, places, places.starts))
    return blocks, [*batch, *places.windows, *whole]


def _filling(value: float | None, dtype: np.dtype) -> float:
    """What is read outside of the array: JAX's NaN, or the most extreme integer."""
    if value is not None:
        return value
    if dtype.kind in "iu":
        about = np.iinfo(dtype)
        return about.max if dtype.kind == "u" else about.min
    return np.nan if dtype.kind != "b" else 1
