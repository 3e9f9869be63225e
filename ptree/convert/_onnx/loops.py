"""Rules for loops and branches: scan as ONNX's Scan or Loop, while as Loop, cond and switch as If."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jax.extend.core import ClosedJaxpr

from ..._jaxprs import scan_counts
from .graph import Graph
from .slices import reversed_along
from .translation import Equation, Translation, constant_value, rule
from .values import ArrayType, Shaped, Size, Value, same_size

_BOOL = np.dtype(bool)
_INT = np.dtype(np.int64)


@rule("scan")
def _scan(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    options = equation.options
    same, carried = scan_counts(options)
    fixed, first, rows = inputs[:same], inputs[same : same + carried], inputs[same + carried :]
    results = equation.outputs
    if same_size(options["length"], 0):
        return [*first, *(constant_value(np.zeros(result.shape, result.dtype)) for result in results[carried:])]
    if not rows:
        return _counted_loop(t, options["jaxpr"], fixed, first, options["length"], results, bool(options["reverse"]))
    graph = t.graph
    with graph.body() as body:
        states = [graph.add_body_input("state", value.shape, value.dtype) for value in first]
        row_of = [graph.add_body_input("row", value.shape[1:], value.dtype) for value in rows]
        for value in t.run_closed(options["jaxpr"], [*fixed, *states, *row_of]):
            graph.add_body_output(value)
    direction = int(options["reverse"])
    directions = {"scan_input_directions": [direction] * len(rows)}
    if len(results) > carried:
        directions["scan_output_directions"] = [direction] * (len(results) - carried)
    operands = [graph.full(value) for value in (*first, *rows)]
    outputs = graph.add_many("Scan", len(results), *operands, body=body, num_scan_inputs=len(rows), **directions)
    return [graph.value(output, result) for output, result in zip(outputs, results)]


def _counted_loop(
    t: Translation,
    step: ClosedJaxpr,
    fixed: Sequence[Value],
    first: Sequence[Value],
    length: Size,
    results: Sequence[Shaped],
    is_reversed: bool,
) -> list[Value]:
    """A scan over nothing, which repeats its body."""
    graph = t.graph
    with graph.body() as body:
        graph.add_body_input("iteration", (), _INT)
        graph.add_body_input("goes_on", (), _BOOL)
        states = [graph.add_body_input("state", value.shape, value.dtype) for value in first]
        graph.add_body_output(constant_value(np.asarray(True)))
        for value in t.run_closed(step, [*fixed, *states]):
            graph.add_body_output(value)
    operands = [graph.scalar(length), graph.number(True, bool), *map(graph.full, first)]
    outputs = list(graph.add_many("Loop", len(results), *operands, body=body))
    if is_reversed:
        stacked = [reversed_along(graph, output, [0]) for output in outputs[len(first) :]]
        outputs = outputs[: len(first)] + stacked
    return [graph.value(output, result) for output, result in zip(outputs, results)]


@rule("while")
def _while(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    options, graph = equation.options, t.graph
    for_condition, for_body = options["cond_nconsts"], options["body_nconsts"]
    of_condition, of_body = inputs[:for_condition], inputs[for_condition : for_condition + for_body]
    first = inputs[for_condition + for_body :]
    (starts,) = t.run_closed(options["cond_jaxpr"], [*of_condition, *first])
    with graph.body() as body:
        graph.add_body_input("iteration", (), _INT)
        graph.add_body_input("goes_on", (), _BOOL)
        states = [graph.add_body_input("state", value.shape, value.dtype) for value in first]
        new = t.run_closed(options["body_jaxpr"], [*of_body, *states])
        if starts.shape:  # of a loop under `vmap`: each row goes on by itself
            (goes_on,) = t.run_closed(options["cond_jaxpr"], [*of_condition, *states])
            new = [_where_rows(graph, goes_on, value, old) for value, old in zip(new, states)]
        (goes_on,) = t.run_closed(options["cond_jaxpr"], [*of_condition, *new])
        graph.add_body_output(_any(graph, goes_on))
        for value in new:
            graph.add_body_output(value)
    operands = ["", graph.full(_any(graph, starts)), *map(graph.full, first)]  # no bound of the number of iterations
    outputs = graph.add_many("Loop", len(first), *operands, body=body)
    return [graph.value(output, about) for output, about in zip(outputs, equation.outputs)]


def _any(graph: Graph, truth: Value) -> Value:
    """Whether any row goes on."""
    if not truth.shape:
        return truth
    axes = graph.numbers(range(len(truth.shape)))
    reduced = graph.typed(
        "ReduceMax", _BOOL, _BOOL, graph.full(truth), axes, uncast=(axes,), attributes={"keepdims": 0}
    )
    return graph.value(reduced, ArrayType((), _BOOL))


def _where_rows(graph: Graph, truth: Value, new: Value, old: Value) -> Value:
    """The new value in rows that go on, and the old one in the others."""
    rows = graph.unsqueeze(graph.full(truth), list(range(len(truth.shape), len(new.shape))))
    if new.dtype == _BOOL:
        kept = graph.add("And", graph.add("Not", rows), graph.full(old))
        return graph.value(graph.add("Or", graph.add("And", rows, graph.full(new)), kept), new)
    chosen = graph.typed("Where", new.dtype, new.dtype, rows, graph.full(new), graph.full(old), uncast=(rows,))
    return graph.value(chosen, new)


@rule("cond")
def _branch(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    index, *operands = inputs
    branches = equation.options["branches"]
    if index.constant is not None:
        chosen = min(max(int(index.constant), 0), len(branches) - 1)
        return t.run_closed(branches[chosen], operands)
    return _switch(t, index, branches, 0, operands)


def _switch(
    t: Translation, index: Value, branches: Sequence[ClosedJaxpr], number: int, operands: Sequence[Value]
) -> list[Value]:
    """The branch of an index that is at least `number`, as nested Ifs."""
    if number == len(branches) - 1:
        return t.run_closed(branches[number], operands)
    graph = t.graph
    is_this = graph.add("LessOrEqual", graph.full(index), graph.number(number, index.dtype))
    with graph.body(is_branch=True) as this:
        for value in t.run_closed(branches[number], operands):
            graph.add_body_output(value)
    with graph.body(is_branch=True) as others:
        for value in _switch(t, index, branches, number + 1, operands):
            graph.add_body_output(value)
    results = branches[number].out_avals
    outputs = graph.add_many("If", len(results), is_this, then_branch=this, else_branch=others)
    return [graph.value(output, result) for output, result in zip(outputs, results)]
