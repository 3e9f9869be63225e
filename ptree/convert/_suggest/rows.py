"""Pairs of families as rows of a table: patterns that match their names and no others, checked by a plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..._tree import PyTree
from ...files._kernels import fits_both_layouts
from .._named_arrays import NamedArray, NamedArrays
from .._operations.operation import AsIs, Operation
from .._table.conversion_plan import planned
from .._table.names import NamePattern
from .._table.row import Row, parsed_row
from .families import Family, offsets, wildcards_of
from .name_words import last_segment
from .possible_pairs import Pair
from .suggestion import SuggestedRow
from .weight_norms import magnitude_family, weight_norm_of

CHOICE = "shapes and names do not tell which one"
ONLY_ONE = "only this one fits, and the names do not tell that it is meant"


class RowWriter:
    """Writes pairs of families as rows, with the names of a source and a target as their frameworks write them."""

    def __init__(self, arrays: NamedArrays, is_dotted_target: bool, magnitudes: Mapping[str, NamedArray]):
        self._magnitudes = dict(magnitudes)
        self._is_dotted = arrays.is_dotted, is_dotted_target
        self._paths: dict[tuple[int, str], list[str]] = {}
        for path in arrays.by_path:
            self._paths.setdefault(_bucket(path), []).append(path)

    def row(self, pair: Pair) -> SuggestedRow:
        """A pair as a row; the other operations that fit are its alternatives."""
        first, *others = (self._row(pair, operation) for operation in pair.operations)
        if not others:
            return first
        return SuggestedRow(
            first.sources, first.targets, first.operation, first.reason, first.doubts, tuple(others), first.is_explicit
        )  # fmt: skip

    def undecided(self, pairs: Sequence[Pair]) -> SuggestedRow:
        """The pairs of one source as a row, with the others as its alternatives."""
        doubt = CHOICE if len(pairs) > 1 else ONLY_ONE
        rows = [self._row(pair, operation, (doubt,)) for pair in pairs for operation in pair.operations]
        first, *others = rows
        return SuggestedRow(
            first.sources, first.targets, first.operation, first.reason, first.doubts, tuple(others), first.is_explicit
        )  # fmt: skip

    def _row(self, pair: Pair, operation: Operation, doubts: tuple[str, ...] = ()) -> SuggestedRow:
        source, targets = pair.source, pair.targets
        is_plain = all(not any(offsets(source, target) or ()) for target in targets) and self._matches_alone(source)
        left, right = wildcards_of(source, targets[0], is_plain=is_plain)
        is_explicit = _needs_operation(pair, operation)
        stored = [source]
        magnitude = magnitude_family(source, self._magnitudes)
        if magnitude is not None:
            stored.insert(0, magnitude)
            operation = weight_norm_of(magnitude, operation)
            is_explicit = True
        return SuggestedRow(
            tuple(family.pattern(left, is_dotted=self._is_dotted[0]) for family in stored),
            tuple(target.pattern(right, is_dotted=self._is_dotted[1]) for target in targets),
            operation,
            pair.reason,
            (*doubts, *pair.doubts),
            is_explicit=is_explicit,
        )

    def _matches_alone(self, family: Family) -> bool:
        """Whether the pattern with `*` matches the names of the family alone."""
        if len(family.texts) == 1:
            return True
        pattern = NamePattern(family.pattern(["*"] * (len(family.texts) - 1), is_dotted=False))
        candidates = self._candidates(family)
        return sum(pattern.read(path) is not None for path in candidates) == len(family.members)

    def _candidates(self, family: Family) -> Iterable[str]:
        has_number_at_the_end = "/" not in family.texts[-1]
        if not has_number_at_the_end:
            return self._paths[_bucket(family.path)]
        count = family.path.count("/")
        return [path for (segments, _), paths in self._paths.items() if segments == count for path in paths]


def _bucket(path: str) -> tuple[int, str]:
    return path.count("/"), last_segment(path)


def _needs_operation(pair: Pair, operation: Operation) -> bool:
    """Whether a row must name its operation: `as_is` too for a kernel that has another name in the source."""
    if not isinstance(operation, AsIs):
        return True
    target = pair.targets[0]
    rank = len(target.shapes[0])
    if rank > 2 and "kernel" in target.roles and any(map(fits_both_layouts, target.shapes)):
        return True  # of a transposed convolution it is refused otherwise
    if last_segment(pair.source.path) == last_segment(target.path) or rank < 2:
        return False
    return "kernel" in target.roles or (not target.roles and any(map(fits_both_layouts, target.shapes)))


def wrong_rows(pairs: Sequence[Pair], rows: Sequence[SuggestedRow], arrays: NamedArrays, like: PyTree) -> set[int]:
    """The indices of the rows that would not convert their pairs, such as where another row matches a name first."""
    parsed: list[Row] = [parsed_row(*row.entry) for row in rows]
    plan = planned(parsed, arrays, like)
    done: set[tuple[str, tuple[str, ...]]] = {
        (step.sources[-1].path, tuple(target.replace(".", "/") for target in step.targets))
        for step in plan.steps
        if step.sources
    }
    return {at for at, pair in enumerate(pairs) if not _steps_of(pair) <= done}


def _steps_of(pair: Pair) -> set[tuple[str, tuple[str, ...]]]:
    members = [*pair.source.members.values()]
    targets = zip(*(family.members.values() for family in pair.targets), strict=True)
    return {
        (source.path, tuple(target.path.replace(".", "/") for target in group))
        for source, group in zip(members, targets, strict=True)
    }
