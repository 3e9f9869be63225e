"""Rules for elementwise primitives: arithmetic, comparisons, logic, selection."""

from __future__ import annotations

import jax
import numpy as np

from .translation import Equation, Rule, Translation, constant_value, rule
from .values import Shaped, Value, broadcast_shape

_SAME_MEANING = {
    "add": "Add",
    "add_any": "Add",
    "sub": "Sub",
    "div": "Div",
    "max": "Max",
    "min": "Min",
    "neg": "Neg",
    "sign": "Sign",
    "abs": "Abs",
    "floor": "Floor",
    "ceil": "Ceil",
    "exp": "Exp",
    "log": "Log",
    "tanh": "Tanh",
    "logistic": "Sigmoid",
    "sqrt": "Sqrt",
    "sin": "Sin",
    "cos": "Cos",
    "tan": "Tan",
    "asin": "Asin",
    "acos": "Acos",
    "atan": "Atan",
    "sinh": "Sinh",
    "cosh": "Cosh",
    "asinh": "Asinh",
    "acosh": "Acosh",
    "atanh": "Atanh",
    "erf": "Erf",
    "pow": "Pow",
    "eq": "Equal",
    "lt": "Less",
    "le": "LessOrEqual",
    "gt": "Greater",
    "ge": "GreaterOrEqual",
    # in the total order, which differs for NaN alone
    "eq_to": "Equal",
    "lt_to": "Less",
    "le_to": "LessOrEqual",
}
"""Primitive -> the ONNX operation that computes the same."""
_LOGIC = {
    "and": ("And", "BitwiseAnd"),
    "or": ("Or", "BitwiseOr"),
    "xor": ("Xor", "BitwiseXor"),
    "not": ("Not", "BitwiseNot"),
}
"""Primitive -> the ONNX operation for truth values, and the one for the bits of integers."""
_IDENTITIES = (
    "copy", "copy_p", "stop_gradient", "optimization_barrier", "sharding_constraint", "layout_constraint", "name", "pvary",
    "mesh_cast", "reshard",
)  # fmt: skip
"""Primitives that return what they are given."""


def _same_meaning(op: str) -> Rule:
    def translate(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
        return [t.graph.elementwise(op, equation.outputs[0], *inputs)]

    return translate


def _logic(truth: str, bits: str) -> Rule:
    def translate(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
        op = truth if inputs[0].dtype == np.bool_ else bits
        return [t.graph.elementwise(op, equation.outputs[0], *inputs)]

    return translate


for _primitive, _op in _SAME_MEANING.items():
    rule(_primitive)(_same_meaning(_op))
for _primitive, _ops in _LOGIC.items():
    rule(_primitive)(_logic(*_ops))


@rule(*_IDENTITIES)
def _identity(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    return inputs


@rule("ne")
def _not_equal(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    result = equation.outputs[0]
    return [t.graph.map(t.graph.elementwise("Equal", result, *inputs), result, "Not")]


@rule("square")
def _square(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    return [t.graph.elementwise("Mul", equation.outputs[0], inputs[0], inputs[0])]


@rule("one_minus_square")
def _one_minus_square(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    # (1 + x) (1 - x), as in JAX, which has it from 0.12 on for derivatives of tanh and the like: near 1 it keeps its digits
    (x,) = inputs
    result = equation.outputs[0]
    one = constant_value(np.asarray(1, x.dtype))
    above, below = (t.graph.elementwise(op, result, one, x) for op in ("Add", "Sub"))
    return [t.graph.elementwise("Mul", result, above, below)]


@rule("polynomial")
def _polynomial(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    # by Horner's scheme, as in JAX, which has it as one equation from 0.12 on; the coefficient of the highest power is the last
    x, *lower, highest = inputs
    graph, result = t.graph, equation.outputs[0]
    value = graph.value(graph.tensor(highest), result, highest.tensor_shape)
    for coefficient in reversed(lower):
        value = graph.elementwise("Add", result, graph.elementwise("Mul", result, value, x), coefficient)
    return [value]


@rule("rsqrt")
def _inverse_root(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    return [t.graph.map(inputs[0], equation.outputs[0], "Sqrt", "Reciprocal")]


@rule("is_finite")
def _is_finite(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    result = equation.outputs[0]
    size = t.graph.map(inputs[0], inputs[0], "Abs")
    infinity = t.graph.number(np.inf, inputs[0].dtype)
    return [t.graph.value(t.graph.add("Less", size.tensor, infinity), result, size.tensor_shape)]


@rule("integer_pow")
def _integer_power(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    (x,) = inputs
    result, power = equation.outputs[0], equation.options["y"]
    if power == 2:
        return [t.graph.elementwise("Mul", result, x, x)]
    if power == -1:
        return [t.graph.map(x, result, "Reciprocal")]
    exponent = t.graph.number(power, x.dtype)
    return [t.graph.value(t.graph.typed("Pow", x.dtype, x.dtype, t.graph.tensor(x), exponent), result, x.tensor_shape)]


@rule("rem")
def _remainder(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    # fmod=1: the sign of the dividend, as in C and in JAX
    return [t.graph.elementwise("Mod", equation.outputs[0], *inputs, fmod=1)]


@rule("clamp")
def _clamp(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    low, x, high = inputs
    raised = t.graph.elementwise("Max", x, x, low)
    return [t.graph.elementwise("Min", equation.outputs[0], raised, high)]


@rule("round")
def _round(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    (x,) = inputs
    result = equation.outputs[0]
    if equation.options["rounding_method"] == jax.lax.RoundingMethod.TO_NEAREST_EVEN:
        return [t.graph.map(x, result, "Round")]
    # Halves away from zero. Not floor(|x| + 0.5): the sum rounds up below a half too.
    graph = t.graph
    size = graph.add("Abs", graph.tensor(x))
    below = graph.add("Floor", size)
    is_half = graph.add("GreaterOrEqual", graph.add("Sub", size, below), graph.number(0.5, x.dtype))
    rounded = graph.add("Add", below, graph.cast(is_half, x.dtype))
    return [graph.value(graph.add("Mul", graph.add("Sign", graph.tensor(x)), rounded), result, x.tensor_shape)]


@rule("select_n")
def _select(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    which, *cases = inputs
    result = equation.outputs[0]
    if which.dtype == np.bool_:
        return [_where(t, which, cases[1], cases[0], result)]
    chosen = cases[0]
    for number, case in enumerate(cases[1:], 1):
        is_this = t.graph.add("Equal", t.graph.tensor(which), t.graph.number(number, which.dtype))
        condition = Value(which.shape, np.dtype(bool), is_this, which.tensor_shape)
        chosen = _where(t, condition, case, chosen, result)
    return [chosen]


def _where(t: Translation, condition: Value, if_true: Value, if_false: Value, result: Shaped) -> Value:
    graph = t.graph
    shape = broadcast_shape([condition.tensor_shape, if_true.tensor_shape, if_false.tensor_shape])
    is_true, a, b = map(graph.tensor, (condition, if_true, if_false))
    if result.dtype == np.bool_:
        either = graph.add("Or", graph.add("And", is_true, a), graph.add("And", graph.add("Not", is_true), b))
        return graph.value(either, result, shape)
    chosen = graph.typed("Where", result.dtype, result.dtype, is_true, a, b, uncast=(is_true,))
    return graph.value(chosen, result, shape)


@rule("shift_left", "shift_right_logical")
def _shift(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    x, places = inputs
    result = equation.outputs[0]
    # before version 28 ONNX shifts unsigned integers only, in which the bits are the same
    unsigned = np.dtype(f"uint{8 * x.dtype.itemsize}")
    direction = "LEFT" if equation.name == "shift_left" else "RIGHT"
    operands = [t.graph.cast(t.graph.tensor(value), unsigned) for value in (x, places)]
    shifted = t.graph.add("BitShift", *operands, direction=direction)
    shape = broadcast_shape([x.tensor_shape, places.tensor_shape])
    return [t.graph.value(t.graph.cast(shifted, result.dtype), result, shape)]
