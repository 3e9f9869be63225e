"""Follow the axes of an array through a plain function: elementwise steps, transposes, reshapes, sums, slices, concatenations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

from ..._tree import PyTree
from .axis_order import FIXED, UNIFORM, Axes, axes_of, joined_axes, reshaped
from .framework import Shape

_Value: TypeAlias = "tuple[Axes, ...] | None"
"""For each axis of an array, what it is made of; None for an array that cannot be followed."""

_ELEMENTWISE = frozenset((
    "abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil", "clamp",
    "convert_element_type", "copy", "copy_p", "cos", "cosh", "digamma", "div", "eq", "erf", "erf_inv", "erfc", "exp", "exp2",
    "expm1", "floor", "ge", "gt", "integer_pow", "is_finite", "le", "lgamma", "log", "log1p", "logistic", "lt", "max", "min",
    "mul", "ne", "neg", "nextafter", "not", "or", "pow", "reduce_precision", "rem", "round", "rsqrt", "select_n", "sign",
    "sin", "sinh", "sqrt", "square", "stop_gradient", "sub", "tan", "tanh", "xor",
))  # fmt: skip
_REDUCTIONS = frozenset(("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or"))
_CALLS = {
    "jit": "jaxpr", "pjit": "jaxpr", "checkpoint": "jaxpr", "closed_call": "call_jaxpr", "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}  # fmt: skip
"""Primitives that call a function -> where they have it."""
_OVER_SPACE = frozenset(("conv_general_dilated", "reduce_window", "reduce_window_max", "reduce_window_sum"))


def axes_after(function: Callable[..., PyTree], inputs: Sequence[PyTree], axes: Sequence[_Value]) -> _Value:
    """What the axes of the one array that a function returns are made of; `axes` has those of each array that it takes."""
    traced = jax.make_jaxpr(function)(*inputs)
    outputs = _outputs(traced.jaxpr, [_constant(value) for value in traced.consts], axes)
    return outputs[0] if len(outputs) == 1 else None


def goes_over_space(function: Callable[..., PyTree], inputs: Sequence[PyTree]) -> bool:
    """Whether a function convolves or pools."""
    return any(name in _OVER_SPACE for name in _primitives(jax.make_jaxpr(function)(*inputs).jaxpr))


def _primitives(jaxpr: Jaxpr) -> Iterator[str]:
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name in _CALLS:
            called, _ = _called(equation)
            yield from _primitives(called)
        else:
            yield name


def _called(equation: JaxprEqn) -> tuple[Jaxpr, Sequence[PyTree]]:
    """The function that a step calls, and its constants."""
    called = equation.params[_CALLS[equation.primitive.name]]
    return (called.jaxpr, called.consts) if isinstance(called, ClosedJaxpr) else (called, ())


def _outputs(jaxpr: Jaxpr, constants: Sequence[_Value], inputs: Sequence[_Value]) -> list[_Value]:
    values: dict[Var, _Value] = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*constants, *inputs), strict=True))

    def read(variable: Var | Literal) -> _Value:
        return _constant(variable.val) if isinstance(variable, Literal) else values[variable]

    for equation in jaxpr.eqns:
        results = _results(equation, [read(variable) for variable in equation.invars])
        values.update(zip(equation.outvars, results, strict=True))
    return [read(variable) for variable in jaxpr.outvars]


def _constant(value: PyTree) -> _Value:
    return tuple(axes_of(FIXED, size) for size in np.shape(value))


def _results(equation: JaxprEqn, inputs: Sequence[_Value]) -> Sequence[_Value]:
    """The axes of each output of one step."""
    unknown: list[_Value] = [None] * len(equation.outvars)
    name = equation.primitive.name
    if name in _CALLS:
        called, constants = _called(equation)
        return _outputs(called, [_constant(value) for value in constants], inputs)
    if name == "iota":
        return [tuple(axes_of(FIXED, size) for size in equation.params["shape"])]
    followed = [value for value in inputs if value is not None]
    if len(followed) < len(inputs):
        return unknown
    if name in _ELEMENTWISE:
        return [_elementwise(followed)]
    if name == "split":
        return _cut(equation, followed[0])
    rule = _RULES.get(name)
    return unknown if rule is None else [rule(equation, followed)]


def _elementwise(inputs: Sequence[tuple[Axes, ...]]) -> _Value:
    arrays = [value for value in inputs if value]  # without numbers
    if not arrays:
        return ()
    result = arrays[0]
    for other in arrays[1:]:
        joined = [joined_axes(one, two) for one, two in zip(result, other, strict=True)]
        whole = [axes for axes in joined if axes is not None]
        if len(whole) < len(joined):
            return None
        result = tuple(whole)
    return result


def _reduced(equation: JaxprEqn, inputs: Sequence[tuple[Axes, ...]]) -> _Value:
    removed = equation.params["axes"]
    return tuple(axes for at, axes in enumerate(inputs[0]) if at not in removed)


def _transposed(equation: JaxprEqn, inputs: Sequence[tuple[Axes, ...]]) -> _Value:
    return tuple(inputs[0][at] for at in equation.params["permutation"])


def _reshaped(equation: JaxprEqn, inputs: Sequence[tuple[Axes, ...]]) -> _Value:
    if equation.params["dimensions"] is not None:  # another order than C
        return None
    return reshaped(inputs[0], equation.params["new_sizes"])


def _squeezed(equation: JaxprEqn, inputs: Sequence[tuple[Axes, ...]]) -> _Value:
    removed = equation.params["dimensions"]
    return tuple(axes for at, axes in enumerate(inputs[0]) if at not in removed)


def _broadcast(equation: JaxprEqn, inputs: Sequence[tuple[Axes, ...]]) -> _Value:
    shape, places = equation.params["shape"], equation.params["broadcast_dimensions"]
    result = [axes_of(UNIFORM, size) for size in shape]
    for axes, place in zip(inputs[0], places, strict=True):
        if axes:  # of another size than 1, so of the size of the output
            result[place] = axes
    return tuple(result)


def _resized(equation: JaxprEqn, inputs: Sequence[tuple[Axes, ...]]) -> _Value:
    """Axes of another size, where these are single ones."""
    return _with_sizes(_shape(equation.invars[0]), _shape(equation.outvars[0]), inputs[0])


def _padded(equation: JaxprEqn, inputs: Sequence[tuple[Axes, ...]]) -> _Value:
    """A padding, which may also shift an axis and leave its size."""
    sides = equation.params["padding_config"]
    is_shifted = any(len(axes) > 1 and any(side) for axes, side in zip(inputs[0], sides, strict=True))
    return None if is_shifted else _resized(equation, inputs)


def _cut(equation: JaxprEqn, axes: tuple[Axes, ...]) -> list[_Value]:
    """The axes of the pieces that `split` gives."""
    before = _shape(equation.invars[0])
    return [_with_sizes(before, _shape(piece), axes) for piece in equation.outvars]


def _shape(variable: Var | Literal) -> Shape:
    about: Any = variable.aval  # an array in all steps that are followed
    return about.shape


def _with_sizes(before: Shape, after: Shape, axes: tuple[Axes, ...]) -> _Value:
    result: list[Axes] = []
    for old, new, parts in zip(before, after, axes, strict=True):
        if old == new:
            result.append(parts)
            continue
        if len(parts) != 1:
            return None
        result.append(axes_of(parts[0].position, new))
    return tuple(result)


def _concatenated(equation: JaxprEqn, inputs: Sequence[tuple[Axes, ...]]) -> _Value:
    at = equation.params["dimension"]
    whole = {axes[:at] + axes[at + 1 :] for axes in inputs}
    along = {part.position for axes in inputs for part in axes[at]}
    is_single = all(len(axes[at]) == 1 for axes in inputs)
    if len(whole) > 1 or len(along) != 1 or not is_single:
        return None
    size = sum(axes[at][0].size for axes in inputs)
    return (*inputs[0][:at], axes_of(along.pop(), size), *inputs[0][at + 1 :])


_RULES: dict[str, Callable[[JaxprEqn, Sequence[tuple[Axes, ...]]], _Value]] = {
    **dict.fromkeys(_REDUCTIONS, _reduced),
    "transpose": _transposed,
    "reshape": _reshaped,
    "squeeze": _squeezed,
    "broadcast_in_dim": _broadcast,
    "slice": _resized,
    "pad": _padded,
    "concatenate": _concatenated,
}
