"""Find all that an array may fill where shapes and names do not tell which leaf it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .families import COLLAPSE_LEVELS, Family
from .possible_pairs import Pair, Unmatched, layers_of, likeness_of, possible_pairs, weights_of


def undecided_pairs(unmatched: Unmatched) -> list[tuple[Pair, ...]]:
    """The pairs of each source with all that it may fill: `ln1` and `ln2` are one family by one level, and two by another."""
    groups: dict[frozenset[str], list[Pair]] = {}
    covered: set[str] = set()
    layered = _in_numbered_layers(unmatched)
    for collapse in COLLAPSE_LEVELS:
        for group in _by_source(*unmatched.families(collapse)):
            possible = [pair for pair in group if not _is_one_of_several_layers(pair, layered)]
            members = _paths_of([group[0].source])
            if members in groups:
                before = {_paths_of(pair.targets) for pair in groups[members]}
                groups[members] += [pair for pair in possible if _paths_of(pair.targets) not in before]
            elif possible and covered.isdisjoint(members):
                groups[members] = possible
                covered |= members
    return _in_layers_of_siblings([*map(tuple, groups.values())])


def _by_source(sources: Sequence[Family], targets: Sequence[Family]) -> list[list[Pair]]:
    """The pairs of each source for which there are some, most alike first."""
    weights = weights_of([*sources, *targets])
    groups: dict[int, list[Pair]] = {}
    for pair in possible_pairs(sources, targets):
        groups.setdefault(id(pair.source), []).append(pair)
    return [sorted(group, key=lambda pair: -likeness_of(pair, weights)) for group in groups.values()]


def _in_numbered_layers(unmatched: Unmatched) -> set[str]:
    """The arrays that each of several layers has, on both sides: `blocks/0/w` beside `blocks/1/w`."""
    sources, targets = unmatched.families("numbered segments")
    return {path for family in (*sources, *targets) if len(family.members) > 1 for path in _paths_of([family])}


def _is_one_of_several_layers(pair: Pair, layered: set[str]) -> bool:
    """Whether a single array would fill one layer of several: it is none of them."""
    source, target = _paths_of([pair.source]), _paths_of(pair.targets)
    return len(source) == 1 and layered.isdisjoint(source) and not layered.isdisjoint(target)


def _in_layers_of_siblings(groups: Sequence[tuple[Pair, ...]]) -> list[tuple[Pair, ...]]:
    """The pairs whose target's layer has a place for the other arrays of the source's layer too, where there is such a layer.

    The bias of a norm goes beside a scale, and not into a dense layer.
    """
    common: dict[str, set[str]] = {}
    for group in groups:
        layers = {layers_of(pair)[1] for pair in group}
        common.setdefault(group[0].source.parent, layers).intersection_update(layers)
    found: list[tuple[Pair, ...]] = []
    for group in groups:
        layers = common[group[0].source.parent]
        inside = tuple(pair for pair in group if layers_of(pair)[1] in layers)
        found.append(inside or group)
    return found


def _paths_of(families: Iterable[Family]) -> frozenset[str]:
    return frozenset(member.path for family in families for member in family.members.values())
