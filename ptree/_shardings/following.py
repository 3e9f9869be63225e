"""Slots that follow their parameters: find the sharding of each leaf of a state by the path of its parameter, from the axes of the
parameter that it has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, Protocol

import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from .._tree import Leaves
from .specs import Shape, entries_of, plain


class Followed(Protocol):
    """A parameter that slots follow."""

    @property
    def shape(self) -> Shape: ...

    @property
    def sharding(self) -> NamedSharding: ...


def following(pairs: Leaves, parameters: Mapping[str, Followed]) -> dict[str, NamedSharding]:
    """Find the shardings of the slots of parameters: path of the slot -> sharding; of no other leaves.

    A slot with the shape of its parameter lives where that does; one with more axes in front, such as a history, too; one that has
    lost axes, such as sums over rows, is divided as the axes that are left.

    Args:
        pairs: the leaves of a state, in listing order.
        parameters: path -> shape and sharding.
    """
    made: dict[tuple[Shape, Shape, int, str], NamedSharding | None] = {}  # few, which many slots share
    found: dict[str, NamedSharding] = {}
    parameter_of = _parameters_of_slots([path for path, _ in pairs], parameters)
    for path, leaf in pairs:
        name = parameter_of.get(path)
        if name is None:
            continue
        parameter, shape = parameters[name], leaf.shape
        if shape == parameter.shape:  # most slots
            found[path] = parameter.sharding
            continue
        hint = _axis_hint(path, name)
        key = shape, parameter.shape, id(parameter.sharding), hint
        if key not in made:
            made[key] = _of_other_shape(tuple(shape), parameter, hint)
        sharding = made[key]
        if sharding is not None:
            found[path] = sharding
    return found


# ----------------------------------------------------------------------- whose slot a leaf is


def _parameters_of_slots(paths: Sequence[str], parameters: Mapping[str, Followed]) -> dict[str, str]:
    """Find the parameter of each slot by its path: path of the slot -> that of the parameter.

    Below a node of slots, such as `0/mu`, are paths of parameters alone; so a parameter `mu/w` is not mistaken for the slot of a
    parameter `w`. The outermost of such nodes counts. Where there is none, the longest end of a path that is a parameter does.
    """
    if "" in parameters:  # the parameters are one array
        return dict.fromkeys(paths, "")
    slots: dict[str, str] = {}
    refused: set[str] = set()
    at = 0
    while at < len(paths):
        below: dict[str, str] = {}
        for prefix in _prefixes(paths[at]):
            if prefix not in refused:
                below = _slots_below(paths, at, prefix, parameters)
                if below:
                    break
                refused.add(prefix)
        if not below:
            below = _slot_alone(paths[at], parameters)
        slots |= below
        at += max(len(below), 1)
    return slots


def _prefixes(path: str) -> Iterator[str]:
    """What is before each segment of a path, the shortest first: "", "0/", "0/mu/"."""
    yield ""
    at = path.find("/")
    while at >= 0:
        yield path[: at + 1]
        at = path.find("/", at + 1)


def _slots_below(paths: Sequence[str], at: int, prefix: str, parameters: Mapping[str, Followed]) -> dict[str, str]:
    """The slots in a node, whose leaves are listed from a position on; empty if one of them belongs to no parameter.

    An optimiser may keep several arrays for a parameter, whose paths go on behind it.
    """
    found: dict[str, str] = {}
    length = len(prefix)
    for position in range(at if prefix else 0, len(paths)):
        path = paths[position]
        if not path.startswith(prefix):
            break
        name = path[length:]
        if name not in parameters:
            name = name.rpartition("/")[0]
            if name not in parameters:
                return {}
        found[path] = name
    return found


def _slot_alone(path: str, parameters: Mapping[str, Followed]) -> dict[str, str]:
    """The slot of the parameter that is the longest end of a path."""
    for prefix in _prefixes(path):
        name = path[len(prefix) :]
        if name in parameters:
            return {path: name}
    return {}


# ------------------------------------------------------------------------ which axes it has


def _axis_hint(path: str, parameter: str) -> str:
    """What says which axes a slot has where their sizes do not: the name of its tree, or its number behind the parameter."""
    if not path.endswith(parameter):
        return path.rpartition("/")[2]
    role = path.removesuffix(parameter).removesuffix("/")
    return role.rpartition("/")[2]


def _of_other_shape(shape: Shape, parameter: Followed, hint: str) -> NamedSharding | None:
    """The sharding of a slot that has not the shape of its parameter; None if it shares no axes with it."""
    entries = entries_of(parameter.sharding.spec, len(parameter.shape))
    found = _entries_of_slot(shape, parameter.shape, entries, hint)
    return None if found is None else parameter.sharding.update(spec=plain(PartitionSpec(*found)))


def _entries_of_slot(shape: Shape, whole: Shape, entries: Sequence[Any], hint: str) -> list[Any] | None:
    extra = len(shape) - len(whole)
    if extra > 0:  # a history has axes more in front
        return [*[None] * extra, *entries] if whole and shape[extra:] == whole else None
    if extra == 0:  # sums that keep their axes have size 1 along them
        is_left = [size == full for size, full in zip(shape, whole, strict=True)]
        fits = all(left or size == 1 for left, size in zip(is_left, shape, strict=True))
        return [entry if left else None for left, entry in zip(is_left, entries, strict=True)] if fits else None
    axes = _axes_left(shape, whole, entries, hint)
    return None if axes is None else [entries[axis] for axis in axes]


def _axes_left(shape: Shape, whole: Shape, entries: Sequence[Any], hint: str) -> Sequence[int] | None:
    """Which axes of a parameter a slot with fewer axes has; None if it has none, or if that is unclear."""
    fitting = [
        axes
        for axes in combinations(range(len(whole)), len(shape))
        if all(whole[axis] == size for axis, size in zip(axes, shape, strict=True))
    ]
    if not shape or not fitting:
        return None
    if len({tuple(entries[axis] for axis in axes) for axes in fitting}) == 1:
        return fitting[0]
    named = _axes_by_name(whole, hint)
    return named if named in fitting else None


def _axes_by_name(whole: Shape, hint: str) -> tuple[int, ...] | None:
    """The axes that optax means by a name: the rows and columns of `scale_by_factored_rms`, the axis of `scale_by_sm3`."""
    if hint.isdecimal():
        return (int(hint),)
    by_size = np.argsort(whole)  # as optax does, for equal sizes too
    if hint == "v_row":
        lost = int(by_size[-1])
    elif hint == "v_col":
        lost = int(by_size[-2])
    else:
        return None
    return tuple(axis for axis in range(len(whole)) if axis != lost)
