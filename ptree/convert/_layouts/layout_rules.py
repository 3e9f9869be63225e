"""The layout of what one step of a model returns: convolutions, pools and norms as the other framework has them, all else by its axes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import prod

from jax.extend.core import JaxprEqn

from ..._jaxprs import frames_of, user_frame
from .axis_order import (
    BATCH,
    CHANNELS,
    FIXED,
    PART_IS_FLATTENED,
    Axes,
    ChannelsFirst,
    ChannelsLast,
    Constant,
    Layout,
    Unknown,
    axes_of,
    channels_first_axes,
    constant,
    doubtful,
    has_channels_in_one_axis,
    has_mixed_axes,
    has_space,
    is_mixed,
)
from .axis_rules import ELEMENTWISE, axes_after, shape_of
from .framework import Shape

POOLS = frozenset(("reduce_window", "reduce_window_max", "reduce_window_min", "reduce_window_sum"))
NORMS_OF_CHANNELS = ("BatchNorm", "GroupNorm")
NORMS_OF_LAST_AXIS = ("LayerNorm", "RMSNorm")
_IN_ORDER = ELEMENTWISE | {"reshape", "broadcast_in_dim", "squeeze"}
"""Steps that leave the features of a parameter in their order."""


def layouts_after(step: JaxprEqn, inputs: Sequence[Layout]) -> Sequence[Layout]:
    """The layout of each output of a step, which the other framework has as the same step on its own axes."""
    shapes = [shape_of(variable) for variable in step.invars]
    data = data_in(inputs, shapes)
    count = len(step.outvars)
    if not data:
        return [*_constants(step, inputs)]
    unknown = [layout for layout in data if isinstance(layout, Unknown)]
    if unknown:
        return [unknown[0]] * count
    written = [layout for layout in data if isinstance(layout, ChannelsLast)]
    followed = [layout for layout in data if isinstance(layout, ChannelsFirst)]
    # an input has its channels last if all else has
    if not followed or (_has_places_last(inputs, shapes) and all(layout.inputs for layout in followed)):
        return [_made_channels_last(step, written) or _last(step, written)] * count
    axes = axes_after(step, [_axes(layout, shape) for layout, shape in zip(inputs, shapes, strict=True)])
    if axes is None:
        reason = f"`{step.primitive.name}` does not keep an order that can be followed"
        return [Unknown(reason, line_of(step))] * count
    doubt = _doubt(step, inputs, shapes)
    sources = _inputs(followed)
    return [ChannelsFirst(each, doubt or _doubt_of_part(step, each), sources) for each in axes]


def data_in(inputs: Sequence[Layout], shapes: Sequence[Shape]) -> Sequence[Layout]:
    """The layouts of arrays that depend on the model's input; of numbers where there are no arrays."""
    data = [(layout, shape) for layout, shape in zip(inputs, shapes, strict=True) if not isinstance(layout, Constant)]
    arrays = [layout for layout, shape in data if shape]
    return arrays or [layout for layout, _ in data]


def _made_channels_last(step: JaxprEqn, inputs: Sequence[ChannelsLast]) -> Layout | None:
    """The layout of an image whose channels came first when a vector was reshaped, as there, and that is transposed; else None."""
    if step.primitive.name != "transpose" or not inputs[0].divided:
        return None
    before, after = shape_of(step.invars[0]), shape_of(step.outvars[0])
    is_whole_vector = inputs[0].divided == prod(before[1:])
    if not is_whole_vector or step.params["permutation"] != (0, *range(2, len(before)), 1):
        return None
    return doubtful(after, f"{described(step)} has its channels last, and there they may stay first")


def _last(step: JaxprEqn, inputs: Sequence[ChannelsLast]) -> ChannelsLast:
    """The layout of what a step makes of values with their channels last."""
    writers = frozenset[str]().union(*(layout.writers for layout in inputs))
    first_divided = max(inputs, key=lambda layout: layout.divided)
    divided, line = first_divided.divided, first_divided.line
    if step.primitive.name != "reshape":
        return ChannelsLast(writers, divided, line)
    before, after = (shape_of(variable)[-1:] for variable in (*step.invars[:1], *step.outvars))
    if after == (divided,):
        return ChannelsLast(writers)
    is_divided = not divided and before > after > (1,) and before[0] % after[0] == 0
    return ChannelsLast(writers, before[0], line_of(step)) if is_divided else ChannelsLast(writers, divided, line)


def _constants(step: JaxprEqn, inputs: Sequence[Layout]) -> list[Constant]:
    known = [layout for layout in inputs if isinstance(layout, Constant)]
    leaves = tuple(dict.fromkeys(leaf for layout in known for leaf in layout.leaves))
    is_in_order = step.primitive.name in _IN_ORDER and all(layout.is_in_order for layout in known)
    axes = axes_after(step, [layout.axes for layout in known])
    if axes is None:
        axes = [constant(shape_of(output)).axes for output in step.outvars]
    return [Constant(each, leaves, is_in_order) for each in axes]


def _axes(layout: Layout, shape: Shape) -> tuple[Axes, ...]:
    if isinstance(layout, (ChannelsFirst, Constant)):
        return layout.axes
    return channels_first_axes(shape)


def _inputs(followed: Sequence[ChannelsFirst]) -> frozenset[int]:
    """The inputs that the result is a function of; none where it is one of a layer too."""
    if not all(layout.inputs for layout in followed):
        return frozenset()
    return frozenset[int]().union(*(layout.inputs for layout in followed))


def _has_places_last(inputs: Sequence[Layout], shapes: Sequence[Shape]) -> bool:
    """Whether an array has its channels after axes of space in the other framework too."""
    last = [shape for layout, shape in zip(inputs, shapes, strict=True) if isinstance(layout, ChannelsLast)]
    return any(has_space(channels_first_axes(shape)) for shape in last)


def _doubt(step: JaxprEqn, inputs: Sequence[Layout], shapes: Sequence[Shape]) -> str:
    """Why the order of the axes is not certain."""
    followed = [layout for layout in inputs if isinstance(layout, ChannelsFirst)]
    # an input is added to what has its channels first there only if it has them first too
    deciding = [layout for layout in followed if not layout.inputs] or followed
    for layout in deciding:
        if layout.doubt:
            return layout.doubt
    for layout, shape in zip(inputs, shapes, strict=True):
        if isinstance(layout, ChannelsLast) and has_space(channels_first_axes(shape)):
            return (
                f"{described(step)} takes values with their channels first there, and others with their channels last"
            )
    if step.primitive.name == "dot_general" and _is_of_channels(step, inputs) and len(shape_of(step.outvars[0])) > 2:
        return f"{described(step)} may have its channels first or last there"
    return ""


def _doubt_of_part(step: JaxprEqn, axes: Sequence[Axes]) -> str:
    """Why the order of features is not certain that a reshape flattens, beside axes that it leaves."""
    if step.primitive.name != "reshape" or not any(map(is_mixed, axes)):
        return ""
    left = [axis for parts in axes if not is_mixed(parts) for axis in parts]
    return PART_IS_FLATTENED if any(axis.position != BATCH for axis in left) else ""


def _is_of_channels(step: JaxprEqn, inputs: Sequence[Layout]) -> bool:
    """Whether a product sums over channels."""
    summed, _ = step.params["dimension_numbers"]
    axes = [
        layout.axes[at]
        for layout, along in zip(inputs, summed, strict=True)
        if isinstance(layout, ChannelsFirst)
        for at in along
    ]
    return any(axis.position == CHANNELS for parts in axes for axis in parts)


def after_convolution(step: JaxprEqn) -> Layout:
    """The layout of what a convolution returns."""
    shape = shape_of(step.outvars[0])
    order = step.params["dimension_numbers"].out_spec
    natural = channels_first_axes((shape[order[0]], *(shape[at] for at in order[2:]), shape[order[1]]))
    axes = [axes_of(FIXED, size) for size in shape]
    for at, parts in zip((order[0], *order[2:], order[1]), natural, strict=True):
        axes[at] = parts
    return ChannelsFirst(tuple(axes))


def after_channels(name: str, before: Layout, after: Layout, shape: Shape) -> Layout:
    """The layout after a pool or a norm of channels, which has its channels first there."""
    if isinstance(before, ChannelsFirst) and isinstance(after, ChannelsFirst) and has_channels_in_one_axis(before):
        return ChannelsFirst(after.axes)
    if not isinstance(before, ChannelsLast) or len(shape) < 3:
        return after
    # after a sequence, which is turned there before and perhaps after it
    return doubtful(shape, f"{name}, reads channels first there, and its input may have them last")


def after_last_axis(name: str, before: Layout, after: Layout, shape: Shape) -> Layout:
    """The layout after a norm over the last axis, which other frameworks have last too."""
    if not isinstance(before, ChannelsFirst) or len(shape) < 3 or has_mixed_axes(before):
        return after
    if not has_channels_in_one_axis(before):  # transposed, so that its last axis are places
        return after
    if before.inputs:
        return ChannelsLast()
    return doubtful(shape, f"{name}, reads channels last there, and its input may have them first")


def described(step: JaxprEqn) -> str:
    """A step for a message, with the line of the model's code that makes it."""
    line = line_of(step)
    return f"`{step.primitive.name}` at {line}" if line else f"`{step.primitive.name}`"


def line_of(step: JaxprEqn) -> str:
    """The line of the model's code that makes a step; empty where only JAX's or this package's functions are seen."""
    frame = user_frame(frames_of(step))
    return "" if frame is None else f"{os.path.basename(frame.file_name)}:{frame.line_num}"
