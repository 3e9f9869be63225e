"""Shardings of an optimiser's slots: map the axes of each slot's parameter to its own."""

from __future__ import annotations

from collections.abc import Mapping

from jax.sharding import NamedSharding, PartitionSpec

from .._tree import Leaves, plain, spec_entries
from .slot_axes import SlotRole, possible_axes, slot_role
from .slot_parameters import Followed
from .spec_fit import Shape


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
