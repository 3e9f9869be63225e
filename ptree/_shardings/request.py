"""A request, the sharding given for one leaf, and a rule that gives it; what the pattern of a rule spells of a path."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from jax.sharding import PartitionSpec, Sharding

from .._edit import Selector
from .._paths import STACKED, compile


@dataclass(frozen=True)
class Request:
    """The Sharding or PartitionSpec given for one leaf, and for which axes of its stacks it has an entry."""

    given: Sharding | PartitionSpec
    stack_axes: tuple[bool, ...]
    """For each stack on the way to the leaf, whether what was given has an entry for the stack's own axis; for each of the first axes
    of a slot, whether it has one for that."""
    rule: str
    """The selector of the rule; empty where it was given at the leaf's place in a tree."""
    of_parameter: bool = False
    """Whether the leaf is a slot and the entries are for the axes of its parameter."""

    @property
    def skipped_axes(self) -> list[int]:
        """The axes of stacks for which it has no entry."""
        return [axis for axis, has_entry in enumerate(self.stack_axes) if not has_entry]

    def layer_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The part of a shape that a PartitionSpec has entries for: one layer, and axes of stacks that a rule spells."""
        return tuple(size for axis, size in enumerate(shape) if axis not in self.skipped_axes)


@dataclass(frozen=True, eq=False)
class ShardingRule:
    """A rule of shardings, as the label of the leaves that it takes."""

    selector: Selector
    given: Sharding | PartitionSpec
    name: str


_ANY_NAME = "\0"
"""A name that only `*` and `**` match, where they may stand for the layers of a stack."""


def spelled_stacks(selector: Selector, path: str) -> tuple[bool, ...]:
    """For each stack of a leaf, whether the rule of shardings spells the axis of the stack as `:`.

    >>> spelled_stacks("groups/:/blocks/*/w", "groups/:/blocks/:/w"), spelled_stacks("**/w", "groups/:/blocks/:/w")
    ((True, False), (False, False))
    """
    segments = path.split("/")
    pattern = pattern_that_matches(selector, path)
    spelled: list[bool] = []
    for at, segment in enumerate(segments):
        if segment == STACKED:
            # a pattern that also matches another name in the place of `:` has a wildcard there
            other = "/".join([*segments[:at], _ANY_NAME, *segments[at + 1 :]])
            spelled.append(pattern is not None and not _matches(pattern, other))
    return tuple(spelled)


def pattern_that_matches(selector: Selector, path: str) -> str | re.Pattern[str] | None:
    """Find the first pattern or regex in the selector of a rule that matches a path; predicates and exclusions have none."""
    if isinstance(selector, (str, re.Pattern)):
        return selector if _matches(selector, path) else None
    if not isinstance(selector, Sequence):
        return None
    for part in selector:
        pattern = pattern_that_matches(part, path)
        if pattern is not None:
            return pattern
    return None


def _matches(pattern: str | re.Pattern[str], path: str) -> bool:
    if isinstance(pattern, re.Pattern):
        return pattern.fullmatch(path) is not None
    return not pattern.startswith("!") and compile(pattern).matches(path)


def spells_segment(selector: Selector, path: str, at: int) -> bool:
    """Whether a rule that matches a path spells this segment of it, and would not match another in its place.

    >>> spells_segment("**/kernel", "head/kernel", 0), spells_segment("{head,embed}", "head/kernel", 0)
    (False, True)
    """
    segments = path.split("/")
    other = "/".join([*segments[:at], _ANY_NAME, *segments[at + 1 :]])
    pattern = pattern_that_matches(selector, path)
    return pattern is not None and not _matches(pattern, other)
