"""The layouts after single steps in which parameters go with features: convolutions, pools, products, sums. Each is noted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from .axis_order import (
    SPACE,
    UNIFORM,
    Axis,
    ChannelsFirst,
    ChannelsLast,
    Constant,
    Layout,
    Unknown,
    has_mixed_axes,
    is_mixed,
    leaves_of,
)
from .axis_rules import shape_of
from .flow_notes import FlowNotes, made_an_image
from .layout_rules import after_channels, after_convolution, data_in, described, layouts_after

_MIXES_ORDERS = "takes its output and features that are flattened in another order there"


def after_conv_step(notes: FlowNotes, step: JaxprEqn, inputs: Sequence[Layout]) -> Layout:
    """The layout after a convolution, which has its channels first there."""
    before, kernel = inputs
    if isinstance(before, Constant) or not isinstance(kernel, Constant):
        return after_other_step(notes, step, inputs)[0]
    notes.note(kernel, before, [step.params["dimension_numbers"].lhs_spec[1]])
    notes.note_channels_first(before, kernel.leaves)
    return after_convolution(step)


def after_pool(notes: FlowNotes, step: JaxprEqn, inputs: Sequence[Layout]) -> Layout:
    """The layout after a pool, which has its channels first there."""
    before = inputs[0]
    (after,) = layouts_after(step, inputs)
    notes.note_channels_first(before, ())
    if isinstance(before, ChannelsLast) and before.divided and not before.writers:
        return Unknown(f"an input of the model {made_an_image(before)}")
    return after_channels("a pool", before, after, shape_of(step.outvars[0]))


def after_product(notes: FlowNotes, step: JaxprEqn, inputs: Sequence[Layout]) -> Sequence[Layout]:
    """The layouts after a product with a matrix of parameters, which goes with the features that are summed over."""
    summed, _ = step.params["dimension_numbers"]
    taken = [*inputs]
    for at, matrix in enumerate(inputs):
        data = inputs[1 - at]
        if not isinstance(matrix, Constant) or not matrix.leaves or isinstance(data, Constant):
            continue
        rows = tuple(summed[at])
        is_in_order = matrix.is_in_order and rows == (0,)
        notes.note(replace(matrix, is_in_order=is_in_order), data, summed[1 - at])
        if notes.has_channels_last(matrix.leaves) and not _are_places(data, summed[1 - at]):
            return [ChannelsLast(frozenset(matrix.leaves))]
        taken[at] = _fitting(matrix, data, rows, summed[1 - at])
    return layouts_after(step, taken)


def _are_places(data: Layout, read: Sequence[int]) -> bool:
    """Whether these axes are places of an image or a sequence, as a mixer of tokens reads them: its channels stay where they are."""
    if not isinstance(data, ChannelsFirst):
        return False
    positions = [axis.position for at in read for axis in data.axes[at]]
    return bool(positions) and min(positions) >= SPACE


def after_elementwise(notes: FlowNotes, step: JaxprEqn, inputs: Sequence[Layout]) -> Sequence[Layout]:
    """The layouts after an elementwise step, in which vectors of parameters go with features."""
    data = data_in(inputs, [shape_of(variable) for variable in step.invars])
    taken: list[Layout] = []
    for layout in inputs:
        fitting = layout
        if isinstance(layout, Constant) and layout.leaves:
            for other in data:
                fitting = _beside(notes, layout, other)
        taken.append(fitting)
    outputs = [_written_by(output, leaves_of(inputs)) for output in layouts_after(step, taken)]
    is_lost = any(isinstance(output, Unknown) for output in outputs)
    if is_lost and any(map(has_mixed_axes, data)):
        written = [leaf for layout in data if isinstance(layout, ChannelsLast) for leaf in layout.writers]
        notes.refuse(written, f"{described(step)} {_MIXES_ORDERS}")
    return outputs


def _beside(notes: FlowNotes, parameter: Constant, data: Layout) -> Constant:
    """The parameter with its features in the order of those that it is added to or multiplied with."""
    mixed = _mixed_beside(parameter, data)
    if mixed or not has_mixed_axes(data):
        notes.note(parameter, data, mixed)
    axes = [*parameter.axes]
    for at in mixed:
        axes[at] = tuple(Axis(UNIFORM, axis.size) for axis in axes[at])
    return replace(parameter, axes=tuple(axes))


def after_other_step(notes: FlowNotes, step: JaxprEqn, inputs: Sequence[Layout]) -> Sequence[Layout]:
    """The layouts after any other step; parameters in it go with features in their order."""
    leaves = leaves_of(inputs)
    data = [layout for layout in inputs if not isinstance(layout, Constant)]
    has_function = any(isinstance(value, (Jaxpr, ClosedJaxpr)) for value in step.params.values())
    if leaves and has_function:
        notes.refuse(leaves, f"it is called inside of {described(step)}, which cannot be followed")
    for layout in data:
        if isinstance(layout, Unknown):
            notes.refuse(leaves, f"the order there of what it goes with is not known: {layout.reason}")
        elif has_mixed_axes(layout):
            notes.refuse(leaves, f"{described(step)} {_MIXES_ORDERS}")
    if data and notes.has_channels_last(leaves):
        return [ChannelsLast(frozenset(leaves))] * len(step.outvars)
    return layouts_after(step, inputs)


def _written_by(layout: Layout, leaves: Sequence[str]) -> Layout:
    """The layout after vectors of features are added or multiplied, which have the order of those before."""
    if not isinstance(layout, ChannelsLast) or not layout.writers:
        return layout
    return ChannelsLast(layout.writers.union(leaves), layout.divided)


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
