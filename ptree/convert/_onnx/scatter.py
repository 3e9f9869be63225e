"""Rules for scatter: write, add, multiply or compare blocks at computed places by ScatterND."""

from __future__ import annotations

import jax
import numpy as np

from .indices import Places, index_tensor, places_of
from .translation import Equation, NoOnnxFormError, Rule, Translation, rule
from .values import Size, Value

_REDUCTIONS = {
    "scatter": "none",
    "scatter-add": "add",
    "scatter_add": "add",
    "scatter-mul": "mul",
    "scatter_mul": "mul",
    "scatter-max": "max",
    "scatter_max": "max",
    "scatter-min": "min",
    "scatter_min": "min",
}


def _scatter(reduction: str) -> Rule:
    def translate(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
        return _written(t, equation, inputs, reduction)

    return translate


def _written(t: Translation, equation: Equation, inputs: list[Value], reduction: str) -> list[Value]:
    array, indices, updates = inputs
    graph, options = t.graph, equation.options
    numbers = options["dimension_numbers"]
    if reduction == "none" and options.get("update_jaxpr") is not None:
        raise NoOnnxFormError("a function that combines old and new values")
    batch_axes = dict(zip(map(int, numbers.operand_batching_dims), map(int, numbers.scatter_indices_batching_dims)))
    collapsed = [int(axis) for axis in numbers.inserted_window_dims]
    block_axes = [axis for axis in range(len(array.shape)) if axis not in collapsed and axis not in batch_axes]
    in_updates = [int(axis) for axis in numbers.update_window_dims]
    sizes: dict[int, Size] = dict.fromkeys(collapsed, 1)
    sizes.update((axis, updates.shape[at]) for axis, at in zip(block_axes, in_updates))
    drops = options["mode"] == jax.lax.GatherScatterMode.FILL_OR_DROP
    along = numbers.scatter_dims_to_operand_dims
    places = places_of(t, array.shape, indices, along, batch_axes, collapsed, sizes, checks=drops)

    batch_in_updates = [axis for axis in range(len(updates.shape)) if axis not in in_updates]
    place_of = dict(zip(block_axes, in_updates))
    order = [*batch_in_updates, *(place_of[axis] for axis in (*places.windows, *places.whole))]
    new = graph.transpose(graph.full(updates), order)
    if not places.indexed:
        return [_combined_whole(t, array, new, places, reduction)]
    permutation = (*places.indexed, *places.whole)
    old = graph.transpose(graph.full(array), permutation)
    result = _scattered(t, old, new, places, reduction, array.dtype)
    back = graph.transpose(result, np.argsort(permutation).tolist())
    return [graph.value(back, equation.outputs[0])]


def _combined_whole(t: Translation, array: Value, new: str, places: Places, reduction: str) -> Value:
    """The whole array combined with one block of its size, as `x.at[:].add(y)` writes it."""
    if places.batch:
        raise NoOnnxFormError("several blocks of the size of the array")
    graph = t.graph
    tensor = new
    if reduction != "none":
        tensor = graph.typed(reduction.capitalize(), array.dtype, array.dtype, graph.full(array), new)
    if places.valid:
        valid = places.valid
        tensor = graph.typed("Where", array.dtype, array.dtype, valid, tensor, graph.full(array), uncast=(valid,))
    return graph.value(tensor, array)


def _scattered(t: Translation, old: str, new: str, places: Places, reduction: str, dtype: np.dtype) -> str:
    graph = t.graph
    starts = dict(places.starts)
    first = places.indexed[0]
    drops = bool(places.valid)
    if drops:
        # what lies outside is written into rows after the last, which are cut off again
        extra = places.sizes.get(first, 1)
        sides = graph.sizes([0] * len(places.shape) + [extra] + [0] * (len(places.shape) - 1))
        old = graph.typed("Pad", dtype, dtype, old, sides, graph.number(0, dtype), uncast=(sides,))
        size = graph.reshape(graph.size(places.shape[first]), (1,), ())
        starts[first] = graph.add("Where", places.valid, starts.get(first, graph.number(0, np.int64)), size)
    attributes = {} if reduction == "none" else {"reduction": reduction}
    result = graph.add("ScatterND", old, index_tensor(t, places, starts), new, **attributes)
    if not drops:
        return result
    return graph.add("Slice", result, graph.numbers([0]), graph.size(places.shape[first]), graph.numbers([0]))


for _primitive, _reduction in _REDUCTIONS.items():
    rule(_primitive)(_scatter(_reduction))
