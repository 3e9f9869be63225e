"""Rules for reductions: sums, products, extremes, truth of all or any, places of extremes, cumulative forms.

ONNX leaves open whether the maximum of NaN and numbers is NaN, as it is in JAX; in ONNX Runtime over an axis it is not.
"""

from __future__ import annotations

import numpy as np

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
        reduced = t.graph.typed(
            op, x.dtype, x.dtype, t.graph.full(x), along, uncast=(along,), attributes={"keepdims": 0}
        )
        return [t.graph.value(reduced, result)]

    return translate


for _primitive, _op in _REDUCTIONS.items():
    rule(_primitive)(_reduction(_op))


@rule("argmax", "argmin")
def _place_of_extreme(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    (x,) = inputs
    result = equation.outputs[0]
    op = "ArgMax" if equation.name == "argmax" else "ArgMin"
    (axis,) = equation.options["axes"]
    place = t.graph.typed(
        op, x.dtype, np.dtype(np.int64), t.graph.full(x), attributes={"axis": int(axis), "keepdims": 0}
    )
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
