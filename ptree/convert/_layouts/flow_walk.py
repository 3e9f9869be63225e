"""FlowWalk: follow layouts through the steps of a traced model, and note the order of the features that parameters go with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

from .axis_order import Constant, Layout, Unknown, constant, has_mixed_axes, leaves_of
from .axis_rules import ELEMENTWISE, shape_of
from .flow_loops import after_cond, after_scan, after_while
from .flow_notes import FlowNotes
from .flow_steps import after_conv_step, after_elementwise, after_other_step, after_pool, after_product
from .framework import Shape
from .layout_rules import (
    NORMS_OF_CHANNELS,
    NORMS_OF_LAST_AXIS,
    POOLS,
    after_channels,
    after_last_axis,
    data_in,
    line_of,
)
from .model_layers import ModelLayers

_CALLS = {
    "jit": "jaxpr", "pjit": "jaxpr", "checkpoint": "jaxpr", "remat2": "jaxpr", "closed_call": "call_jaxpr",
    "eval_jaxpr": "call_jaxpr", "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr",
}  # fmt: skip
"""Steps that call a function -> where they have it."""


class FlowWalk:
    """Follows the layouts of a model's inputs and parameters through its steps."""

    def __init__(self, layers: ModelLayers):
        self.notes = FlowNotes(layers)
        self.input_shapes: dict[str, Shape] = {}
        self._layers = layers

    def follow(self, function: ClosedJaxpr, inputs: Sequence[Layout]) -> None:
        """Follow a whole model."""
        self.run(function, inputs)
        self.notes.refuse_out_of_order()

    def run(self, function: ClosedJaxpr, inputs: Sequence[Layout]) -> list[Layout]:
        """The layouts of a function's outputs."""
        return self._run(function.jaxpr, function.consts, inputs)

    def _run(self, function: Jaxpr, constants: Iterable[Any], inputs: Sequence[Layout]) -> list[Layout]:
        fixed = [_of_value(value) for value in constants]
        variables = (*function.constvars, *function.invars)
        values: dict[Var, Layout] = dict(zip(variables, (*fixed, *inputs), strict=True))

        def read(variable: Var | Literal) -> Layout:
            return _of_value(variable.val) if isinstance(variable, Literal) else values[variable]

        for step in function.eqns:
            outputs = self._outputs(step, [read(variable) for variable in step.invars])
            values.update(zip(step.outvars, outputs, strict=True))
        return [read(variable) for variable in function.outvars]

    def _outputs(self, step: JaxprEqn, inputs: Sequence[Layout]) -> Sequence[Layout]:
        """The layout of each output of one step."""
        name = step.primitive.name
        if name in _CALLS:
            return self._called(step, inputs)
        if name == "scan":
            return after_scan(step, inputs, self.run)
        if name == "while":
            return after_while(step, inputs, self.run)
        if name == "cond":
            return after_cond(step, inputs, self.run)
        if name == "conv_general_dilated":
            return [after_conv_step(self.notes, step, inputs)]
        if name == "dot_general":
            return after_product(self.notes, step, inputs)
        if name in POOLS:
            return [after_pool(self.notes, step, inputs)]
        if name in ELEMENTWISE:
            return after_elementwise(self.notes, step, inputs)
        return after_other_step(self.notes, step, inputs)

    def _called(self, step: JaxprEqn, inputs: Sequence[Layout]) -> Sequence[Layout]:
        function = step.params[_CALLS[step.primitive.name]]
        called = str(step.params.get("name", ""))
        data = data_in(inputs, [shape_of(variable) for variable in step.invars])
        before = data[0] if data else constant(())
        leaves = leaves_of(inputs)
        path = self._layers.called(called, leaves)
        name = called
        if path is not None:
            self._note_shape(path, step, inputs)
            name = self._layers.norm_at(path) or called
        if name == "GroupNorm" and has_mixed_axes(before) and _has_groups(function.jaxpr):
            return [self._grouped(leaves)]
        closed = function if isinstance(function, ClosedJaxpr) else ClosedJaxpr(function, ())
        outputs = [_with_line(output, step) for output in self.run(closed, inputs)]
        if not data or len(outputs) != 1:
            return outputs
        named = called if path is None else f"'{path}', {called}"
        shape = shape_of(step.outvars[0])
        if name in NORMS_OF_CHANNELS:
            self.notes.note_channels_first(before, leaves)
            return [after_channels(named, before, outputs[0], shape)]
        if name in NORMS_OF_LAST_AXIS:
            return [after_last_axis(named, before, outputs[0], shape)]
        return outputs

    def _note_shape(self, path: str, step: JaxprEqn, inputs: Sequence[Layout]) -> None:
        for variable, layout in zip(step.invars, inputs, strict=True):
            if not isinstance(layout, Constant):
                self.input_shapes.setdefault(path, shape_of(variable))
                return

    def _grouped(self, leaves: Sequence[str]) -> Layout:
        self.notes.refuse(leaves, "its groups are of other features there, as these are flattened in another order")
        return Unknown("a GroupNorm has groups of flattened features")


def _with_line(layout: Layout, call: JaxprEqn) -> Layout:
    """The layout with the line that calls a function of JAX in which the order is lost."""
    if not isinstance(layout, Unknown) or layout.line:
        return layout
    return Unknown(layout.reason, line_of(call))


def _of_value(value: Any) -> Constant:
    return constant(getattr(value, "shape", ()))


def _has_groups(norm: Jaxpr) -> bool:
    """Whether a GroupNorm reshapes its input to more than one group."""
    return any(
        step.primitive.name == "reshape" and len(step.params["new_sizes"]) == 4 and step.params["new_sizes"][2] > 1
        for step in norm.eqns
    )
