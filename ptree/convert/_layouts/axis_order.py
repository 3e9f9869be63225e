"""Layout: which axes a value has here, and in which order a framework with channels first has them and flattens them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import NamedTuple, TypeAlias

from .framework import Shape

BATCH, CHANNELS, SPACE = 0, 1, 2
"""Positions of axes with channels first; axes of space are 2, 3, ..."""
UNIFORM, FIXED = -1, -2
"""Axes along which all values are equal, and axes of parameters and constant arrays."""

PART_IS_FLATTENED = "some axes are flattened together, and others are not"


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
class Constant:
    """The layout of values that depend on no input."""

    axes: tuple[Axes, ...]
    leaves: tuple[str, ...] = ()
    """The paths of the parameters that the value is computed from."""
    is_in_order: bool = True
    """Whether its features are in the order of those parameters: not transposed, summed or multiplied as matrices."""


@dataclass(frozen=True)
class ChannelsLast:
    """The layout of values that have the same axes in the other framework: tokens, sequences, vectors of features."""

    writers: frozenset[str] = field(default=frozenset(), compare=False)
    """The paths of the parameters that give the order of the features."""
    divided: int = field(default=0, compare=False)
    """How many features the last axis had before a reshape divided it, as into an image; 0 where it is whole."""
    line: str = field(default="", compare=False)
    """The line of the model's code with that reshape; empty where it is whole, or the line is not known."""


@dataclass(frozen=True)
class ChannelsFirst:
    """The layout of values that have their channels first in the other framework."""

    axes: tuple[Axes, ...]
    """For each axis of the value here, what it is made of."""
    doubt: str = ""
    """Why the other framework may have these axes in the same order as here; empty where the order is known."""
    inputs: frozenset[int] = frozenset()
    """The inputs that the value is a function of, by number; the first layer then decides where the channels are there."""


@dataclass(frozen=True)
class Unknown:
    """The layout of values after a step that cannot be followed."""

    reason: str = field(compare=False)
    line: str = field(default="", compare=False)
    """The line of the model's code with the step, `model.py:12`; empty where it is not known."""


Layout: TypeAlias = Constant | ChannelsLast | ChannelsFirst | Unknown


def constant(shape: Shape, leaves: Sequence[str] = ()) -> Constant:
    """The layout of a parameter or of a constant array."""
    return Constant(tuple(axes_of(FIXED, size) for size in shape), tuple(leaves))


def leaves_of(layouts: Iterable[Layout]) -> tuple[str, ...]:
    """The paths of the parameters among these values."""
    found = [leaf for layout in layouts if isinstance(layout, Constant) for leaf in layout.leaves]
    return tuple(dict.fromkeys(found))


def channels_first_axes(shape: Shape) -> tuple[Axes, ...]:
    """The axes of a value of the shape (batch, space..., channels)."""
    positions = [BATCH, *range(SPACE, len(shape)), CHANNELS][: len(shape)]
    return tuple(axes_of(position, size) for position, size in zip(positions, shape, strict=True))


def doubtful(shape: Shape, reason: str, inputs: frozenset[int] = frozenset()) -> Layout:
    """The layout of a value (batch, ..., channels) that has its channels first or last in the other framework."""
    axes = channels_first_axes(shape)
    # with one axis of features both are the same
    return ChannelsFirst(axes, reason, inputs) if has_space(axes) else ChannelsLast()


def has_space(axes: Sequence[Axes]) -> bool:
    return any(axis.position >= SPACE for parts in axes for axis in parts)


def axes_of(position: int, size: int) -> Axes:
    """A single axis; none for size 1."""
    return (Axis(position, size),) if size != 1 else ()


def is_mixed(axes: Axes) -> bool:
    """Whether an axis was flattened from channels and others, or from axes of space in another order than theirs."""
    positions = [axis.position for axis in axes]
    return len(axes) > 1 and (CHANNELS in positions or positions != sorted({*positions}))


def has_mixed_axes(layout: Layout) -> bool:
    return isinstance(layout, ChannelsFirst) and any(map(is_mixed, layout.axes))


def has_channels_in_one_axis(layout: ChannelsFirst) -> bool:
    """Whether the axes are (batch, space..., channels), none of them flattened with the channels, or transposed."""
    *others, last = layout.axes
    positions = [axis.position for axes in others for axis in axes]
    is_in_order = positions == sorted({*positions}) and CHANNELS not in positions
    return is_in_order and all(axis.position == CHANNELS for axis in last)


def flattened_sizes(layout: Layout, read: Sequence[int]) -> Shape | None:
    """The sizes (space..., channels) of the features in the axes `read`; None where both frameworks have one order.

    Raises:
        UnknownOrderError: the order in the other framework is not known.
    """
    if isinstance(layout, Unknown):
        raise UnknownOrderError(f"{layout.reason} ({layout.line})" if layout.line else layout.reason)
    if not isinstance(layout, ChannelsFirst):
        return None
    others = [axes for at, axes in enumerate(layout.axes) if at not in read]
    if any(map(is_mixed, others)):
        raise UnknownOrderError("channels are flattened into an axis of places")
    features = tuple(axis for at in read for axis in layout.axes[at])
    if not is_mixed(features):
        return None
    if layout.doubt:
        raise UnknownOrderError(layout.doubt)
    positions = [axis.position for axis in features]
    if min(positions) < CHANNELS or any(axis.position != BATCH for axes in others for axis in axes):
        raise UnknownOrderError(PART_IS_FLATTENED)
    if positions == sorted({*positions}):  # transposed by hand before they were flattened
        return None
    space = positions[:-1]
    if positions[-1] != CHANNELS or space != sorted({*space}) or CHANNELS in space or len(read) > 1:
        raise UnknownOrderError("the axes were transposed before they were flattened")
    return tuple(axis.size for axis in features)


def reshaped(axes: Sequence[Axes], shape: Shape) -> tuple[Axes, ...] | None:
    """The axes after a reshape in C order; None where flattened features would be divided in another way than they were joined."""
    left = [axis for parts in axes for axis in parts]
    new: list[Axes] = []
    for size in shape:
        parts = _taken(left, size)
        if parts is None:
            return None
        left = _without(left, parts)
        new.append(_joined(parts))
    if left or not all(_is_kept(parts, new) for parts in axes if is_mixed(parts)):
        return None
    return tuple(new)


def _taken(axes: Sequence[Axis], size: int) -> list[Axis] | None:
    """The first of these axes that give an axis of a size, the last one perhaps in part; None where sizes do not divide."""
    taken: list[Axis] = []
    rest = size
    for axis in axes:
        if rest == 1:
            break
        if axis.size and rest % axis.size == 0:
            taken.append(axis)
            rest //= axis.size
        elif rest and axis.size % rest == 0:
            taken.append(Axis(axis.position, rest))
            rest = 1
        else:
            return None
    return taken if rest == 1 else None


def _without(axes: Sequence[Axis], taken: Sequence[Axis]) -> list[Axis]:
    """What is left of these axes after the first ones are taken, the last one perhaps in part."""
    left = [*axes[len(taken) :]]
    if taken and taken[-1] != axes[len(taken) - 1]:
        position, size = axes[len(taken) - 1]
        left.insert(0, Axis(position, size // taken[-1].size))
    return left


def _joined(parts: Sequence[Axis]) -> Axes:
    """What an axis is made of; parts of one axis are that axis, also where it is repeated, as by `jnp.repeat` and `jnp.tile`."""
    different = {axis.position for axis in parts if axis.position != UNIFORM}
    # (uniform, channels) may also be channels at each place of an image
    are_channels_first = not parts or parts[0].position != UNIFORM
    if len(different) == 1 and (are_channels_first or CHANNELS not in different):
        return axes_of(different.pop(), prod(axis.size for axis in parts))
    joined: list[Axis] = []
    for axis in parts:
        if joined and joined[-1].position == axis.position:
            axis = Axis(axis.position, joined.pop().size * axis.size)
        joined.append(axis)
    return tuple(joined)


def _is_kept(features: Axes, new: Sequence[Axes]) -> bool:
    """Whether flattened features stay in one axis, or are divided into the axes that they were flattened from."""
    for axes in new:
        starts = range(len(axes) - len(features) + 1)
        if any(axes[at : at + len(features)] == features for at in starts):
            return True
    single = [axis for axes in new if not is_mixed(axes) for axis in axes]
    return all(axis in single for axis in features)


def joined_axes(first: Axes, second: Axes) -> Axes | None:
    """The axes of a value computed from two values place by place; None where they differ."""
    if first == second or _is_of(second, UNIFORM):
        return first
    if _is_of(first, UNIFORM):
        return second
    if is_mixed(first) or is_mixed(second):
        return None
    if _is_of(second, UNIFORM, FIXED):
        return first
    if _is_of(first, UNIFORM, FIXED):
        return second
    # places that are one axis, and those that were several
    return max(first, second, key=len) if first[0].position == second[0].position else None


def _is_of(axes: Axes, *positions: int) -> bool:
    return all(axis.position in positions for axis in axes)
