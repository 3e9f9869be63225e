"""The explanation of a plan: which leaves each rule applies to, what every device holds whole and why, the biggest leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .._words import SHOWN, in_bytes, table
from .plan_rows import Row, Sums, rows_of, size_in_words, spec_in_words
from .plan_table import sums_in_words
from .planned_leaves import PlannedLeaf

_WIDE = 10_000
_BIGGEST = 5


class RuleShare(NamedTuple):
    """What one rule of a plan applies to."""

    rule: str
    leaves: int
    bytes: int
    """The size of its leaves, each once."""
    bytes_per_device: int
    replicated_bytes: int
    """The size of those that every device holds whole."""


class PlanExplanation(NamedTuple):
    """What the rules of a plan do; print it for a table."""

    leaves: tuple[PlannedLeaf, ...]
    sums: Sums
    rules: tuple[RuleShare, ...]
    replicated: dict[str, str]
    """Path -> why each device holds all of this leaf."""
    biggest: tuple[Row, ...]
    """The leaves of which each device holds most, layers together."""
    tied: dict[str, str]
    """Alias -> the leaf where it lives, whatever rules match the alias."""

    def __str__(self) -> str:
        head = ("rule", "leaves", "size", "per device", "on every device")
        rows = [head, *map(_rule_cells, self.rules)]
        lines = [*table(rows, right={1, 2, 3, 4}), *sums_in_words(self.sums, _WIDE)]
        lines += [f"tied: {alias} lives where {source} does" for alias, source in [*self.tied.items()][:SHOWN]]
        if self.biggest:
            cells = [(row.path, spec_in_words(row.leaf.sharding), size_in_words(row)) for row in self.biggest]
            lines += ["", *table([("biggest", "divided by", "per device"), *cells], right={2})]
        if self.replicated:
            whole = rows_of(leaf for leaf in self.leaves if leaf.is_replicated)
            whole.sort(key=lambda row: -row.bytes_per_device)
            cells = [(row.path, size_in_words(row), why_replicated(row.leaf)) for row in whole[:SHOWN]]
            lines += ["", *table([("on every device", "size", "why"), *cells], right={1})]
            if len(whole) > SHOWN:
                lines.append(f"and {len(whole) - SHOWN} more")
        return "\n".join(lines)


def _rule_cells(share: RuleShare) -> tuple[str, ...]:
    return (
        share.rule or "(its place in a tree)",
        f"{share.leaves:,}",
        in_bytes(share.bytes),
        in_bytes(share.bytes_per_device),
        in_bytes(share.replicated_bytes),
    )


def explanation_of(leaves: Sequence[PlannedLeaf], sums: Sums, tied: Mapping[str, str]) -> PlanExplanation:
    """Explain a plan, from its leaves, what they are together, and the sources of aliases."""
    by_rule: dict[str, list[PlannedLeaf]] = {}
    for leaf in leaves:
        by_rule.setdefault(leaf.reason, []).append(leaf)
    replicated = {leaf.path: why_replicated(leaf) for leaf in leaves if leaf.is_replicated}
    biggest = sorted(rows_of(leaves), key=lambda row: -row.bytes_per_device)
    shares = tuple(_share(rule, taken) for rule, taken in by_rule.items())
    return PlanExplanation(tuple(leaves), sums, shares, replicated, tuple(biggest[:_BIGGEST]), dict(tied))


def _share(rule: str, leaves: list[PlannedLeaf]) -> RuleShare:
    return RuleShare(
        rule,
        len(leaves),
        sum(leaf.bytes for leaf in leaves),
        sum(leaf.bytes_per_device for leaf in leaves),
        sum(leaf.bytes_per_device for leaf in leaves if leaf.is_replicated),
    )


def why_replicated(leaf: PlannedLeaf) -> str:
    """Why each device holds all of a leaf."""
    if leaf.undivided:
        return "; ".join(leaf.undivided)
    if leaf.bytes == 0:
        return "it has no numbers"
    if any(leaf.sharding.spec):
        return "the axes that divide it have one device"
    if leaf.rule:
        return f"by {leaf.rule!r}"
    return leaf.reason or "it was given so"
