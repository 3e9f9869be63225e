"""Group the leaves of a model that have one name in each layer; write one number for each layer as a sparkline."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from .._words import number_ranges

LONGEST_BRACES = 36
"""Characters of what stands in braces for several names."""
_LONGEST_NUMBERS = 120
"""Characters of numbers in braces that cannot be written as a few ranges, as of every second layer."""
_BARS = "▁▂▃▄▅▆▇█"
_NOT_FINITE = "!"
_MISSING = " "
_LEAST_SPAN = 0.01
"""Of the largest value: bars of values that differ by less would show rounding and noise as mountains."""
_NUMBERED = re.compile(r"(.*?)(0|[1-9][0-9]{0,8})(\D*)", re.DOTALL)
_NUMBER = "\0"

_Family = dict[tuple[str, ...], list[tuple[int, str]]]
"""The segments around a number -> each number that stands there, with its path."""


class NumberedName(NamedTuple):
    """A name with a number in it, which names a layer: `3`, `layer_3`, `Dense_3`, `conv3x`."""

    before: str
    number: int
    after: str


def numbered_name(name: str) -> NumberedName | None:
    """The name cut up around its last number; None where it has none that a range of a pattern writes as it is.

    >>> numbered_name("conv2d_3")
    NumberedName(before='conv2d_', number=3, after='')
    """
    found = _NUMBERED.fullmatch(name)
    return None if found is None else NumberedName(found[1], int(found[2]), found[3])


@dataclass(frozen=True)
class LayerGroup:
    """Leaves that have one name in each layer, in the order of the layers."""

    name: str
    """`h/{0..11}/attn/kernel`; of a leaf that stands alone its path."""
    paths: tuple[str, ...]


def group_by_layer(paths: Iterable[str]) -> list[LayerGroup]:
    """Group paths that differ in the number of one segment alone, `3` or `Dense_3`, in the order in which groups begin.

    >>> [group.name for group in group_by_layer(["h/0/w", "h/0/b", "h/1/w", "h/1/b", "head"])]
    ['h/{0..1}/w', 'h/{0..1}/b', 'head']

    >>> [group.name for group in group_by_layer(["Dense_0/kernel", "Dense_1/kernel", "Norm_0/scale"])]
    ['Dense_{0..1}/kernel', 'Norm_0/scale']

    Where a path has several numbers, the first one groups, if other paths differ from it there, else the next.
    """
    paths = list(dict.fromkeys(paths))
    left, which = paths, 0
    group_of: dict[str, LayerGroup] = {}
    while left:
        families = _families(left, which)
        for around, members in families.items():
            if len(members) > 1:
                group = _group(around, sorted(members))
                group_of.update(dict.fromkeys(group.paths, group))
        numbered = [path for members in families.values() for _, path in members]
        left, which = [path for path in numbered if path not in group_of], which + 1
    groups: dict[str, LayerGroup] = {}
    for path in paths:
        group = group_of.get(path) or LayerGroup(path, (path,))
        groups[group.paths[0]] = group  # two names may be the same, with `*` for many numbers
    return list(groups.values())


def _families(paths: Iterable[str], which: int) -> _Family:
    """The paths that have so many numbers, by what stands around that number."""
    families: _Family = {}
    for path in paths:
        segments = path.split("/")
        numbered = [(place, numbered_name(segment)) for place, segment in enumerate(segments)]
        places = [(place, found) for place, found in numbered if found is not None]
        if which < len(places):
            place, found = places[which]
            segments[place] = found.before + _NUMBER + found.after  # stands in no path that is written for people
            families.setdefault(tuple(segments), []).append((found.number, path))
    return families


def _group(around: Sequence[str], members: Sequence[tuple[int, str]]) -> LayerGroup:
    numbers = short_ranges([number for number, _ in members])
    name = "/".join(around).replace(_NUMBER, numbers)
    return LayerGroup(name, tuple(path for _, path in members))


def short_ranges(numbers: Sequence[int]) -> str:
    """Sorted numbers as the braces of a pattern; `*` where these would be very long.

    >>> short_ranges(range(0, 10, 2))
    '{0,2,4,6,8}'
    """
    shown = number_ranges(numbers)
    return shown if len(shown) <= _LONGEST_NUMBERS else "*"


def sparkline(values: Sequence[float | None], most: int = 24) -> str:
    """One bar for each value, from the least to the largest; of many values one bar for several.

    >>> sparkline([1, 2, None, 3, float("nan")])
    '▁▅ █!'

    `!` stands for NaN and inf, a space for None: nothing is known of this layer. Values that are equal but for one percent
    have bars of one height.
    """
    shown = [_mean(part) for part in _parts(values, most)]
    finite = [value for value in shown if value is not None and math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    if high - low < _LEAST_SPAN * max(abs(low), abs(high)):
        low = high
    return "".join(_bar(value, low, high) for value in shown)


def _parts(values: Sequence[float | None], most: int) -> list[Sequence[float | None]]:
    count = min(len(values), most)
    bounds = [at * len(values) // count for at in range(count + 1)] if count else []
    return [values[start:stop] for start, stop in pairwise(bounds)]


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean of those that are there; None if none is."""
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def _bar(value: float | None, low: float, high: float) -> str:
    if value is None:
        return _MISSING
    if not math.isfinite(value):
        return _NOT_FINITE
    if high == low:
        return _BARS[len(_BARS) // 2 - 1]
    return _BARS[round((value - low) / (high - low) * (len(_BARS) - 1))]
