"""Rules for erfc, which ONNX lacks, as rational functions that keep its relative precision where it is near 0; products, for GELU.

W. J. Cody, "Rational Chebyshev approximations for the error function", Math. Comp. 23 (1969), 631-637, with the coefficients of his
program CALERF (netlib, specfun).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .graph import Graph
from .translation import Equation, Translation, rule
from .values import Value

# The coefficients of polynomials, those of the highest powers first.
_ERF = (
    (
        1.85777706184603153e-1, 3.16112374387056560e0, 1.13864154151050156e2, 3.77485237685302021e2,
        3.20937758913846947e3,
    ),
    (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3),
)  # fmt: skip
"""erf(x) / x from x ** 2, up to `_SMALL`: numerator and denominator."""
_MIDDLE = (
    (
        2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594e0, 6.61191906371416295e1,
        2.98635138197400131e2, 8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3,
        1.23033935479799725e3,
    ),
    (
        1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3,
        3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3,
    ),
)  # fmt: skip
"""erfc(x) exp(x ** 2) from x, between `_SMALL` and `_LARGE`."""
_FAR = (
    (
        1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1, 1.25781726111229246e-1,
        1.60837851487422766e-2, 6.58749161529837803e-4,
    ),
    (
        1.0, 2.56852019228982242e0, 1.87295284992346725e0, 5.27905102951428412e-1, 6.05183413124413191e-2,
        2.33520497626869185e-3,
    ),
)  # fmt: skip
"""What x erfc(x) exp(x ** 2) lacks to 1 / sqrt(pi), times x ** 2, from 1 / x ** 2, above `_LARGE`."""
_SMALL, _LARGE = 0.46875, 4.0
_LAST = 30.0
"""Beyond it erfc is 0 or 2, also in float64."""


@rule("erfc")
def _erfc(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    (value,) = inputs
    graph, x = t.graph, t.graph.tensor(value)
    # 16 bits do not hold the coefficients
    dtype = value.dtype if value.dtype.itemsize >= 4 else np.dtype(np.float32)
    result = _complement(graph, x if dtype == value.dtype else graph.cast(x, dtype), dtype)
    result = result if dtype == value.dtype else graph.cast(result, value.dtype)
    t.erfc_of[result] = x
    return [Value(value.shape, value.dtype, result, value.tensor_shape)]


@rule("mul")
def _product(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    # GELU, a multiple of x erfc(-x / sqrt(2)), needs no relative precision: 1 - erf, as PyTorch has it, is several times faster
    factors = [_fast_erfc(t, value, other) for value, other in (inputs, inputs[::-1])]
    return [t.graph.elementwise("Mul", equation.outputs[0], *factors)]


def _fast_erfc(t: Translation, value: Value, other: Value) -> Value:
    """An erfc in the product of GELU as 1 - erf; any other value as it is."""
    graph, argument = t.graph, t.erfc_of.get(value.tensor)
    if argument is None or value.dtype == np.float64:  # ONNX Runtime's CPU has no erf in float64
        return value
    origin, factor = graph.multiple(argument)
    is_gelu = abs(abs(factor) - np.sqrt(0.5)) < 0.004 and graph.multiple(other.tensor)[0] == origin
    if not is_gelu:
        return value
    fast = graph.add("Sub", graph.number(1, value.dtype), graph.add("Erf", argument))
    return Value(value.shape, value.dtype, fast, value.tensor_shape)


def _complement(graph: Graph, x: str, dtype: np.dtype) -> str:
    """erfc of a tensor. Each comparison is false for NaN, which so goes through the last of the three functions."""
    x = _within(graph, x, dtype)
    size = graph.add("Abs", x)
    is_far = graph.add("Not", graph.add("LessOrEqual", size, graph.number(_LARGE, dtype)))
    scaled = graph.add("Where", is_far, _far(graph, size, is_far, dtype), _ratio(graph, _MIDDLE, size, dtype))
    above = graph.add("Mul", _exp_of_minus_square(graph, size, dtype), scaled)
    below = graph.add("Sub", graph.number(2, dtype), above)
    is_negative = graph.add("Less", x, graph.number(0, dtype))
    erf = graph.add("Mul", x, _ratio(graph, _ERF, graph.add("Mul", x, x), dtype))
    near = graph.add("Sub", graph.number(1, dtype), erf)
    is_small = graph.add("LessOrEqual", size, graph.number(_SMALL, dtype))
    return graph.add("Where", is_small, near, graph.add("Where", is_negative, below, above))


def _within(graph: Graph, x: str, dtype: np.dtype) -> str:
    """Numbers beyond `_LAST` as it, so that no power of them is infinite."""
    last, minus_last = graph.number(_LAST, dtype), graph.number(-_LAST, dtype)
    x = graph.add("Where", graph.add("Greater", x, last), last, x)
    return graph.add("Where", graph.add("Less", x, minus_last), minus_last, x)


def _far(graph: Graph, size: str, is_far: str, dtype: np.dtype) -> str:
    """erfc(x) exp(x ** 2) above `_LARGE`."""
    large = graph.add("Where", is_far, size, graph.number(_LARGE, dtype))
    inverse_square = graph.add("Div", graph.number(1, dtype), graph.add("Mul", large, large))
    lack = graph.add("Mul", inverse_square, _ratio(graph, _FAR, inverse_square, dtype))
    return graph.add("Div", graph.add("Sub", graph.number(1 / np.sqrt(np.pi), dtype), lack), large)


def _exp_of_minus_square(graph: Graph, x: str, dtype: np.dtype) -> str:
    """exp(-x ** 2) as a product: the square of a number of few digits is exact, and what it lacks is small."""
    sixteen = graph.number(16, dtype)
    near = graph.add("Div", graph.add("Floor", graph.add("Mul", x, sixteen)), sixteen)
    rest = graph.add("Mul", graph.add("Sub", x, near), graph.add("Add", x, near))
    first = graph.add("Exp", graph.add("Neg", graph.add("Mul", near, near)))
    return graph.add("Mul", first, graph.add("Exp", graph.add("Neg", rest)))


def _ratio(graph: Graph, rational: Sequence[Sequence[float]], x: str, dtype: np.dtype) -> str:
    numerator, denominator = (_polynomial(graph, coefficients, x, dtype) for coefficients in rational)
    return graph.add("Div", numerator, denominator)


def _polynomial(graph: Graph, coefficients: Sequence[float], x: str, dtype: np.dtype) -> str:
    result = graph.number(coefficients[0], dtype)
    for coefficient in coefficients[1:]:
        result = graph.add("Add", graph.add("Mul", result, x), graph.number(coefficient, dtype))
    return result
