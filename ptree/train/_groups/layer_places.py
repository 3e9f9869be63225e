"""Where a pattern's wildcards `*` name layers: by number, or as an axis of a stack."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ..._paths import STACKED, compile
from ..._tree import Leaf, layer_number


class LayerPlace(NamedTuple):
    """A wildcard `*` of a rule in the path of a leaf: the number of a layer, or the axis of a stack."""

    number: int | None
    axis: int | None


def layer_places(rule: str, name: str) -> list[LayerPlace]:
    """The layers, and the stacks, that the wildcards `*` of a rule stand for in the name of a leaf."""
    segments = name.split("/")
    pattern = compile(rule)
    length = pattern.reaches(segments)
    captures = iter(pattern.captures(segments[:length]) or ())
    places: list[LayerPlace] = []
    at = 0
    for part in rule.split("/"):
        if part == "**":
            capture = next(captures)
            at += len(capture.split("/")) if capture else 0
            continue
        if part == "*":
            number = layer_number(next(captures))
            if segments[at] == STACKED:
                places.append(LayerPlace(None, segments[:at].count(STACKED)))
            elif number is not None:
                places.append(LayerPlace(number, None))
        at += 1
    return places


def has_plain_wildcards(rule: str) -> bool:
    """Whether a pattern has no other wildcards than whole segments `*` and `**`."""
    return all(segment in {"*", "**"} or not {*segment} & {*"*?[]{}\\"} for segment in rule.split("/"))


def layers_of_rule(rule: str, found: Iterable[tuple[str, Leaf]]) -> list[set[int]]:
    """The numbers of the layers that each wildcard `*` of a pattern stands for in these leaves, by name."""
    numbers: list[set[int]] = []
    for name, leaf in found:
        places = layer_places(rule, name)
        numbers += [set() for _ in range(len(places) - len(numbers))]
        for seen, place in zip(numbers, places, strict=False):
            seen.update(range(leaf.shape[place.axis]) if place.number is None else [place.number])
    return numbers
