"""Layout: which axes a value has here, and in which order a framework with channels first has them and flattens them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import NamedTuple, TypeAlias

from .framework import Shape

BATCH, CHANNELS, SPACE = 0, 1, 2
"""Positions of axes with channels first; axes of space are 2, 3, ..."""
UNIFORM, FIXED = -1, -2
"""Axes along which all values are equal, and axes of a constant array."""


class Axis(NamedTuple):
    """An axis of an array with channels first."""

    position: int
    """`BATCH`, `CHANNELS`, or `SPACE` and up."""
    size: int


Axes: TypeAlias = tuple[Axis, ...]
"""The axes that were flattened into one, the last one changing fastest; none for an axis of size 1."""


class UnknownOrderError(Exception):
    """Error for features in an order that is not known; the text is the reason."""


@dataclass(frozen=True)
class ChannelsLast:
    """The layout of values that have the same axes in the other framework: tokens, sequences, vectors of features."""


@dataclass(frozen=True)
class ChannelsFirst:
    """The layout of values that have their channels first in the other framework."""

    axes: tuple[Axes, ...]
    """For each axis of the value here, what it is made of."""
    doubt: str = field(default="", compare=False)
    """Why the other framework may have these axes in the same order as here; empty where the order is known."""
    is_certain: bool = True
    is_input: bool = False
    """Whether the value is the model's input, or a function of it; the first layer then decides where the channels are there."""


@dataclass(frozen=True)
class Unknown:
    """The layout of values after a step that cannot be followed."""

    reason: str = field(compare=False)


Layout: TypeAlias = ChannelsLast | ChannelsFirst | Unknown


def channels_first(shape: Shape) -> ChannelsFirst:
    """The layout of a value of the shape (batch, space..., channels)."""
    positions = [BATCH, *range(SPACE, len(shape)), CHANNELS][: len(shape)]
    return ChannelsFirst(tuple(axes_of(position, size) for position, size in zip(positions, shape, strict=True)))


def doubtful(shape: Shape, reason: str) -> Layout:
    """The layout of a value (batch, ..., channels) that has its channels first or last in the other framework."""
    if len(shape) < 2:
        return ChannelsLast()
    axes = channels_first(shape).axes
    has_space = any(axis.position >= SPACE for parts in axes for axis in parts)
    # with one axis of features both are the same
    return ChannelsFirst(axes, reason, is_certain=False) if has_space else ChannelsLast()


def of_input(shape: Shape, doubt: str) -> Layout:
    """The layout of an input: an image has its channels first or last in the other framework, a sequence has them last.

    A convolution, a pool or a norm of channels that reads the input decides that it has them first.
    """
    layout = doubtful(shape, doubt if len(shape) > 3 else "")
    return replace(layout, is_input=True) if isinstance(layout, ChannelsFirst) else layout


def follows_input(layout: Layout) -> bool:
    """Whether a value is an input with its axes as here."""
    return isinstance(layout, ChannelsFirst) and layout.is_input and not layout.doubt


def decided(layouts: Sequence[Layout]) -> list[Layout]:
    """The layouts of values that one function takes: an input has its channels last if all others have."""
    others = [layout for layout in layouts if not (isinstance(layout, ChannelsFirst) and layout.is_input)]
    if others and all(isinstance(layout, ChannelsLast) for layout in others):
        return [ChannelsLast() for _ in layouts]
    return [*layouts]


def axes_of(position: int, size: int) -> Axes:
    """A single axis; none for size 1."""
    return (Axis(position, size),) if size != 1 else ()


def is_mixed(axes: Axes) -> bool:
    """Whether an axis was flattened from others than axes of space in their order."""
    if len(axes) < 2:
        return False
    positions = [axis.position for axis in axes]
    return positions != sorted({*positions}) or positions[0] < SPACE


def has_mixed_axes(layout: Layout) -> bool:
    return isinstance(layout, ChannelsFirst) and any(map(is_mixed, layout.axes))


def has_channels_in_one_axis(layout: ChannelsFirst) -> bool:
    """Whether the axes are (batch, space..., channels), none of them flattened with the channels, or transposed."""
    *others, last = layout.axes
    positions = [axis.position for axes in others for axis in axes]
    is_in_order = positions == sorted({*positions}) and CHANNELS not in positions
    is_mixed_anywhere = any(map(is_mixed, layout.axes))
    return is_in_order and not is_mixed_anywhere and all(axis.position == CHANNELS for axis in last)


def flattened_sizes(layout: Layout, count: int = 1) -> Shape | None:
    """The sizes (space..., channels) of the features in the last `count` axes; None where both frameworks have one order.

    Raises:
        UnknownOrderError: the order in the other framework is not known.
    """
    if isinstance(layout, Unknown):
        raise UnknownOrderError(layout.reason)
    if isinstance(layout, ChannelsLast) or follows_input(layout):
        return None
    split = len(layout.axes) - count
    if any(map(is_mixed, layout.axes[:split])):
        raise UnknownOrderError("channels are flattened into an axis of places")
    read = tuple(axis for axes in layout.axes[split:] for axis in axes)
    if not is_mixed(read):
        return None
    if not layout.is_certain:
        raise UnknownOrderError(layout.doubt)
    others = [axis for axes in layout.axes[:split] for axis in axes]
    positions = [axis.position for axis in read]
    if min(positions) < CHANNELS or any(axis.position != BATCH for axis in others):
        raise UnknownOrderError("some axes are flattened together, and others are not")
    if positions == sorted(positions):  # transposed by hand before they were flattened
        return None
    if positions != [*sorted(positions[:-1]), CHANNELS] or count > 1:
        raise UnknownOrderError("the axes were transposed before they were flattened")
    return tuple(axis.size for axis in read)


def reshaped(axes: Sequence[Axes], shape: Shape) -> tuple[Axes, ...] | None:
    """The axes after a reshape in C order; None where an axis would be cut."""
    left = [axis for parts in axes for axis in parts]
    new: list[Axes] = []
    for size in shape:
        parts: list[Axis] = []
        while left and prod(axis.size for axis in parts) < size:
            parts.append(left.pop(0))
        if prod(axis.size for axis in parts) != size:
            return None
        new.append(_with_repeats(parts))
    return None if left else tuple(new)


def _with_repeats(parts: Sequence[Axis]) -> Axes:
    """What an axis is made of; an axis that is repeated, as `jnp.repeat` and `jnp.tile` do, is a longer one."""
    different = [axis for axis in parts if axis.position != UNIFORM]
    if len(different) != 1:
        return tuple(parts)
    return (Axis(different[0].position, prod(axis.size for axis in parts)),)


def joined_axes(first: Axes, second: Axes) -> Axes | None:
    """The axes of a value computed from two values place by place; None where they differ."""
    if first == second:
        return first
    for one, other in ((first, second), (second, first)):
        is_uniform = all(axis.position == UNIFORM for axis in one)
        is_constant = len(other) == 1 and all(axis.position == FIXED for axis in one)
        if is_uniform or is_constant:
            return other
    return None
