"""Rules for functions that ONNX lacks, in forms that keep their relative precision: log1p, expm1, exp2, log2, cbrt, atan2."""

from __future__ import annotations

import numpy as np

from .graph import Graph
from .translation import Equation, Translation, rule
from .values import Value, broadcast_shape


def _like(x: Value, tensor: str) -> Value:
    return Value(x.shape, x.dtype, tensor, x.tensor_shape)


@rule("log1p")
def _log1p(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    # log(u) x / (u - 1) with u = 1 + x as rounded (Kahan; Goldberg 1991, theorem 4); x itself where u is 1
    (value,) = inputs
    graph, x = t.graph, t.graph.tensor(value)
    one = graph.number(1, value.dtype)
    u = graph.add("Add", x, one)
    log = graph.add("Log", u)
    difference = graph.add("Sub", u, one)
    is_small = graph.add("Equal", u, one)
    # infinity, and numbers so large that 1 is lost, are their own u: no quotient of infinities
    divisor = graph.add("Where", is_small, one, difference)
    ratio = graph.add("Where", graph.add("Equal", u, x), one, graph.add("Div", x, divisor))
    return [_like(value, graph.add("Where", is_small, x, graph.add("Mul", log, ratio)))]


@rule("expm1")
def _expm1(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    # tanh(x / 2) (exp(x) + 1), which loses no digits near 0 and is right at both infinities
    (value,) = inputs
    graph, x = t.graph, t.graph.tensor(value)
    half = graph.add("Tanh", graph.add("Mul", x, graph.number(0.5, value.dtype)))
    above = graph.add("Add", graph.add("Exp", x), graph.number(1, value.dtype))
    return [_like(value, graph.add("Mul", half, above))]


@rule("exp2")
def _exp2(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    (value,) = inputs
    two = t.graph.number(2, value.dtype)
    return [_like(value, t.graph.add("Pow", two, t.graph.tensor(value)))]


@rule("log2")
def _log2(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    # as JAX computes it, which has it as one equation from 0.12 on
    (value,) = inputs
    graph = t.graph
    log = graph.add("Log", graph.tensor(value))
    return [_like(value, graph.add("Mul", log, graph.number(1 / np.log(2), value.dtype)))]


@rule("cbrt")
def _cube_root(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    (value,) = inputs
    graph, x = t.graph, t.graph.tensor(value)
    root = graph.add("Pow", graph.add("Abs", x), graph.number(1 / 3, value.dtype))
    return [_like(value, graph.add("Mul", graph.add("Sign", x), root))]


@rule("atan2")
def _angle(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    graph, (y, x) = t.graph, map(t.graph.tensor, inputs)
    dtype, result = inputs[0].dtype, equation.outputs[0]
    zero, pi = graph.number(0, dtype), graph.number(np.pi, dtype)
    signs = graph.add("Mul", graph.add("Sign", y), graph.add("Sign", x))
    is_corner = graph.add("And", _is_infinite(graph, y, dtype), _is_infinite(graph, x, dtype))
    ratio = graph.add("Where", is_corner, signs, graph.add("Div", y, x))
    is_origin = graph.add("And", graph.add("Equal", y, zero), graph.add("Equal", x, zero))
    angle = graph.add("Atan", graph.add("Where", is_origin, zero, ratio))
    half_turn = graph.add("Where", _is_negative(graph, y, zero, dtype), graph.add("Neg", pi), pi)
    is_left = _is_negative(graph, x, zero, dtype)
    angle = graph.add("Where", is_left, graph.add("Add", angle, half_turn), angle)
    shape = broadcast_shape([value.tensor_shape for value in inputs])
    return [graph.value(angle, result, shape)]


def _is_negative(graph: Graph, x: str, zero: str, dtype: np.dtype) -> str:
    """Whether the sign of a number is set, also that of -0, whose reciprocal is -inf."""
    reciprocal = graph.add("Div", graph.number(1, dtype), x)
    return graph.add("Less", graph.add("Where", graph.add("Equal", x, zero), reciprocal, x), zero)


def _is_infinite(graph: Graph, x: str, dtype: np.dtype) -> str:
    return graph.add("Equal", graph.add("Abs", x), graph.number(np.inf, dtype))  # IsInf has no float16 before opset 20
