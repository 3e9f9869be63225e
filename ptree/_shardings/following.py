"""Slots that follow their parameters: find the sharding of each leaf of a state by the path of its parameter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from jax.sharding import NamedSharding, PartitionSpec

from .._tree import Leaves
from .specs import Shape, plain


class Followed(NamedTuple):
    """A parameter that slots follow."""

    shape: Shape
    sharding: NamedSharding


def following(pairs: Leaves, parameters: Mapping[str, Followed]) -> dict[str, NamedSharding]:
    """Find the shardings of the slots of parameters: path of the slot -> sharding; of no others.

    A slot is a leaf whose path ends with that of a parameter.
    """
    found: dict[str, NamedSharding] = {}
    for path, leaf in pairs:
        names = path.split("/")
        for start in range(len(names)):
            parameter = parameters.get("/".join(names[start:]))
            if parameter is not None:
                sharding = _of_slot(tuple(leaf.shape), parameter)
                if sharding is not None:
                    found[path] = sharding
                break
    return found


def _of_slot(shape: Shape, parameter: Followed) -> NamedSharding | None:
    """The parameter's sharding for its last axes; its other axes, of a history, are not divided."""
    extra = len(shape) - len(parameter.shape)
    if extra < 0 or shape[extra:] != parameter.shape:
        return None
    spec = PartitionSpec(*[None] * extra, *parameter.sharding.spec)
    return parameter.sharding.update(spec=plain(spec))
