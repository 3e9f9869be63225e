"""Shardings of an optimiser's slots: match each slot to its parameter by path, then map the parameter's axes to the slot's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from jax.sharding import NamedSharding, PartitionSpec

from .._tree import Leaves, plain, spec_entries
from .slot_axes import SlotRole, possible_axes, slot_role
from .spec_fit import Shape


class Followed(Protocol):
    """A parameter that slots follow."""

    @property
    def shape(self) -> Shape: ...

    @property
    def sharding(self) -> NamedSharding: ...


def following(
    pairs: Leaves, parameter_of: Mapping[str, str], parameters: Mapping[str, Followed]
) -> dict[str, NamedSharding]:
    """Find the shardings of the slots of parameters: path of the slot -> sharding; of no other leaves.

    A slot with the shape of its parameter lives where that does; one with more axes in front, such as a history, too; one that has
    lost axes, such as sums over rows, is divided as the axes that are left.

    Args:
        pairs: the leaves of a state, in listing order.
        parameter_of: path of a slot -> that of its parameter, as `parameters_of_slots` finds it.
        parameters: path -> shape and sharding.
    """
    made: dict[tuple[Shape, Shape, int, SlotRole], NamedSharding | None] = {}  # few, which many slots share
    found: dict[str, NamedSharding] = {}
    for path, leaf in pairs:
        name = parameter_of.get(path)
        if name is None:
            continue
        parameter, shape = parameters[name], leaf.shape
        if shape == parameter.shape:  # most slots
            found[path] = parameter.sharding
            continue
        role = slot_role(path, name)
        key = shape, parameter.shape, id(parameter.sharding), role
        if key not in made:
            made[key] = _of_other_shape(role, tuple(shape), parameter)
        sharding = made[key]
        if sharding is not None:
            found[path] = sharding
    return found


def _of_other_shape(role: SlotRole, shape: Shape, parameter: Followed) -> NamedSharding | None:
    """The sharding of a slot that has not the shape of its parameter; None if it shares no axes with it, or that is unclear."""
    whole = parameter.shape
    entries = spec_entries(parameter.sharding.spec, len(whole))
    possible = possible_axes(role, shape, whole, entries)
    if len(possible) != 1:
        return None
    of_slot = [
        entries[axis] if axis is not None and size == whole[axis] else None  # a sum has size 1
        for axis, size in zip(possible[0], shape, strict=True)
    ]
    return parameter.sharding.update(spec=plain(PartitionSpec(*of_slot)))


# ----------------------------------------------------------------------- whose slot a leaf is


def parameters_of_slots(paths: Sequence[str], parameters: Mapping[str, Followed]) -> dict[str, str]:
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
