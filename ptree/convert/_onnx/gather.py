"""Rule for gather: rows of a table by Gather, blocks at computed places by GatherND."""

from __future__ import annotations

import jax
import numpy as np

from .graph import Graph
from .indices import Places, axis_index, index_tensor, places_of
from .translation import Equation, Translation, rule
from .values import Value


@rule("gather")
def _gather(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    array, indices = inputs
    result, options = equation.outputs[0], equation.options
    numbers = options["dimension_numbers"]
    batch_axes = dict(zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims))
    collapsed = numbers.collapsed_slice_dims
    sizes = {axis: size for axis, size in enumerate(options["slice_sizes"]) if axis not in batch_axes}
    fills = options["mode"] == jax.lax.GatherScatterMode.FILL_OR_DROP
    places = places_of(t, array.shape, indices, numbers.start_index_map, batch_axes, collapsed, sizes, checks=fills)

    tensor, order = _blocks(t, t.graph.full(array), places)
    # The result has the axes of the blocks, in the order of the array, at `offset_dims`, and the batch at the others.
    offsets = sorted(int(axis) for axis in numbers.offset_dims)
    block_axes = [axis for axis in range(len(array.shape)) if axis not in collapsed and axis not in batch_axes]
    wanted = [-1 - at for at in range(len(places.batch))]
    for at, axis in zip(offsets, block_axes):
        wanted.insert(at, axis)
    tensor = t.graph.transpose(tensor, [order.index(axis) for axis in wanted])
    if places.valid:
        valid = t.graph.unsqueeze(places.valid, offsets)
        tensor = _filled(t.graph, tensor, valid, options["fill_value"], result.dtype)
    return [t.graph.value(tensor, result)]


def _blocks(t: Translation, tensor: str, places: Places) -> tuple[str, list[int]]:
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


def _filled(graph: Graph, tensor: str, valid: str, value: float | None, dtype: np.dtype) -> str:
    """The blocks, with a value in the place of those that lie outside of the array."""
    if dtype == np.bool_:  # for which ONNX Runtime has no Where
        is_true = value is None or bool(value)
        return graph.add("Or", graph.add("Not", valid), tensor) if is_true else graph.add("And", valid, tensor)
    filling = graph.number(_default_filling(dtype) if value is None else value, dtype)
    return graph.typed("Where", dtype, dtype, valid, tensor, filling, uncast=(valid,))


def _default_filling(dtype: np.dtype) -> float:
    """What JAX reads outside of an array: NaN, or the most extreme integer."""
    if dtype.kind == "i":
        return np.iinfo(dtype).min
    return np.iinfo(dtype).max if dtype.kind == "u" else np.nan
