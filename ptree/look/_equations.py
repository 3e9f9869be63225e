"""The equations of a traced function in one flat list: inner jit and remat calls inlined, scans with a list of their own, dead
ones left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

_CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "remat": "jaxpr",
    "remat2": "jaxpr",
}
"""Primitives that only call a function -> the parameter of the equation that has its equations."""


@dataclass(frozen=True)
class Step:
    """One equation, with numbers in place of variables; of a scan also the equations of its body."""

    equation: JaxprEqn
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    body: Program | None = None


@dataclass(frozen=True)
class Program:
    """A function as a list of equations; each value has a number."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    steps: tuple[Step, ...]
    constants: Mapping[int, Any]
    shapes: Mapping[int, Any]
    """Number of a value -> its shape and dtype."""

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        """Compute the outputs, equation by equation."""
        values = self.start(inputs)
        for step in self.steps:
            values.update(zip(step.outputs, run_step(step, [values[at] for at in step.inputs])))
        return [values[at] for at in self.outputs]

    def start(self, inputs: Sequence[Any]) -> dict[int, Any]:
        """The values that are there before the first equation."""
        return {**self.constants, **dict(zip(self.inputs, inputs))}


def program_of(closed: ClosedJaxpr) -> Program:
    """The program of a traced function, without equations that its outputs do not depend on."""
    return _live(_program(closed.jaxpr, closed.consts))


def run_step(step: Step, inputs: Sequence[Any]) -> list[Any]:
    """Compute one equation that is not a scan."""
    equation = step.equation
    bound: Any = equation.primitive.get_bind_params(equation.params)
    # before JAX 0.10 the functions of an equation, such as those of jax.custom_jvp, are given apart
    functions, options = bound if isinstance(bound, tuple) else ((), bound)
    outputs = equation.primitive.bind(*functions, *inputs, **options)
    return list(outputs) if equation.primitive.multiple_results else [outputs]


def scan_sizes(step: Step) -> tuple[int, int, int]:
    """Of a scan: how many inputs are the same in each iteration, how many are carried on, and the number of iterations."""
    options = step.equation.params
    return options["num_consts"], options["num_carry"], options["length"]


# ------------------------------------------------------------------------------ flattening


def _program(jaxpr: Jaxpr, constants: Sequence[Any]) -> Program:
    lister = _Lister()
    inputs = lister.new_values(jaxpr.invars)
    outputs = lister.list_equations(jaxpr, constants, inputs)
    return Program(tuple(inputs), tuple(outputs), tuple(lister.steps), lister.constants, lister.shapes)


@dataclass
class _Lister:
    """Lists equations, and numbers their values: one function that is called twice has other values in each call."""

    steps: list[Step] = field(default_factory=list)
    constants: dict[int, Any] = field(default_factory=dict)
    shapes: dict[int, Any] = field(default_factory=dict)

    def new_values(self, variables: Sequence[Any]) -> list[int]:
        numbers: list[int] = []
        for variable in variables:
            numbers.append(len(self.shapes))
            self.shapes[numbers[-1]] = variable.aval
        return numbers

    def list_equations(self, jaxpr: Jaxpr, constants: Sequence[Any], inputs: Sequence[int]) -> list[int]:
        """Add the equations of a function that is called with these values; return the numbers of its outputs."""
        number_of = dict(zip(jaxpr.invars, inputs))
        for variable, constant in zip(jaxpr.constvars, constants):
            (number,) = self.new_values([variable])
            self.constants[number] = constant
            number_of[variable] = number
        for equation in jaxpr.eqns:
            arguments = [self._number(variable, number_of) for variable in equation.invars]
            number_of.update(zip(equation.outvars, self._list_equation(equation, arguments)))
        return [self._number(variable, number_of) for variable in jaxpr.outvars]

    def _number(self, variable: Any, number_of: Mapping[Any, int]) -> int:
        if not isinstance(variable, Literal):
            return number_of[variable]
        (number,) = self.new_values([variable])
        self.constants[number] = variable.val
        return number

    def _list_equation(self, equation: JaxprEqn, arguments: list[int]) -> list[int]:
        name = equation.primitive.name
        if name in _CALLS:
            inner, constants = _opened(equation.params[_CALLS[name]])
            return self.list_equations(inner, constants, arguments)
        body = _program(*_opened(equation.params["jaxpr"])) if name == "scan" else None
        outputs = self.new_values(equation.outvars)
        self.steps.append(Step(equation, tuple(arguments), tuple(outputs), body))
        return outputs


def _opened(function: ClosedJaxpr | Jaxpr) -> tuple[Jaxpr, Sequence[Any]]:
    if isinstance(function, ClosedJaxpr):
        return function.jaxpr, function.consts
    return function, ()


# ------------------------------------------------------------------------------ what the outputs depend on


def _live(program: Program) -> Program:
    """Leave out the equations that no output depends on, and the outputs of scans that nothing uses."""
    needed = {*program.outputs}
    steps: list[Step] = []
    for step in reversed(program.steps):
        if needed.isdisjoint(step.outputs):
            continue
        kept = step if step.body is None else _live_scan(step, step.body, needed)
        needed.update(kept.inputs)
        steps.append(kept)
    return replace(program, steps=tuple(reversed(steps)))


def _live_scan(step: Step, body: Program, needed: set[int]) -> Step:
    """A scan without the stacked outputs that nothing uses; what it carries on may be used by the next iteration."""
    _, carried, _ = scan_sizes(step)
    kept = [at for at, number in enumerate(step.outputs) if at < carried or number in needed]
    outputs = tuple(step.outputs[at] for at in kept)
    live_body = _live(replace(body, outputs=tuple(body.outputs[at] for at in kept)))
    return replace(step, outputs=outputs, body=live_body)


def is_float(shape: Any) -> bool:
    """Whether a value has real floats, of any size above 0."""
    return jax.numpy.issubdtype(shape.dtype, jax.numpy.floating) and shape.size > 0
