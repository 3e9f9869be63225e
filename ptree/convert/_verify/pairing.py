"""Pair the values of both functions by name: given names, equal names, outputs without names by their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..._errors import StructureError
from ..._words import lines, quoted, suggestion
from .values import OUTPUT, Values


@dataclass(frozen=True)
class Pairing:
    """Names of the source, each with the name of ours, in the order of computation."""

    pairs: tuple[tuple[str, str], ...]
    """One of the two is "" for an output that only one side has."""
    only_source: tuple[str, ...]
    only_ours: tuple[str, ...]


def paired(source: Values, ours: Values, names: Mapping[str, str]) -> Pairing:
    """Pair the values by the given names, then by equal names, then outputs without names by their order."""
    _check_names(source, ours, names)
    partner = {name: name for name in source.names if name in ours}
    partner.update(names)
    taken = set(partner.values())
    left = [name for name in source.names if name not in partner]
    left_ours = [name for name in ours.names if name not in taken]
    outputs = [name for name in left if name in source.outputs]
    outputs_ours = [name for name in left_ours if name in ours.outputs]
    if len(outputs) == len(outputs_ours) and (_are_unnamed(outputs) or _are_unnamed(outputs_ours)):
        partner.update(zip(outputs, outputs_ours))
        outputs, outputs_ours = [], []
    pairs = [(name, partner[name]) for name in _order(source, names) if name in partner]
    pairs += [(name, "") for name in outputs] + [("", name) for name in outputs_ours]
    only_source = tuple(name for name in left if name not in source.outputs)
    only_ours = tuple(name for name in left_ours if name not in ours.outputs)
    return Pairing(tuple(pairs), only_source, only_ours)


def _order(source: Values, names: Mapping[str, str]) -> list[str]:
    """The names of the source in the order of computation: those of `names` first if it lists all intermediate values."""
    intermediate = [name for name in source.names if name not in source.outputs]
    given = [name for name in names if name in intermediate]
    rest = [name for name in source.names if name not in names or name in source.outputs]
    if len(given) == len(intermediate):  # a jitted function returns them sorted
        return given + rest
    return source.names


def _are_unnamed(names: Sequence[str]) -> bool:
    """Whether outputs have positions for names."""
    segments = [segment for name in names for segment in name.split("/")]
    return all(segment == OUTPUT or segment.isdecimal() for segment in segments)


def _check_names(source: Values, ours: Values, names: Mapping[str, str]) -> None:
    problems: list[str] = []
    for name, name_ours in names.items():
        if name not in source:
            problems.append(f"{quoted(name)} is no value of the source.{suggestion(name, source.names)}")
        if name_ours not in ours:
            problems.append(f"{quoted(name_ours)} is no value of ours.{suggestion(name_ours, ours.names)}")
    if problems:
        raise StructureError(
            f"verify: `names` do not fit what the functions returned:\n  {lines(problems, chr(10) + '  ')}"
        )
