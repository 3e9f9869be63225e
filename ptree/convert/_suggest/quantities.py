"""Doubts of names that say another quantity: a deviation for a variance, a logarithm, a weight that is stored in parts."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace

from .name_words import STATISTICS, is_part_of_weight, last_segment
from .possible_pairs import Pair

STATISTIC = "the names do not say that both are the same statistic"
QUANTITY = "one name says a logarithm, a root or an inverse, and the other does not"
PART = "the weight is computed from this array and others, such as by a weight norm, a spectral norm or a mask"
_CHANGED = re.compile(
    r"(?:^|_)(log|inv|inverse|recip|reciprocal|rsqrt|sqrt|squared|neg)(?=_|$)|^(log|inv)(?=var|std|scale|sigma)|_(inv|log)$"
)


def with_doubts_of_quantities(pair: Pair, directions: Collection[str]) -> Pair:
    """A pair with a doubt for each way in which its names say that the numbers are not the same quantity.

    Args:
        directions: the paths of the directions whose magnitudes are there, so that the weight can be computed.
    """
    doubts = [*pair.doubts]
    source = pair.source
    for target in pair.targets:
        statistics = source.roles & STATISTICS, target.roles & STATISTICS
        if statistics[0] != statistics[1]:
            doubts.append(STATISTIC)
        elif _changes(source.path) != _changes(target.path):
            doubts.append(QUANTITY)
    is_part = is_part_of_weight(source.path) and not any(is_part_of_weight(target.path) for target in pair.targets)
    if is_part and source.path not in directions:
        doubts.append(PART)
    return replace(pair, doubts=tuple(dict.fromkeys(doubts)))


def _changes(path: str) -> set[str]:
    """The words of a leaf's name that say how its numbers differ from those of the plain quantity."""
    return {next(filter(None, match)) for match in _CHANGED.findall(last_segment(path).lower())}
