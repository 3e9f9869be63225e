"""FlowWalk: follow layouts through the steps of a traced model, and note the order of the features that parameters go with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

from ... import nn
from .axis_order import (
    BATCH,
    UNIFORM,
    Axis,
    ChannelsFirst,
    ChannelsLast,
    Constant,
    Layout,
    Unknown,
    UnknownOrderError,
    axes_of,
    constant,
    flattened_sizes,
    has_channels_in_one_axis,
    has_mixed_axes,
    is_mixed,
)
from .axis_rules import ELEMENTWISE, shape_of
from .feature_order import FeatureOrder
from .framework import Shape
from .layout_rules import (
    NORMS_OF_CHANNELS,
    NORMS_OF_LAST_AXIS,
    POOLS,
    after_channels,
    after_convolution,
    after_last_axis,
    data_in,
    described,
    layouts_after,
    line_of,
)
from .model_layers import ModelLayers, of_repetition

_CALLS = {
    "jit": "jaxpr", "pjit": "jaxpr", "checkpoint": "jaxpr", "remat2": "jaxpr", "closed_call": "call_jaxpr", "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}  # fmt: skip
"""Steps that call a function -> where they have it."""
_WITH_CHANNELS_LAST = (nn.Dense, nn.Embedding, nn.LSTM, nn.GRU, nn.RNN, nn.MultiHeadAttention)
"""Layers whose matrices give features that are last there too."""
_MOST_STEPS_OF_A_LOOP = 8
"""After so many steps without parameters of their own, the layouts of a loop have settled or never will."""


_MIXES_ORDERS = "takes its output and features that are flattened in another order there"
_MADE_AN_IMAGE = (
    "its output is reshaped to an image, whose features have another order there if channels come first in the reshape"
)
_OUT_OF_ORDER = (
    "it goes with features that are flattened in another order there, and is used transposed, sliced or in a product"
)


class FlowWalk:
    """Follows the layouts of a model's inputs and parameters through its steps."""

    def __init__(self, layers: ModelLayers):
        self.order = FeatureOrder()
        self.input_shapes: dict[str, Shape] = {}
        self.channels_first_inputs: set[int] = set()
        """The inputs that a convolution, a pool or a norm of channels reads, by number."""
        self._layers = layers
        self._out_of_order: set[str] = set()
        """The parameters that are used transposed too, or in another way."""

    def follow(self, function: ClosedJaxpr, inputs: Sequence[Layout]) -> None:
        """Follow a whole model."""
        self.run(function, inputs)
        for leaf in self._out_of_order:
            if self.order.sizes_at(leaf) is not None:
                self.order.refuse(leaf, _OUT_OF_ORDER)

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
            return self._scanned(step, inputs)
        if name == "while":
            return self._repeated(step, inputs)
        if name == "cond":
            return self._chosen(step, inputs)
        if name == "conv_general_dilated":
            return [self._convolved(step, inputs)]
        if name == "dot_general":
            return self._multiplied(step, inputs)
        if name in POOLS:
            return [self._pooled(step, inputs)]
        if name in ELEMENTWISE:
            return self._combined(step, inputs)
        return self._followed(step, inputs)

    # ------------------------------------------------------------------------------- functions that steps call

    def _called(self, step: JaxprEqn, inputs: Sequence[Layout]) -> Sequence[Layout]:
        function = step.params[_CALLS[step.primitive.name]]
        called = str(step.params.get("name", ""))
        data = data_in(inputs, [shape_of(variable) for variable in step.invars])
        before = data[0] if data else constant(())
        leaves = _leaves(inputs)
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
            self._note_channels_first(before)
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
        self._refuse(leaves, "its groups are of other features there, as these are flattened in another order")
        return Unknown("a GroupNorm has groups of flattened features")

    def _scanned(self, step: JaxprEqn, inputs: Sequence[Layout]) -> Sequence[Layout]:
        """The layouts after a loop over slices, of which each may have parameters of its own."""
        about = step.params
        fixed, carried = about["num_consts"], about["num_carry"]
        constants, carry, sliced = inputs[:fixed], inputs[fixed : fixed + carried], inputs[fixed + carried :]
        shapes = [shape_of(variable)[1:] for variable in step.invars[fixed + carried :]]
        given: list[list[Layout]] = []
        numbers = range(about["length"])
        for number in reversed(numbers) if about["reverse"] else numbers:
            slices = [_sliced(layout, shape, number) for layout, shape in zip(sliced, shapes, strict=True)]
            outputs = self.run(about["jaxpr"], [*constants, *carry, *slices])
            before, carry = carry, outputs[:carried]
            given.append(outputs[carried:])
            if carry == before and not _leaves(sliced):  # all others are the same as this one
                break
        stacked = [
            _stacked(_one_of(step, each), shape_of(variable))
            for each, variable in zip(zip(*given), step.outvars[carried:])
        ]
        return [*carry, *stacked]

    def _repeated(self, step: JaxprEqn, inputs: Sequence[Layout]) -> Sequence[Layout]:
        """The layouts after a loop with a condition."""
        about = step.params
        start = about["cond_nconsts"]
        fixed = start + about["body_nconsts"]
        constants, carry = inputs[start:fixed], inputs[fixed:]
        for _ in range(_MOST_STEPS_OF_A_LOOP):
            outputs = self.run(about["body_jaxpr"], [*constants, *carry])
            if outputs == carry:
                break
            carry = [_one_of(step, pair) for pair in zip(carry, outputs, strict=True)]
        return carry

    def _chosen(self, step: JaxprEqn, inputs: Sequence[Layout]) -> Sequence[Layout]:
        outputs = [self.run(branch, inputs[1:]) for branch in step.params["branches"]]
        return [_one_of(step, each) for each in zip(*outputs, strict=True)]

    # ------------------------------------------------------------------------------- single steps

    def _convolved(self, step: JaxprEqn, inputs: Sequence[Layout]) -> Layout:
        before, kernel = inputs
        if isinstance(before, Constant) or not isinstance(kernel, Constant):
            return self._followed(step, inputs)[0]
        self._note(kernel, before, [step.params["dimension_numbers"].lhs_spec[1]])
        self._note_channels_first(before)
        return after_convolution(step)

    def _pooled(self, step: JaxprEqn, inputs: Sequence[Layout]) -> Layout:
        before = inputs[0]
        (after,) = layouts_after(step, inputs)
        self._note_channels_first(before)
        return after_channels("a pool", before, after, shape_of(step.outvars[0]))

    def _multiplied(self, step: JaxprEqn, inputs: Sequence[Layout]) -> Sequence[Layout]:
        """The layouts after a product with a matrix of parameters, which goes with the features that are summed over."""
        summed, _ = step.params["dimension_numbers"]
        taken = [*inputs]
        for at, matrix in enumerate(inputs):
            data = inputs[1 - at]
            if not isinstance(matrix, Constant) or not matrix.leaves or isinstance(data, Constant):
                continue
            rows = tuple(summed[at])
            is_in_order = matrix.is_in_order and rows == (0,)
            self._note(replace(matrix, is_in_order=is_in_order), data, summed[1 - at])
            if self._has_channels_last(matrix.leaves):
                return [ChannelsLast(frozenset(matrix.leaves))]
            taken[at] = _fitting(matrix, data, rows, summed[1 - at])
        return layouts_after(step, taken)

    def _combined(self, step: JaxprEqn, inputs: Sequence[Layout]) -> Sequence[Layout]:
        """The layouts after an elementwise step, in which vectors of parameters go with features."""
        data = data_in(inputs, [shape_of(variable) for variable in step.invars])
        taken: list[Layout] = []
        for layout in inputs:
            fitting = layout
            if isinstance(layout, Constant) and layout.leaves:
                for other in data:
                    fitting = self._beside(layout, other)
            taken.append(fitting)
        outputs = [_written_by(output, _leaves(inputs)) for output in layouts_after(step, taken)]
        is_lost = any(isinstance(output, Unknown) for output in outputs)
        if is_lost and any(map(has_mixed_axes, data)):
            written = [leaf for layout in data if isinstance(layout, ChannelsLast) for leaf in layout.writers]
            self._refuse(written, f"{described(step)} {_MIXES_ORDERS}")
        return outputs

    def _beside(self, parameter: Constant, data: Layout) -> Constant:
        """The parameter with its features in the order of those that it is added to or multiplied with."""
        mixed = _mixed_beside(parameter, data)
        if mixed or not has_mixed_axes(data):
            self._note(parameter, data, mixed)
        axes = [*parameter.axes]
        for at in mixed:
            axes[at] = tuple(Axis(UNIFORM, axis.size) for axis in axes[at])
        return replace(parameter, axes=tuple(axes))

    def _followed(self, step: JaxprEqn, inputs: Sequence[Layout]) -> Sequence[Layout]:
        """The layouts after any other step; parameters in it go with features in their order."""
        leaves = _leaves(inputs)
        data = [layout for layout in inputs if not isinstance(layout, Constant)]
        has_function = any(isinstance(value, (Jaxpr, ClosedJaxpr)) for value in step.params.values())
        if leaves and has_function:
            self._refuse(leaves, f"it is called inside of {described(step)}, which cannot be followed")
        for layout in data:
            if isinstance(layout, Unknown):
                self._refuse(leaves, f"the order there of what it goes with is not known: {layout.reason}")
            elif has_mixed_axes(layout):
                self._refuse(leaves, f"{described(step)} {_MIXES_ORDERS}")
        if data and self._has_channels_last(leaves):
            return [ChannelsLast(frozenset(leaves))] * len(step.outvars)
        return layouts_after(step, inputs)

    # ------------------------------------------------------------------------------- notes

    def _note(self, parameter: Constant, layout: Layout, read: Sequence[int]) -> None:
        """Note that a parameter goes with the features in these axes."""
        try:
            sizes = flattened_sizes(layout, read)
        except UnknownOrderError as error:
            self._refuse(parameter.leaves, f"the order there of the features that it reads is not known: {error}")
            return
        if parameter.is_in_order:
            for leaf in self._single(parameter.leaves):
                self.order.note(leaf, sizes)
            return
        self._out_of_order.update(self._single(parameter.leaves))
        if sizes is not None:
            self._refuse(parameter.leaves, _OUT_OF_ORDER)

    def _refuse(self, leaves: Iterable[str], reason: str) -> None:
        for leaf in self._single(leaves):
            self.order.refuse(leaf, reason)

    def _single(self, leaves: Iterable[str]) -> list[str]:
        return [single for leaf in leaves for single in self._layers.single(leaf)]

    def _has_channels_last(self, leaves: Iterable[str]) -> bool:
        """Whether parameters are of a layer whose features are last there too."""
        return any(isinstance(self._layers.owner(leaf)[1], _WITH_CHANNELS_LAST) for leaf in self._single(leaves))

    def _note_channels_first(self, layout: Layout) -> None:
        """Note what a layer with channels first reads."""
        if isinstance(layout, ChannelsLast) and layout.divided:
            self._refuse(layout.writers, _MADE_AN_IMAGE)
        if isinstance(layout, ChannelsFirst) and has_channels_in_one_axis(layout):
            self.channels_first_inputs.update(layout.inputs)


def _written_by(layout: Layout, leaves: Sequence[str]) -> Layout:
    """The layout after vectors of features are added or multiplied, which have the order of those before."""
    if not isinstance(layout, ChannelsLast) or not layout.writers:
        return layout
    return ChannelsLast(layout.writers.union(leaves), layout.divided)


def _with_line(layout: Layout, call: JaxprEqn) -> Layout:
    """The layout with the line that calls a function of JAX in which the order is lost."""
    if not isinstance(layout, Unknown) or layout.line:
        return layout
    return Unknown(layout.reason, line_of(call))


def _of_value(value: Any) -> Constant:
    return constant(getattr(value, "shape", ()))


def _leaves(layouts: Iterable[Layout]) -> tuple[str, ...]:
    found = [leaf for layout in layouts if isinstance(layout, Constant) for leaf in layout.leaves]
    return tuple(dict.fromkeys(found))


def _mixed_beside(parameter: Constant, data: Layout) -> list[int]:
    """The axes of the parameter that go with flattened features."""
    if not isinstance(data, ChannelsFirst) or len(data.axes) != len(parameter.axes):
        return []
    pairs = zip(parameter.axes, data.axes, strict=True)
    return [
        at for at, (ours, axes) in enumerate(pairs) if is_mixed(axes) and any(axis.position != UNIFORM for axis in ours)
    ]


def _fitting(matrix: Constant, data: Layout, rows: Sequence[int], summed: Sequence[int]) -> Constant:
    """The matrix with its rows in the order of the features that it is multiplied with."""
    if not isinstance(data, ChannelsFirst):
        return matrix
    axes = [*matrix.axes]
    for row, at in zip(rows, summed, strict=True):
        axes[row] = data.axes[at]
    return replace(matrix, axes=tuple(axes))


def _has_groups(norm: Jaxpr) -> bool:
    """Whether a GroupNorm reshapes its input to more than one group."""
    return any(
        step.primitive.name == "reshape" and len(step.params["new_sizes"]) == 4 and step.params["new_sizes"][2] > 1
        for step in norm.eqns
    )


def _sliced(layout: Layout, shape: Shape, number: int) -> Layout:
    """The layout of one slice along the first axis."""
    if isinstance(layout, Constant):
        leaves = tuple(of_repetition(leaf, number) for leaf in layout.leaves)
        return replace(layout, axes=layout.axes[1:], leaves=leaves)
    if not isinstance(layout, ChannelsFirst):
        return layout
    if is_mixed(layout.axes[0]):
        return Unknown("a loop runs over flattened features")
    return replace(layout, axes=layout.axes[1:])


def _stacked(layout: Layout, shape: Shape) -> Layout:
    """The layout of the slices that a loop gives, along a first axis."""
    if isinstance(layout, Constant):
        return constant(shape, layout.leaves)
    if not isinstance(layout, ChannelsFirst):
        return layout
    return replace(layout, axes=(axes_of(BATCH, shape[0]), *layout.axes))


def _one_of(step: JaxprEqn, layouts: Sequence[Layout]) -> Layout:
    """The layout of a value that is one of several."""
    data = [layout for layout in layouts if not isinstance(layout, Constant)]
    if not data:
        return layouts[0]
    if all(layout == data[0] for layout in data):
        return data[0]
    return Unknown(f"{described(step)} gives features in different orders")
