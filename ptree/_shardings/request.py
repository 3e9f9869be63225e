"""A request, the sharding given for one leaf, and a rule that gives it; what the pattern of a rule spells of a path."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jax.sharding import PartitionSpec, Sharding

from .._edit import Selector
from .._paths import STACKED
from .._paths import compile as compile_pattern


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
    """A rule of shardings, as the label of the leaves that it applies to."""

    selector: Any
    """A key of the rules: a selector that can be hashed."""
    given: Sharding | PartitionSpec
    name: str


def spelled_stacks(selector: Selector, path: str) -> tuple[bool, ...]:
    """For each stack of a leaf, whether the rule of shardings spells the axis of the stack as `:`.

    >>> spelled_stacks("groups/:/blocks/*/w", "groups/:/blocks/:/w"), spelled_stacks("**/w", "groups/:/blocks/:/w")
    ((True, False), (False, False))
    """
    stacks = [at for at, segment in enumerate(path.split("/")) if segment == STACKED]
    return tuple(spells_segment(selector, path, at) for at in stacks)


def spells_segment(selector: Selector, path: str, at: int) -> bool:
    """Whether a rule that matches a path has the name of this segment in its pattern, and no `*` or `**` in the place of it.

    >>> spells_segment("**/kernel", "head/kernel", 0), spells_segment("{head,embed}", "head/kernel", 0)
    (False, True)
    """
    pattern = pattern_that_matches(selector, path)
    if isinstance(pattern, re.Pattern):  # a regex has no segments: it spells one if it matches no other in its place
        segments = path.split("/")
        other = "/".join([*segments[:at], _NAME_IN_NO_REGEX, *segments[at + 1 :]])
        return pattern.fullmatch(other) is None
    return pattern is not None and compile_pattern(pattern).spells(path, at)


_NAME_IN_NO_REGEX = "\0"


def pattern_that_matches(selector: object, path: str) -> str | re.Pattern[str] | None:
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
    return not pattern.startswith("!") and compile_pattern(pattern).matches(path)
