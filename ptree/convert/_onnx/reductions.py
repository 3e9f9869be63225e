"""Rules for reductions: sums, products, extremes, truth of all or any, places of extremes, cumulative forms."""

from __future__ import annotations

import numpy as np
from jax.extend.core import JaxprEqn

from .translation import NoOnnxForm, Rule, Translation, rule
from .values import Value

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
    def translate(t: Translation, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
        (x,) = inputs
        aval = equation.outvars[0].aval
        axes = equation.params["axes"]
        if not axes:  # to ONNX no axes are all
            return [x]
        if x.dtype != np.bool_ and equation.primitive.name in ("reduce_and", "reduce_or"):
            raise NoOnnxForm("the bits of integers")
        along = t.graph.numbers(axes)
        reduced = t.graph.typed(op, x.dtype, x.dtype, t.graph.full(x), along, uncast=(along,), keepdims=0)
        return [t.graph.value(reduced, aval)]

    return translate


for _primitive, _op in _REDUCTIONS.items():
    rule(_primitive)(_reduction(_op))


@rule("argmax", "argmin")
def _place_of_extreme(t: Translation, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
    (x,) = inputs
    aval = equation.outvars[0].aval
    op = "ArgMax" if equation.primitive.name == "argmax" else "ArgMin"
    (axis,) = equation.params["axes"]
    place = t.graph.typed(op, x.dtype, np.dtype(np.int64), t.graph.full(x), axis=int(axis), keepdims=0)
    return [t.graph.value(t.graph.cast(place, aval.dtype), aval)]


@rule("cumsum")
def _cumulative_sum(t: Translation, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
    (x,) = inputs
    axis = t.graph.number(equation.params["axis"], np.int64)
    reverse = int(equation.params["reverse"])
    total = t.graph.typed("CumSum", x.dtype, x.dtype, t.graph.full(x), axis, uncast=(axis,), reverse=reverse)
    return [t.graph.value(total, equation.outvars[0].aval)]


def _cumulative(op: str) -> Rule:
    def translate(t: Translation, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
        (x,) = inputs
        axis, reverse = equation.params["axis"], int(equation.params["reverse"])
        graph = t.graph
        row_shape = x.shape[:axis] + x.shape[axis + 1 :]
        start = graph.add("Expand", graph.number(_neutral(op, x.dtype), x.dtype), graph.sizes(row_shape))
        with graph.body() as body:
            total = graph.add_body_input("total", row_shape, x.dtype)
            row = graph.add_body_input("row", row_shape, x.dtype)
            new = graph.elementwise(op, total, total, row)
            graph.add_body_output(new)
            graph.add_body_output(new)
        directions = {"scan_input_directions": [reverse], "scan_output_directions": [reverse]}
        axes = {"scan_input_axes": [axis], "scan_output_axes": [axis]}
        _, all_totals = graph.add_many("Scan", 2, start, graph.full(x), body=body, num_scan_inputs=1, **directions, **axes)
        return [graph.value(all_totals, equation.outvars[0].aval)]

    return translate


def _neutral(op: str, dtype: np.dtype) -> float:
    if op == "Mul":
        return 1
    if dtype.kind in "iu":
        about = np.iinfo(dtype)
        return about.min if op == "Max" else about.max
    return -np.inf if op == "Max" else np.inf


for _primitive, _op in _CUMULATIVE.items():
    rule(_primitive)(_cumulative(_op))
