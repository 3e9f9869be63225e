"""Match the arrays of a source and a target: by shapes that only one array has on either side, by names that are clearly most alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from heapq import nlargest

from .._named_arrays import NamedArray
from .families import COLLAPSE_LEVELS, Family, described_of
from .fused import fused_operations, fused_targets, is_in_known_order
from .name_words import last_segment, likeness, may_be_same_role
from .possible_pairs import MOST_PAIRS, Pair, Unmatched, layers_of, likeness_of, possible_pairs, weights_of
from .undecided import undecided_pairs

_LEAST_LIKENESS = 0.35
_LEAST_LEAD = 0.15
_LEAST_LIKENESS_OF_THE_LAST = 0.25
FUSED_ORDER = "shapes do not tell whether queries, keys and values lie one after the other or head by head"


@dataclass(frozen=True)
class Matched:
    """Pairs that are certain, groups of pairs of which one is to be chosen, and arrays that are in no pair."""

    pairs: tuple[Pair, ...]
    undecided: tuple[tuple[Pair, ...], ...]
    """The pairs of one family of the source with each target that it may fill."""
    unused: tuple[NamedArray, ...]
    missing: tuple[NamedArray, ...]


def matched(source: Sequence[NamedArray], target: Sequence[NamedArray]) -> Matched:
    """Match the arrays of a source and a target; what is not certain is left undecided."""
    unmatched = Unmatched(
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
    undecided = undecided_pairs(unmatched)
    unmatched = unmatched.without(pair for group in undecided for pair in group)
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


def _has_same_numbered_layer(pair: Pair) -> bool:
    """Whether both layers have the same last name with a number, as `blocks/*/ln1` and `blocks/*/a/ln1`."""
    here, there = (last_segment(layer) for layer in layers_of(pair))
    return here == there and any(map(str.isdigit, here)) and not here.isdigit()


def _is_single(pair: Pair) -> bool:
    """Whether a pair is of single arrays, so that no numbers of names correspond."""
    return len(pair.source.members) == 1


def _is_open(pair: Pair, decided: set[int]) -> bool:
    return id(pair.source) not in decided and id(pair.targets[0]) not in decided


class _Matching:
    """The matching of the families of one level."""

    def __init__(self, unmatched: Unmatched, sources: list[Family], targets: list[Family], before: Sequence[Pair]):
        self._unmatched = unmatched
        self._pairs = [*possible_pairs(sources, targets)]
        self._weights = weights_of([*sources, *targets])
        self._candidates: dict[int, _Candidates] = {}
        for pair in self._pairs:
            score = likeness_of(pair, self._weights)
            for family in (pair.source, pair.targets[0]):
                self._candidates.setdefault(id(family), _Candidates()).pairs.append((score, pair))
        self._note_unpaired(sources, targets)
        self._decided: set[int] = set()
        self._layers = {layers_of(pair) for pair in before if len(pair.targets) == 1}
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
            if count * len(sources) > MOST_PAIRS:
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
                self._accept(self._in_layers_of_one_name())
            if len(self._found) == count:
                self._accept(self._only_ones_left())
            if len(self._found) == count:
                return self._found

    def _accept(self, pairs: Iterable[Pair]) -> None:
        for pair in [*pairs]:
            if _is_open(pair, self._decided):
                self._decided |= {id(pair.source), id(pair.targets[0])}
                self._layers.add(layers_of(pair))
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
        inside = [pair for pair in open_ones if layers_of(pair) in self._layers and all(layers_of(pair))]
        by_family = Counter(id(family) for pair in inside for family in (pair.source, pair.targets[0]))
        return [pair for pair in inside if by_family[id(pair.source)] == by_family[id(pair.targets[0])] == 1]

    def _by_names(self) -> list[Pair]:
        """Pairs of families that each prefer the other: their names are clearly most alike."""
        preferred: Counter[int] = Counter()
        for candidates in self._candidates.values():
            preferred.update(id(pair) for pair in candidates.preferred(self._decided))
        return [pair for pair in self._pairs if preferred[id(pair)] == 2 and not _has_other_number(pair)]

    def _in_layers_of_one_name(self) -> list[Pair]:
        """Pairs in layers whose last names are the same and have a number, `ln1` and `ln1`, where no other pair is."""
        alike: list[Pair] = []
        for pair in self._pairs:
            is_alike = likeness_of(pair, self._weights) >= _LEAST_LIKENESS
            if is_alike and _is_open(pair, self._decided) and _has_same_numbered_layer(pair):
                alike.append(pair)
        by_family = Counter(id(family) for pair in alike for family in (pair.source, pair.targets[0]))
        return [pair for pair in alike if by_family[id(pair.source)] == by_family[id(pair.targets[0])] == 1]

    def _only_ones_left(self) -> list[Pair]:
        """Pairs of families that fit nothing else that is left, and whose names have something in common."""
        found: list[Pair] = []
        for pair in self._pairs:
            if not _is_open(pair, self._decided) or _has_other_number(pair):
                continue
            candidates = [self._candidates[id(family)] for family in (pair.source, pair.targets[0])]
            is_last = all(candidate.is_last(pair, self._decided) for candidate in candidates)
            if is_last and likeness_of(pair, self._weights) >= _LEAST_LIKENESS_OF_THE_LAST:
                found.append(pair)
        return found
