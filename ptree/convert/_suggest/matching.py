"""Match the arrays of a source and a target: by shapes that only one array has on either side, by names that are clearly most alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from heapq import nlargest
from math import log
from typing import Literal

from .._named_arrays import NamedArray
from .._operations.operation import Operation
from .families import COLLAPSE_LEVELS, Collapse, Family, described_of, families_of, offsets
from .fitting import fitting
from .fused import fused_operations, fused_targets, is_in_known_order
from .name_words import likeness, may_be_same_role

Reason = Literal["shape", "name"]
_LEAST_LIKENESS = 0.35
_LEAST_LEAD = 0.15
_LEAST_LIKENESS_OF_THE_LAST = 0.25
# Pairs of families of one size that are compared; of more, only names of the same words are.
_MOST_PAIRS = 200_000
FUSED_ORDER = "shapes do not tell whether queries, keys and values lie one after the other or head by head"


@dataclass(frozen=True, eq=False)
class Pair:
    """A family of the source, the families of the target that it may fill, and the operations that fit."""

    source: Family
    targets: tuple[Family, ...]
    operations: tuple[Operation, ...]
    reason: Reason = "name"
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Matched:
    """Pairs that are certain, groups of pairs of which one is to be chosen, and arrays that are in no pair."""

    pairs: tuple[Pair, ...]
    undecided: tuple[tuple[Pair, ...], ...]
    """The pairs of one family of the source with each target that it may fill."""
    unused: tuple[NamedArray, ...]
    missing: tuple[NamedArray, ...]


@dataclass(frozen=True)
class _Unmatched:
    """The arrays of a source and a target that are not matched yet, and how many arrays of each size both have in all."""

    source: dict[str, NamedArray]
    target: dict[str, NamedArray]
    source_sizes: Counter[int]
    target_sizes: Counter[int]

    def without(self, pairs: Iterable[Pair]) -> _Unmatched:
        """What is left without the arrays of these pairs."""
        pairs = [*pairs]
        source = {member.path for pair in pairs for member in pair.source.members.values()}
        target = {member.path for pair in pairs for family in pair.targets for member in family.members.values()}
        return _Unmatched(
            {path: array for path, array in self.source.items() if path not in source},
            {path: array for path, array in self.target.items() if path not in target},
            self.source_sizes,
            self.target_sizes,
        )

    def families(self, collapse: Collapse) -> tuple[list[Family], list[Family]]:
        """The families of the source and of the target."""
        return families_of(self.source.values(), collapse), families_of(self.target.values(), collapse)


def matched(source: Sequence[NamedArray], target: Sequence[NamedArray]) -> Matched:
    """Match the arrays of a source and a target; what is not certain is left undecided."""
    unmatched = _Unmatched(
        {array.path: array for array in source},
        {array.path: array for array in target},
        _sizes(source),
        _sizes(target),
    )
    pairs: list[Pair] = []
    for collapse in COLLAPSE_LEVELS:
        fused = _fused(*unmatched.families(collapse))
        pairs += fused
        unmatched = unmatched.without(fused)
        found = _Matching(unmatched, *unmatched.families(collapse), pairs).decided()
        pairs += found
        unmatched = unmatched.without(found)
    undecided: list[tuple[Pair, ...]] = []
    for collapse in COLLAPSE_LEVELS:
        groups = _undecided(*unmatched.families(collapse))
        undecided += groups
        unmatched = unmatched.without(pair for group in groups for pair in group)
    return Matched(tuple(pairs), tuple(undecided), tuple(unmatched.source.values()), tuple(unmatched.target.values()))


def _sizes(arrays: Iterable[NamedArray]) -> Counter[int]:
    counts: Counter[int] = Counter()
    for array in arrays:
        size = 1
        for length in described_of(array).shape:
            size *= length
        counts[size] += 1
    return counts


# ------------------------------------------------------------------------------- one array for three


def _fused(sources: Sequence[Family], targets: Sequence[Family]) -> list[Pair]:
    """Sources that hold query, key and value of one target each, where only one fits."""
    possible: list[tuple[Pair, str]] = []
    for group in fused_targets(targets):
        for source in sources:
            if not may_be_same_role(source.roles, group.families[0].roles):
                continue
            operations = fused_operations(source, group)
            if operations:
                doubts = () if is_in_known_order(source) else (FUSED_ORDER,)
                possible.append((Pair(source, group.families, tuple(operations), "shape", doubts), group.name))
    by_source = Counter(id(pair.source) for pair, _ in possible)
    by_target = Counter(name for _, name in possible)
    return [pair for pair, name in possible if by_source[id(pair.source)] == 1 and by_target[name] == 1]


# ------------------------------------------------------------------------------- one array for one


def _possible_pairs(sources: Sequence[Family], targets: Sequence[Family]) -> Iterator[Pair]:
    """Pairs whose numbers correspond, that may have the same role, and that an operation makes equal in shape."""
    sources_of_size, targets_of_size = _by_size(sources), _by_size(targets)
    for size, of_source in sources_of_size.items():
        of_target = targets_of_size.get(size, [])
        is_large = len(of_source) * len(of_target) > _MOST_PAIRS
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


def _undecided(sources: Sequence[Family], targets: Sequence[Family]) -> list[tuple[Pair, ...]]:
    """The pairs of each source for which there are some, most alike first."""
    weights = _weights([*sources, *targets])
    groups: dict[int, list[Pair]] = {}
    for pair in _possible_pairs(sources, targets):
        groups.setdefault(id(pair.source), []).append(pair)
    return [tuple(sorted(group, key=lambda pair: -_likeness_of(pair, weights))) for group in groups.values()]


def _weights(families: Sequence[Family]) -> dict[str, float]:
    """How much each word says: much if few names have it."""
    counts = Counter(word for family in families for word in family.words)
    return {word: 0.1 + log(1 + len(families) / count) for word, count in counts.items()}


def _likeness_of(pair: Pair, weights: dict[str, float]) -> float:
    return likeness(pair.source.words, pair.targets[0].words, weights)


@dataclass
class _Candidates:
    """The pairs that one family is in, with how alike their names are."""

    pairs: list[tuple[float, Pair]] = field(default_factory=list)
    unpaired: list[tuple[float, Family]] = field(default_factory=list)
    """Families of the other side of equal size but another number of members: rivals in name only."""

    def preferred(self, decided: set[int]) -> list[Pair]:
        """The pair whose names are clearly most alike, alone; nothing where there is none."""
        open_ones = [(score, at) for at, (score, pair) in enumerate(self.pairs) if _is_open(pair, decided)]
        if not open_ones:
            return []
        first, *others = nlargest(2, open_ones)
        score, at = first
        pair = self.pairs[at][1]
        lead = score - others[0][0] if others else score
        is_alike = score >= _LEAST_LIKENESS and lead >= _LEAST_LEAD
        return [pair] if is_alike and self._is_ahead_of_unpaired(score, pair, decided) else []

    def _is_ahead_of_unpaired(self, score: float, pair: Pair, decided: set[int]) -> bool:
        least_lead = _LEAST_LEAD if _is_single(pair) else 0.0
        return score - max(self._open_unpaired(decided), default=0.0) >= least_lead

    def is_last(self, pair: Pair, decided: set[int]) -> bool:
        """Whether no other pair is left; of single arrays also no unpaired family."""
        if _is_single(pair) and self._open_unpaired(decided):
            return False
        return sum(_is_open(other, decided) for _, other in self.pairs) == 1

    def _open_unpaired(self, decided: set[int]) -> list[float]:
        """How alike the names of the unpaired families are that are not matched yet."""
        return [score for score, family in self.unpaired if id(family) not in decided]


def _has_other_number(pair: Pair) -> bool:
    """Whether both names have a number and it differs, as of `ln_2` and `norm1`: then names do not say that they are the same."""
    numbers = pair.source.fixed_number, pair.targets[0].fixed_number
    return all(numbers) and numbers[0] != numbers[1]


def _is_single(pair: Pair) -> bool:
    """Whether a pair is of single arrays, so that no numbers of names correspond."""
    return len(pair.source.members) == 1


def _layers_of(pair: Pair) -> tuple[str, str]:
    """The layers of the two arrays of a pair."""
    return pair.source.parent, pair.targets[0].parent


def _is_open(pair: Pair, decided: set[int]) -> bool:
    return id(pair.source) not in decided and id(pair.targets[0]) not in decided


class _Matching:
    """The matching of the families of one level."""

    def __init__(self, unmatched: _Unmatched, sources: list[Family], targets: list[Family], before: Sequence[Pair]):
        self._unmatched = unmatched
        self._pairs = [*_possible_pairs(sources, targets)]
        self._weights = _weights([*sources, *targets])
        self._candidates: dict[int, _Candidates] = {}
        for pair in self._pairs:
            score = _likeness_of(pair, self._weights)
            for family in (pair.source, pair.targets[0]):
                self._candidates.setdefault(id(family), _Candidates()).pairs.append((score, pair))
        self._note_unpaired(sources, targets)
        self._decided: set[int] = set()
        self._layers = {_layers_of(pair) for pair in before if len(pair.targets) == 1}
        self._found: list[Pair] = []

    def _note_unpaired(self, sources: Sequence[Family], targets: Sequence[Family]) -> None:
        """Note for each family those of the other side with arrays of the same sizes, but more or fewer of them."""
        for family in (*sources, *targets):
            self._candidates.setdefault(id(family), _Candidates())
        by_size: dict[int, list[Family]] = {}
        for target in targets:
            for size in {*target.sizes}:
                by_size.setdefault(size, []).append(target)
        for source in sources:
            count = sum(len(by_size.get(size, ())) for size in {*source.sizes})
            if count * len(sources) > _MOST_PAIRS:
                continue  # so many are compared by equal words alone
            others = {id(target): target for size in {*source.sizes} for target in by_size.get(size, ())}
            for target in others.values():
                is_pair = len(source.members) == len(target.members) and len(source.texts) == len(target.texts)
                if is_pair or not may_be_same_role(source.roles, target.roles):
                    continue
                score = likeness(source.words, target.words, self._weights)
                self._candidates[id(source)].unpaired.append((score, target))
                self._candidates[id(target)].unpaired.append((score, source))

    def decided(self) -> list[Pair]:
        """The pairs that are certain."""
        self._accept(replace(pair, reason="shape") for pair in self._pairs if self._is_only_of_its_size(pair))
        while True:
            count = len(self._found)
            self._accept(self._in_matched_layers())
            if len(self._found) == count:
                self._accept(self._by_names())
            if len(self._found) == count:
                self._accept(self._only_ones_left())
            if len(self._found) == count:
                return self._found

    def _accept(self, pairs: Iterable[Pair]) -> None:
        for pair in [*pairs]:
            if _is_open(pair, self._decided):
                self._decided |= {id(pair.source), id(pair.targets[0])}
                self._layers.add(_layers_of(pair))
                self._found.append(pair)

    def _is_only_of_its_size(self, pair: Pair) -> bool:
        """Whether no other array on either side has as many numbers as one of these."""
        counts = Counter(pair.source.sizes)
        return all(
            self._unmatched.source_sizes[size] == count and self._unmatched.target_sizes[size] == count
            for size, count in counts.items()
        )

    def _in_matched_layers(self) -> list[Pair]:
        """Pairs of arrays of two layers of which other arrays are matched, where only one fits: the bias beside a kernel."""
        open_ones = [pair for pair in self._pairs if _is_open(pair, self._decided)]
        inside = [pair for pair in open_ones if _layers_of(pair) in self._layers and all(_layers_of(pair))]
        by_family = Counter(id(family) for pair in inside for family in (pair.source, pair.targets[0]))
        return [pair for pair in inside if by_family[id(pair.source)] == by_family[id(pair.targets[0])] == 1]

    def _by_names(self) -> list[Pair]:
        """Pairs of families that each prefer the other: their names are clearly most alike."""
        preferred: Counter[int] = Counter()
        for candidates in self._candidates.values():
            preferred.update(id(pair) for pair in candidates.preferred(self._decided))
        return [pair for pair in self._pairs if preferred[id(pair)] == 2 and not _has_other_number(pair)]

    def _only_ones_left(self) -> list[Pair]:
        """Pairs of families that fit nothing else that is left, and whose names have something in common."""
        found: list[Pair] = []
        for pair in self._pairs:
            if not _is_open(pair, self._decided) or _has_other_number(pair):
                continue
            candidates = [self._candidates[id(family)] for family in (pair.source, pair.targets[0])]
            is_last = all(candidate.is_last(pair, self._decided) for candidate in candidates)
            if is_last and _likeness_of(pair, self._weights) >= _LEAST_LIKENESS_OF_THE_LAST:
                found.append(pair)
        return found
