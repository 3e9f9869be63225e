"""The axes of its parameter that a slot has: all of them, with others in front, or only some."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from .._paths import STACKED
from .._tree import stacked_axes
from .spec_fit import Shape

SlotAxes: TypeAlias = tuple[int | None, ...]
"""For each axis of a slot that of its parameter; None for one that is more, such as the axis of a history."""


class SlotRole(NamedTuple):
    """What the path of a slot says of its axes."""

    layers: int
    """How many stacks of its parameter are in its path once more, as in `train.by_layer`: these axes are in front of all others."""
    stacks_before: int
    """How many stacks there are in the path before these."""
    name: str
    """That of its tree, such as `v_row`, or its number behind the parameter, which say which axes it has where sizes do not."""


def slot_role(path: str, parameter: str) -> SlotRole:
    """What the path of a slot of a parameter says of its axes.

    >>> slot_role("stacks/blocks/:/0/v_row/blocks/:/w", "blocks/:/w")
    SlotRole(layers=1, stacks_before=0, name='v_row')
    """
    if path.endswith(parameter):
        above = path.removesuffix(parameter).removesuffix("/")
        name = above.rpartition("/")[2]
    else:
        above, _, name = path.rpartition("/")
        above = above.removesuffix(parameter)
    if STACKED not in parameter:
        return SlotRole(0, 0, name)
    stack = f"/{parameter}/".rpartition(f"/{STACKED}/")[0] + f"/{STACKED}/"
    before, is_repeated, _ = f"/{above}/".partition(stack)
    if not is_repeated:
        return SlotRole(0, 0, name)
    return SlotRole(stacked_axes(stack), stacked_axes(before), name)


def possible_axes(role: SlotRole, shape: Shape, whole: Shape, kinds: Sequence[Any]) -> list[SlotAxes]:
    """Find which axes of its parameter a slot has: none if they share no axes, several where it is unclear.

    >>> role = slot_role("memory/w", "w")
    >>> possible_axes(role, (3, 8, 4), (8, 4), "ab")
    [(None, 0, 1)]
    >>> possible_axes(role, (8,), (8, 8), "ab"), possible_axes(role, (8,), (8, 8), "aa")
    ([(0,), (1,)], [(0,)])

    Args:
        role: what its path says.
        shape: that of the slot.
        whole: that of the parameter.
        kinds: something for each axis of the parameter; axes of one kind need not be told apart.
    """
    if shape == whole:
        return [tuple(range(len(whole)))]
    front = role.layers if shape[: role.layers] == whole[: role.layers] else 0
    inner = _possible_inner_axes(shape[front:], whole[front:], kinds[front:], role.name)
    layers = range(front)
    return [(*layers, *(None if axis is None else axis + front for axis in axes)) for axes in inner]


def _possible_inner_axes(shape: Shape, whole: Shape, kinds: Sequence[Any], name: str) -> Sequence[SlotAxes]:
    extra = len(shape) - len(whole)
    every = tuple(range(len(whole)))
    if extra > 0:  # a history has axes more in front
        return [(*[None] * extra, *every)] if whole and shape[extra:] == whole else []
    if extra == 0:  # sums that keep their axes have size 1 along them
        return [every] if all(size in (full, 1) for size, full in zip(shape, whole, strict=True)) else []
    return _axes_left(shape, whole, kinds, name)


def _axes_left(shape: Shape, whole: Shape, kinds: Sequence[Any], name: str) -> Sequence[tuple[int, ...]]:
    """Which axes of a parameter a slot with fewer axes has."""
    fitting = [
        axes
        for axes in combinations(range(len(whole)), len(shape))
        if all(whole[axis] == size for axis, size in zip(axes, shape, strict=True))
    ]
    if not shape or not fitting:
        return []
    if len({tuple(kinds[axis] for axis in axes) for axes in fitting}) == 1:
        return fitting[:1]
    named = _axes_by_name(whole, name)
    return [named] if named in fitting else fitting


def _axes_by_name(whole: Shape, name: str) -> tuple[int, ...] | None:
    """The axes that optax means by a name: the rows and columns of `scale_by_factored_rms`, the axis of `scale_by_sm3`."""
    if name.isdecimal():
        return (int(name),)
    if len(whole) < 2:
        return None
    by_size = np.argsort(whole)  # as optax does, for equal sizes too
    if name == "v_row":
        lost = int(by_size[-1])
    elif name == "v_col":
        lost = int(by_size[-2])
    else:
        return None
    return tuple(axis for axis in range(len(whole)) if axis != lost)
