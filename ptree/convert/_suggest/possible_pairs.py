"""Pairs of arrays of a source and a target that may be the same, by their roles, numbers and shapes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import log
from typing import Literal

from .._named_arrays import NamedArray
from .._operations.operation import Operation
from .families import Collapse, Family, families_of, offsets
from .fitting import fitting
from .name_words import likeness, may_be_same_role

Reason = Literal["shape", "name"]
# Pairs of families of one size that are compared; of more, only names of the same words are.
MOST_PAIRS = 200_000


@dataclass(frozen=True, eq=False)
class Pair:
    """A family of the source, the families of the target that it may fill, and the operations that fit."""

    source: Family
    targets: tuple[Family, ...]
    operations: tuple[Operation, ...]
    reason: Reason = "name"
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unmatched:
    """The arrays of a source and a target that are not matched yet, and how many arrays of each size both have in all."""

    source: dict[str, NamedArray]
    target: dict[str, NamedArray]
    source_sizes: Counter[int]
    target_sizes: Counter[int]

    def without(self, pairs: Iterable[Pair]) -> Unmatched:
        """What is left without the arrays of these pairs."""
        pairs = [*pairs]
        source = {member.path for pair in pairs for member in pair.source.members.values()}
        target = {member.path for pair in pairs for family in pair.targets for member in family.members.values()}
        return Unmatched(
            {path: array for path, array in self.source.items() if path not in source},
            {path: array for path, array in self.target.items() if path not in target},
            self.source_sizes,
            self.target_sizes,
        )

    def families(self, collapse: Collapse) -> tuple[list[Family], list[Family]]:
        """The families of the source and of the target."""
        return families_of(self.source.values(), collapse), families_of(self.target.values(), collapse)


def possible_pairs(sources: Sequence[Family], targets: Sequence[Family]) -> Iterator[Pair]:
    """Pairs whose numbers correspond, that may have the same role, and that an operation makes equal in shape."""
    sources_of_size, targets_of_size = _by_size(sources), _by_size(targets)
    for size, of_source in sources_of_size.items():
        of_target = targets_of_size.get(size, [])
        is_large = len(of_source) * len(of_target) > MOST_PAIRS
        by_words: dict[frozenset[str], list[Family]] = {}
        for target in of_target:
            by_words.setdefault(target.words, []).append(target)
        for source in of_source:
            others = by_words.get(source.words, []) if is_large else of_target
            if is_large and len(others) > 1:
                continue
            for target in others:
                pair = _pair(source, target)
                if pair is not None:
                    yield pair


def _by_size(families: Iterable[Family]) -> dict[object, list[Family]]:
    """Families by how many members they have, how many numbers in their names, and the sizes of their arrays."""
    found: dict[object, list[Family]] = {}
    for family in families:
        key = (len(family.members), len(family.texts), family.sizes)
        found.setdefault(key, []).append(family)
    return found


def _pair(source: Family, target: Family) -> Pair | None:
    if not may_be_same_role(source.roles, target.roles) or offsets(source, target) is None:
        return None
    operations = fitting(source, target)
    return Pair(source, (target,), tuple(operations)) if operations else None


def weights_of(families: Sequence[Family]) -> dict[str, float]:
    """How much each word says: much if few names have it."""
    counts = Counter(word for family in families for word in family.words)
    return {word: 0.1 + log(1 + len(families) / count) for word, count in counts.items()}


def likeness_of(pair: Pair, weights: dict[str, float]) -> float:
    return likeness(pair.source.words, pair.targets[0].words, weights)


def layers_of(pair: Pair) -> tuple[str, str]:
    """The layers of the two arrays of a pair."""
    return pair.source.parent, pair.targets[0].parent
