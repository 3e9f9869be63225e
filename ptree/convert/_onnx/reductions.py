"""Rules for reductions: sums, products, extremes, truth of all or any, places of extremes, cumulative forms."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from .graph import Graph
from .translation import Equation, NoOnnxFormError, Rule, Translation, rule
from .values import Value, identity_element

_REDUCTIONS = {
    "reduce_sum": "ReduceSum",
    "reduce_max": "ReduceMax",
    "reduce_min": "ReduceMin",
    "reduce_prod": "ReduceProd",
    "reduce_and": "ReduceMin",
    "reduce_or": "ReduceMax",
}
_CUMULATIVE = {"cumprod": "Mul", "cummax": "Max", "cummin": "Min"}


def _reduction(op: str) -> Rule:
    def translate(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
        (x,) = inputs
        result = equation.outputs[0]
        axes = equation.options["axes"]
        if not axes:  # to ONNX no axes are all
            return [x]
        if x.dtype != np.bool_ and equation.name in ("reduce_and", "reduce_or"):
            raise NoOnnxFormError("the bits of integers")
        along = t.graph.numbers(axes)
        tensor = t.graph.full(x)
        reduced = t.graph.typed(op, x.dtype, x.dtype, tensor, along, uncast=(along,), attributes={"keepdims": 0})
        if equation.name in ("reduce_max", "reduce_min") and _may_be_nan(x):
            reduced = _nan_where(t.graph, _has_nan(t.graph, tensor, along), reduced, x.dtype)
        return [t.graph.value(reduced, result)]

    return translate


def _may_be_nan(x: Value) -> bool:
    return jnp.issubdtype(x.dtype, np.floating)


def _has_nan(graph: Graph, tensor: str, along: str) -> str:
    """Whether there is a NaN along these axes.

    ONNX leaves open whether the maximum of NaN and numbers is NaN; in ONNX Runtime it is not. In JAX it is. On one core of
    a CPU softmax of 256 numbers takes 1.4 times as long for it, and attention of 12 heads of 64 1.04 times.
    """
    ones = graph.cast(graph.add("IsNaN", tensor), np.float32)
    count = graph.add(
        "ReduceSum", ones, along, keepdims=0
    )  # of an empty axis 0, where a maximum would be the lowest number
    return graph.cast(count, bool)


def _nan_where(graph: Graph, has_nan: str, tensor: str, dtype: np.dtype) -> str:
    return graph.add("Where", has_nan, graph.number(np.nan, dtype), tensor)


for _primitive, _op in _REDUCTIONS.items():
    rule(_primitive)(_reduction(_op))


@rule("argmax", "argmin")
def _place_of_extreme(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    (x,) = inputs
    result = equation.outputs[0]
    op = "ArgMax" if equation.name == "argmax" else "ArgMin"
    (axis,) = equation.options["axes"]
    attributes = {"axis": int(axis), "keepdims": 0}
    tensor = t.graph.full(x)
    place = t.graph.typed(op, x.dtype, np.dtype(np.int64), tensor, attributes=attributes)
    if _may_be_nan(x):
        ones = t.graph.cast(t.graph.add("IsNaN", tensor), np.float32)
        first_nan = t.graph.add("ArgMax", ones, **attributes)
        has_nan = _has_nan(t.graph, tensor, t.graph.numbers([axis]))
        place = t.graph.add("Where", has_nan, first_nan, place)
    return [t.graph.value(t.graph.cast(place, result.dtype), result)]


@rule("cumsum")
def _cumulative_sum(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    (x,) = inputs
    axis = t.graph.number(equation.options["axis"], np.int64)
    reverse = int(equation.options["reverse"])
    total = t.graph.typed(
        "CumSum", x.dtype, x.dtype, t.graph.full(x), axis, uncast=(axis,), attributes={"reverse": reverse}
    )
    return [t.graph.value(total, equation.outputs[0])]


def _cumulative(op: str) -> Rule:
    def translate(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
        (x,) = inputs
        axis, reverse = equation.options["axis"], int(equation.options["reverse"])
        graph = t.graph
        row_shape = x.shape[:axis] + x.shape[axis + 1 :]
        start = graph.add(
            "Expand", graph.number(identity_element(op.lower(), x.dtype), x.dtype), graph.sizes(row_shape)
        )
        with graph.body() as body:
            total = graph.add_body_input("total", row_shape, x.dtype)
            row = graph.add_body_input("row", row_shape, x.dtype)
            new = graph.elementwise(op, total, total, row)
            graph.add_body_output(new)
            graph.add_body_output(new)
        directions = {"scan_input_directions": [reverse], "scan_output_directions": [reverse]}
        axes = {"scan_input_axes": [axis], "scan_output_axes": [axis]}
        _, all_totals = graph.add_many(
            "Scan", 2, start, graph.full(x), body=body, num_scan_inputs=1, **directions, **axes
        )
        return [graph.value(all_totals, equation.outputs[0])]

    return translate


for _primitive, _op in _CUMULATIVE.items():
    rule(_primitive)(_cumulative(_op))
