"""Rules for tied leaves: a leaf has several names, and rules that name two of them must give one placement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

from jax.sharding import NamedSharding, PartitionSpec, Sharding

from .._edit import Selector, assign
from .._errors import PatternError
from .._paths import STACKED, escape
from .._tree import PyTree, Tie, leaves, permuted_entries, plain, spec_entries, with_stack_axes
from .._words import lines, quoted
from .array_leaves import shape_and_dtype
from .request import ShardingRule, pattern_that_matches, spelled_stacks, spells_segment


class _Pair(NamedTuple):
    """Two rules for one leaf, by two of its names."""

    taker: ShardingRule
    """The rule that applies to it."""
    path: str
    """The name by which it does."""
    taker_tie: Tie
    """The tie of this name; without transforms for the leaf's own path."""
    other: ShardingRule
    """The first that matches the other name, which the taker does not match."""
    name: str
    tie: Tie
    expected: Sharding | PartitionSpec
    """What the other would have to give, for the axes that the leaf has by that name."""
    given: Sharding | PartitionSpec

    @property
    def agrees(self) -> bool:
        return self.expected == self.given

    @property
    def is_for_own_axes(self) -> bool:
        """Whether the other rule is for the leaf's own axes, and the one that comes first for those of a transposed alias."""
        return bool(self.taker_tie.via) and self.name == self.tie.source


class TiedRules:
    """The rules of a tree with ties that match a leaf by a name by which the rule that applies to it does not match."""

    def __init__(self, tree: PyTree, ties: Mapping[str, Tie], rules: Mapping[Any, ShardingRule]):
        self.tree, self.ties, self.rules = tree, ties, rules

    def check(self, rule_of: Mapping[str, ShardingRule]) -> None:
        """Raise if two rules name one leaf by different names and give it different placements.

        A rule that does not tell the names apart, such as `**` or `**/kernel` for `head/kernel` where `embed/table` has a rule of
        its own, is for leaves in general: it gives way to an earlier rule, as everywhere.

        Raises:
            PatternError: with both rules and both names.
        """
        problems = [
            _conflict(self.tree, pair) for pair in self._pairs(rule_of) if not pair.agrees and _means_one_name(pair)
        ]
        if problems:
            raise PatternError(lines(problems))

    def needed(self, rule_of: Mapping[str, ShardingRule]) -> dict[Any, ShardingRule]:
        """The rules without what others say too, by other names of the leaves: selector -> rule.

        A rule that applies to no leaf goes, if those before it place all that it matches as it does. Where a rule applies to
        a leaf by a transposed alias, and a later one by its own path and alike, the first leaves this leaf to the other.
        """
        pairs = [*self._pairs(rule_of)]
        differing = {pair.other for pair in pairs if not pair.agrees}
        rule_for_own_axes = {pair.tie.source: pair.other for pair in pairs if pair.agrees and pair.is_for_own_axes}
        leaves_of = Counter(rule for path, rule in rule_of.items() if path not in rule_for_own_axes)
        leaves_of.update(rule_for_own_axes.values())
        left_out = self._left_out(pairs, rule_for_own_axes)
        changed = {*left_out, *(pair.other for pair in pairs)}
        kept: dict[Any, ShardingRule] = {}
        for key, rule in self.rules.items():
            if rule in changed and not leaves_of[rule] and rule not in differing:
                continue
            names = left_out.get(rule)
            selector = (*_parts(rule.selector), *map(_without, names)) if names else key
            kept[selector] = replace(rule, selector=selector)
        return kept

    def _left_out(
        self, pairs: Iterable[_Pair], rule_for_own_axes: Mapping[str, ShardingRule]
    ) -> dict[ShardingRule, dict[str, None]]:
        """The aliases that rules leave to a later one for the leaf's own axes: rule -> names, each once."""
        place_of = {rule: place for place, rule in enumerate(self.rules.values())}
        left_out: dict[ShardingRule, dict[str, None]] = {}
        for pair in pairs:
            own = rule_for_own_axes.get(pair.tie.source)
            if own is None:
                continue
            for rule, name in ((pair.taker, pair.path), (pair.other, pair.name)):
                if place_of[rule] < place_of[own]:
                    left_out.setdefault(rule, {})[name] = None
        return left_out

    def _pairs(self, rule_of: Mapping[str, ShardingRule]) -> Iterator[_Pair]:
        names_of: dict[str, dict[str, Tie]] = {}
        for alias, tie in self.ties.items():
            names_of.setdefault(tie.source, {tie.source: Tie(tie.source)})[alias] = tie
        for path, names in names_of.items():
            if path in rule_of:
                yield from self._pairs_of_leaf(path, names, rule_of[path])

    def _pairs_of_leaf(self, path: str, names: Mapping[str, Tie], taker: ShardingRule) -> Iterator[_Pair]:
        first_of = {name: self._first_that_matches(name, path) for name in names}
        by_taker = next((name for name, rule in first_of.items() if rule is taker), path)
        tie_of_taker = names[by_taker]
        if tie_of_taker.via and first_of[path] is None:
            return  # no rule is for the leaf's own axes, which is another error
        dimensions = self._dimensions[path]
        # from the axes of the name that the taker is for to those of the leaf
        placement = _through(tie_of_taker.back(path), _whole(taker, by_taker), dimensions)
        for name, other in first_of.items():
            if other is not None and other is not taker:
                expected = _through(names[name], placement, dimensions)
                yield _Pair(taker, by_taker, tie_of_taker, other, name, names[name], expected, _whole(other, name))

    @cached_property
    def _dimensions(self) -> dict[str, int]:
        sources = {tie.source for tie in self.ties.values()}
        dimensions: dict[str, int] = {}
        for path, leaf in leaves(self.tree):
            if path in sources:
                found = shape_and_dtype(leaf)
                dimensions[path] = 0 if found is None else len(found[0])
        return dimensions

    @cached_property
    def _left(self) -> dict[ShardingRule, Collection[str]]:
        """What is left, by own paths, of each rule that removes leaves."""
        removing = [rule for rule in self.rules.values() if _removes(rule.selector)]
        return {rule: assign(self.tree, {rule.selector: True}, strict=False).keys() for rule in removing}

    def _first_that_matches(self, name: str, path: str) -> ShardingRule | None:
        for rule in self.rules.values():
            if rule in self._left and path not in self._left[rule]:
                continue
            if _begins_with_all(rule.selector) or pattern_that_matches(rule.selector, name) is not None:
                return rule
        return None


def _parts(selector: Selector) -> Sequence[Any]:
    return selector if isinstance(selector, tuple) else (selector,)


def _removes(selector: Selector) -> bool:
    return any(isinstance(part, str) and part.startswith("!") for part in _parts(selector))


def _begins_with_all(selector: Selector) -> bool:
    first = _parts(selector)[0]
    return isinstance(first, str) and first.startswith("!")


def _whole(rule: ShardingRule, name: str) -> Sharding | PartitionSpec:
    """What a rule gives the leaf with this name, with entries for the axes of stacks."""
    given = rule.given.spec if isinstance(rule.given, NamedSharding) else rule.given
    if not isinstance(given, PartitionSpec):
        return given
    stacks = spelled_stacks(rule.selector, name) if STACKED in name else ()
    return plain(with_stack_axes(given, stacks))


def _through(tie: Tie, given: Sharding | PartitionSpec, dimensions: int) -> Sharding | PartitionSpec:
    """A placement of a leaf for the axes that it has by a name."""
    if not isinstance(given, PartitionSpec) or len(given) > dimensions:
        return given
    entries = spec_entries(given, dimensions)
    for transform in tie.via:
        entries = permuted_entries(entries, transform.axes)
    return plain(PartitionSpec(*entries))


def _means_one_name(pair: _Pair) -> bool:
    """Whether the other rule spells the segment at which its name parts from that of the taker."""
    segments = zip(pair.name.split("/"), pair.path.split("/"), strict=False)
    parting = next((at for at, (segment, other) in enumerate(segments) if segment != other), 0)
    return spells_segment(pair.other.selector, pair.name, parting)


def _without(name: str) -> str:
    """The part of a selector that leaves out the leaf of this name."""
    return f"!{escape(name)}"


def _conflict(tree: PyTree, pair: _Pair) -> str:
    name = quoted(pair.name)
    return (
        f"the rules {quoted(pair.taker.name)} and {quoted(pair.other.name)} place one leaf in two ways: {quoted(pair.path)}"
        f"{_seen(pair.taker_tie)} as {pair.taker.given}, and {name}{_seen(pair.tie)}, which is tied to it, as {pair.other.given}."
        f" Give {_expected_of_layer(pair)} for {name}, or {_way_to_leave_out(tree, pair)}"
    )


def _seen(tie: Tie) -> str:
    return f" ({tie.shown()})" if tie.via else ""


def _way_to_leave_out(tree: PyTree, pair: _Pair) -> str:
    """How one of the two rules leaves the leaf to the other: the one for the axes of an alias to that for the leaf's own."""
    rule, name = (pair.taker, pair.path) if pair.is_for_own_axes else (pair.other, pair.name)
    selector = (*_parts(rule.selector), _without(name))
    if not assign(tree, {selector: True}, strict=False):
        return f"leave out the rule {quoted(rule.name)}"
    shown = quoted(_without(name))
    if isinstance(rule.selector, str):
        shown = f"({quoted(rule.selector)}, {shown})"
    which = "that rule" if rule is pair.other else f"the rule {quoted(rule.name)}"
    subject = "it" if rule is pair.other else quoted(name)
    return f"leave {subject} out of {which}: {shown}"


def _expected_of_layer(pair: _Pair) -> str:
    """What the other rule would have to give, without the axes of stacks that it has no entries for."""
    expected = pair.expected
    if not isinstance(expected, PartitionSpec) or STACKED not in pair.name:
        return str(expected)
    spelled = spelled_stacks(pair.other.selector, pair.name)
    skipped = {axis for axis, has_entry in enumerate(spelled) if not has_entry}
    if any(expected[axis] is not None for axis in skipped if axis < len(expected)):
        return f"{expected}, in a rule that spells each ':',"
    return str(PartitionSpec(*(entry for axis, entry in enumerate(expected) if axis not in skipped)))
