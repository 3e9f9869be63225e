"""The parameter of each slot of an optimiser, found by its path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from jax.sharding import NamedSharding

from .spec_fit import Shape


class Followed(Protocol):
    """A parameter that slots follow."""

    @property
    def shape(self) -> Shape: ...

    @property
    def sharding(self) -> NamedSharding: ...


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
