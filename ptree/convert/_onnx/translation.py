"""Translate the equations of a jaxpr into an ONNX graph: a rule for each primitive, constants computed, problems collected."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from .graph import Graph
from .source_lines import source_of
from .values import Array, ArrayType, Shaped, Value, is_static

Rule: TypeAlias = Callable[["Translation", "Equation", list[Value]], Sequence[Value]]

RULES: dict[str, Rule] = {}
"""Name of a primitive -> what translates an equation of it."""

_LARGEST_FOLDED = 1 << 16
"""Bytes: larger constants are computed by the ONNX runtime, and take no space in the file."""
_RANDOM = "give dropout no key, as in inference"
CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "eval_jaxpr": "call_jaxpr",  # closed_call from JAX 0.12 on
    "core_call": "call_jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}
"""Primitives that call a function -> the parameter of the equation that has its equations."""
_NOT_FOLDED = {"broadcast_in_dim", "platform_index", "dim_as_value"}
"""Primitives that are translated also where all inputs are constants."""


def rule(*primitives: str) -> Callable[[Rule], Rule]:
    """Register a rule for primitives of these names."""

    def register(function: Rule) -> Rule:
        for name in primitives:
            RULES[name] = function
        return function

    return register


@dataclass(frozen=True)
class Equation:
    """An equation of a jaxpr: what a rule translates."""

    name: str
    """Of the primitive."""
    options: dict[str, Any]
    outputs: list[ArrayType]
    traced: Any
    """JAX's own object."""

    @staticmethod
    def of(traced: JaxprEqn) -> Equation:
        outputs: list[ArrayType] = []
        for variable in traced.outvars:
            about: Any = variable.aval
            outputs.append(ArrayType(about.shape, about.dtype))
        return Equation(traced.primitive.name, traced.params, outputs, traced)


class NoOnnxFormError(Exception):
    """Raised by a rule for a form of its primitive that it cannot translate; the message says which."""


@dataclass(frozen=True)
class Problem:
    """An equation that cannot be translated."""

    primitive: str
    reason: str
    """Empty where the primitive has no rule."""
    source: str
    """The line of the user's code, and the layer."""
    parameter: str
    """The parameter that was read last before it, which tells the layer."""


class Translation:
    """A translation of one traced function: its graph, and the problems so far."""

    def __init__(self, graph: Graph, parameters: frozenset[str]):
        self.graph = graph
        self.problems: list[Problem] = []
        self._parameters = parameters
        self._last_parameter = ""
        self._calls: list[JaxprEqn] = []
        """The equations that are being translated, each inside of the one before."""
        self._random: set[str] = set()
        """Random bits and what is computed from them, which is refused once."""
        self.erfc_of: dict[str, str] = {}
        """The tensor of an erfc -> that of its argument, for products that are GELU."""

    def run(self, jaxpr: Jaxpr, constants: Sequence[Array], inputs: Sequence[Value]) -> list[Value]:
        """Translate the equations of a function that is called with these values; returns its outputs."""
        value_of: dict[Any, Value] = dict(zip(jaxpr.invars, inputs, strict=True))
        for variable, constant in zip(jaxpr.constvars, constants, strict=True):
            value_of[variable] = constant_value(constant)
        for equation in jaxpr.eqns:
            arguments = [_read(variable, value_of) for variable in equation.invars]
            outputs = self._translate(Equation.of(equation), arguments)
            value_of.update(zip(equation.outvars, outputs, strict=True))
        return [_read(variable, value_of) for variable in jaxpr.outvars]

    def run_closed(self, function: ClosedJaxpr | Jaxpr, inputs: Sequence[Value]) -> list[Value]:
        """`run` of a function with its constants, if it has any."""
        if isinstance(function, ClosedJaxpr):
            return self.run(function.jaxpr, function.consts, inputs)
        return self.run(function, (), inputs)

    def _translate(self, equation: Equation, inputs: list[Value]) -> Sequence[Value]:
        self._note_parameter(inputs)
        if _can_be_folded(equation, inputs):
            return [constant_value(output) for output in _computed(equation, inputs)]
        if _is_empty(equation):
            return [constant_value(np.zeros(about.shape, about.dtype)) for about in equation.outputs]
        name = equation.name
        translate = RULES.get(name)
        if name.startswith("random_") or name == "threefry2x32":
            return self._refuse(equation, inputs, _RANDOM)
        if translate is None:
            return self._refuse(equation, inputs, "")
        self._calls.append(equation.traced)
        try:
            if name not in CALLS:
                _check_dtypes(equation, inputs)
            outputs = translate(self, equation, inputs)
        except NoOnnxFormError as problem:
            return self._refuse(equation, inputs, str(problem))
        finally:
            self._calls.pop()
        if self._are_random(inputs):
            self._random.update(value.tensor for value in outputs if _may_be_random_bits(value))
        return outputs

    def _note_parameter(self, inputs: Sequence[Value]) -> None:
        for value in inputs:
            if value.tensor in self._parameters:
                self._last_parameter = value.tensor

    def _refuse(self, equation: Equation, inputs: Sequence[Value], reason: str) -> list[Value]:
        """Note a problem, and go on with outputs that nothing computes, so that all problems are found."""
        outputs: list[Value] = []
        for about in equation.outputs:
            outputs.append(self.graph.value(self.graph.new_name("none"), about))
        follows = self._are_random(inputs)
        if follows or reason == _RANDOM:
            self._random.update(value.tensor for value in outputs)
        if not follows:  # else the problem is what made the random numbers
            name = "random numbers" if reason == _RANDOM else equation.name
            source = source_of((equation.traced, *reversed(self._calls)))
            self.problems.append(Problem(name, reason, source, self._last_parameter))
        return outputs

    def _are_random(self, values: Sequence[Value]) -> bool:
        return any(value.tensor in self._random for value in values)


def constant_value(array: Array) -> Value:
    """A value whose numbers are known."""
    if not isinstance(array, (np.ndarray, np.generic)) and not jnp.issubdtype(array.dtype, jax.dtypes.extended):
        array = np.asarray(array)
    return Value(array.shape, array.dtype, "", array.shape, array)


def _read(variable: Any, value_of: dict[Any, Value]) -> Value:
    if isinstance(variable, Literal):
        about: Any = variable.aval
        return constant_value(np.asarray(variable.val, about.dtype))
    return value_of[variable]


def _may_be_random_bits(value: Value) -> bool:
    return jnp.issubdtype(value.dtype, np.unsignedinteger) or jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def _check_dtypes(equation: Equation, inputs: Sequence[Value]) -> None:
    for value in (*inputs, *equation.outputs):
        dtype = value.dtype
        if jnp.issubdtype(dtype, jax.dtypes.prng_key):
            raise NoOnnxFormError(_RANDOM)
        if jnp.issubdtype(dtype, np.complexfloating):
            raise NoOnnxFormError("complex numbers")


def _can_be_folded(equation: Equation, inputs: Sequence[Value]) -> bool:
    """Whether JAX itself can compute an equation now: all inputs are constants, and the outputs are small."""
    name = equation.name
    if name in CALLS or name in _NOT_FOLDED or equation.traced.effects:
        return False
    if any(value.constant is None or not is_static(value.shape) for value in inputs):
        return False
    if not all(is_static(about.shape) for about in equation.outputs):
        return False
    return sum(_bytes_of(array) for array in (*inputs, *equation.outputs)) <= _LARGEST_FOLDED


def _is_empty(equation: Equation) -> bool:
    """Whether an equation computes nothing but arrays without elements, for which ONNX Runtime has few operations."""
    shapes = [about.shape for about in equation.outputs]
    return bool(shapes) and all(is_static(shape) and 0 in shape for shape in shapes)


def _bytes_of(array: Shaped) -> int:
    itemsize = getattr(array.dtype, "itemsize", 8)
    return int(np.prod(array.shape, dtype=np.int64)) * itemsize


def _computed(equation: Equation, inputs: Sequence[Value]) -> list[Array]:
    arrays = [_broadcast_constant(value) for value in inputs]
    bound: Any = equation.traced.primitive.get_bind_params(equation.traced.params)
    # before JAX 0.10 the functions of an equation, such as those of jax.custom_jvp, are given apart
    functions, options = bound if isinstance(bound, tuple) else ((), bound)
    outputs = equation.traced.primitive.bind(*functions, *arrays, **options)
    return list(outputs) if equation.traced.primitive.multiple_results else [outputs]


def _broadcast_constant(value: Value) -> Array:
    if value.is_broadcast:
        return value.constant
    return np.broadcast_to(np.asarray(value.constant), value.shape)
