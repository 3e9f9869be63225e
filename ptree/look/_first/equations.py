"""The equations of a traced function in one flat list: inner jit and remat calls inlined, scans with a list of their own, dead
ones left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from ..._jaxprs import scan_counts

_CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "eval_jaxpr": "call_jaxpr",  # closed_call from JAX 0.12 on
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
    scope: int
    """The number of the call that it is in, such as the compiled call of one layer; 0 outside of calls."""
    scan: Scan | None = None


@dataclass(frozen=True)
class Scan:
    """A loop: its body, whose inputs are the same in each iteration, then carried on, then one for each iteration."""

    body: Program
    same: int
    carried: int
    length: int
    is_whole: bool = True
    """Whether no input and no output of the equation is left out."""


@dataclass(frozen=True)
class Program:
    """A function as a list of equations; each value has a number."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    steps: tuple[Step, ...]
    constants: Mapping[int, Any]
    shapes: Mapping[int, Any]
    """Number of a value -> its shape and dtype."""
    scopes: Mapping[int, Sequence[int]]
    """Number of a call that is inlined -> the numbers of its inputs."""

    def start(self, inputs: Sequence[Any]) -> dict[int, Any]:
        """The values that are there before the first equation."""
        return {**self.constants, **dict(zip(self.inputs, inputs))}


def program_of(closed: ClosedJaxpr) -> Program:
    """The program of a traced function, without equations that its outputs do not depend on."""
    return _live(_program(closed.jaxpr, closed.consts))


def run_step(step: Step, inputs: Sequence[Any]) -> list[Any]:
    """Compute one equation, as it was traced."""
    equation = step.equation
    bound: Any = equation.primitive.get_bind_params(equation.params)
    # before JAX 0.10 the functions of an equation, such as those of jax.custom_jvp, are given apart
    functions, options = bound if isinstance(bound, tuple) else ((), bound)
    outputs = equation.primitive.bind(*functions, *inputs, **options)
    return list(outputs) if equation.primitive.multiple_results else [outputs]


# ------------------------------------------------------------------------------ flattening


def _program(jaxpr: Jaxpr, constants: Sequence[Any]) -> Program:
    lister = _Lister()
    inputs = lister.new_values(jaxpr.invars)
    outputs = lister.list_equations(jaxpr, constants, inputs, 0)
    return Program(tuple(inputs), tuple(outputs), tuple(lister.steps), lister.constants, lister.shapes, lister.scopes)


@dataclass
class _Lister:
    """Lists equations, and numbers their values: one function that is called twice has other values in each call."""

    steps: list[Step] = field(default_factory=list)
    constants: dict[int, Any] = field(default_factory=dict)
    shapes: dict[int, Any] = field(default_factory=dict)
    scopes: dict[int, list[int]] = field(default_factory=dict)

    def new_values(self, variables: Sequence[Any]) -> list[int]:
        numbers: list[int] = []
        for variable in variables:
            numbers.append(len(self.shapes))
            self.shapes[numbers[-1]] = variable.aval
        return numbers

    def list_equations(self, jaxpr: Jaxpr, constants: Sequence[Any], inputs: Sequence[int], scope: int) -> list[int]:
        """Add the equations of a function that is called with these values; return the numbers of its outputs."""
        number_of = dict(zip(jaxpr.invars, inputs))
        for variable, constant in zip(jaxpr.constvars, constants):
            (number,) = self.new_values([variable])
            self.constants[number] = constant
            number_of[variable] = number
        for equation in jaxpr.eqns:
            arguments = [self._number(variable, number_of) for variable in equation.invars]
            number_of.update(zip(equation.outvars, self._list_equation(equation, arguments, scope)))
        return [self._number(variable, number_of) for variable in jaxpr.outvars]

    def _number(self, variable: Any, number_of: Mapping[Any, int]) -> int:
        if not isinstance(variable, Literal):
            return number_of[variable]
        (number,) = self.new_values([variable])
        self.constants[number] = variable.val
        return number

    def _list_equation(self, equation: JaxprEqn, arguments: list[int], scope: int) -> list[int]:
        name = equation.primitive.name
        if name in _CALLS:
            inner, constants = _opened(equation.params[_CALLS[name]])
            own_scope = len(self.scopes) + 1
            self.scopes[own_scope] = arguments
            return self.list_equations(inner, constants, arguments, own_scope)
        outputs = self.new_values(equation.outvars)
        scan = _scan_of(equation) if name == "scan" else None
        self.steps.append(Step(equation, tuple(arguments), tuple(outputs), scope, scan))
        return outputs


def _scan_of(equation: JaxprEqn) -> Scan:
    options = equation.params
    body = _program(*_opened(options["jaxpr"]))
    return Scan(body, *scan_counts(options), options["length"])


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
        kept = step if step.scan is None else _live_scan(step, step.scan, needed)
        needed.update(kept.inputs)
        steps.append(kept)
    return replace(program, steps=tuple(reversed(steps)))


def _live_scan(step: Step, scan: Scan, needed: set[int]) -> Step:
    """A scan without the inputs that nothing in it uses, and without the stacked outputs that nothing uses.

    What it carries on may be used by the next iteration. Without the inputs go, say, the keys of a dropout that is off.
    """
    outputs = [at for at, number in enumerate(step.outputs) if at < scan.carried or number in needed]
    body = _live(replace(scan.body, outputs=tuple(scan.body.outputs[at] for at in outputs)))
    used = {number for inner in body.steps for number in inner.inputs} | {*body.outputs}
    carry = range(scan.same, scan.same + scan.carried)
    inputs = [at for at, number in enumerate(body.inputs) if number in used or at in carry]
    live = Scan(
        replace(body, inputs=tuple(body.inputs[at] for at in inputs)),
        sum(at < scan.same for at in inputs),
        scan.carried,
        scan.length,
        is_whole=len(inputs) == len(step.inputs) and len(outputs) == len(step.outputs),
    )
    return replace(
        step,
        inputs=tuple(step.inputs[at] for at in inputs),
        outputs=tuple(step.outputs[at] for at in outputs),
        scan=live,
    )


def is_float(shape: Any) -> bool:
    """Whether a value has real floats, of any size above 0."""
    return jax.numpy.issubdtype(shape.dtype, jax.numpy.floating) and shape.size > 0
