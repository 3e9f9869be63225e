"""What is asked for each leaf: the Sharding or PartitionSpec that rules, a tree or one for all give it, and the axes of stacks
that it has entries for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jax.sharding import PartitionSpec, Sharding

from .._edit import Rules, Selector, assign, rule_name
from .._errors import InitError, PatternError
from .._paths import STACKED, compile
from .._tree import Leaves, PyTree, Tree, leaves, opened, stacked_axes
from .._words import describe, lines, listed, quoted


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


@dataclass(frozen=True)
class _Rule:
    """A rule of shardings, as the label of the leaves that it takes."""

    selector: Selector
    given: Sharding | PartitionSpec
    name: str


def requests(tree: PyTree, pairs: Leaves, given: object) -> dict[str, Request]:
    """Find the Sharding or PartitionSpec that is given for each leaf: path -> request.

    Args:
        tree: any pytree.
        pairs: its leaves by path.
        given: one for every leaf, a tree with one at each leaf's path, or rules selector -> one.

    Raises:
        PatternError: a rule that takes no leaf, a leaf that has no sharding.
        InitError: what is no sharding.
    """
    if isinstance(given, (Sharding, PartitionSpec)):
        given = {"**": given}
    elif not isinstance(given, Mapping) or not _is_rules(given):
        return _by_tree(pairs, given)
    found = requests_by_rules(tree, given)
    unruled = [path for path, _ in pairs if path not in found]
    if unruled:
        raise PatternError(f"no sharding for {listed(unruled)}: add a rule for '**'")
    return found


def _is_rules(given: Rules) -> bool:
    """Whether this is a dict of rules, selector -> sharding, rather than a tree of shardings, in which some value is a node."""
    if type(given) is Tree:
        return False
    has_nodes = any(opened(value) is not None for value in given.values())
    return not (has_nodes and any(is_sharding(leaf) for _, leaf in leaves(given)))


def is_sharding(value: object) -> bool:
    """Whether a value is a Sharding or a PartitionSpec."""
    return isinstance(value, (Sharding, PartitionSpec))


def requests_by_rules(tree: PyTree, rules: Rules) -> dict[str, Request]:
    """Find what rules give the leaves that they take: path -> request.

    Raises:
        PatternError: a rule that takes no leaf.
        InitError: what is no sharding.
    """
    wrong = [
        f"{quoted(selector)} is no Sharding and no PartitionSpec, but {describe(value)}"
        for selector, value in rules.items()
        if not is_sharding(value)
    ]
    if wrong:
        raise InitError(lines(wrong))
    labels = {selector: _Rule(selector, value, rule_name(selector)) for selector, value in rules.items()}
    rule_of = assign(tree, labels, for_axes=True)
    made: dict[tuple[int, tuple[bool, ...]], Request] = {}  # few, which many leaves share
    found: dict[str, Request] = {}
    for path, rule in rule_of.items():
        stack_axes = _spelled(rule.selector, path) if STACKED in path else ()
        key = id(rule), stack_axes
        if key not in made:
            made[key] = Request(rule.given, stack_axes, rule.name)
        found[path] = made[key]
    return found


def _by_tree(pairs: Leaves, given: PyTree) -> dict[str, Request]:
    if opened(given) is None:
        raise InitError(f"shardings are a Sharding, a PartitionSpec, a tree of them or rules; got {describe(given)}")
    sharding_at = dict(leaves(given))
    _check_same_paths([path for path, _ in pairs], list(sharding_at))
    found: dict[str, Request] = {}
    for path, _ in pairs:
        whole_array = isinstance(sharding_at[path], Sharding)
        found[path] = Request(sharding_at[path], (whole_array,) * stacked_axes(path), "")
    return found


def _check_same_paths(expected: Sequence[str], got: Sequence[str]) -> None:
    """Raise a PatternError unless a tree of shardings has exactly the paths of the tree to place."""
    expected_paths, got_paths = set(expected), set(got)
    missing = [path for path in expected if path not in got_paths]
    unexpected = [path for path in got if path not in expected_paths]
    problems: list[str] = []
    if missing:
        problems.append(f"no sharding for {listed(missing)}")
    if unexpected:
        problems.append(f"no leaf of its own for the sharding at {listed(unexpected)}")
    if problems:
        raise PatternError(lines(problems))


_ANY_NAME = "\0"
"""A name that only `*` and `**` match, where they may stand for the layers of a stack."""


def _spelled(selector: Selector, path: str) -> tuple[bool, ...]:
    """For each stack of a leaf, whether the rule of shardings spells the axis of the stack as `:`.

    >>> _spelled("groups/:/blocks/*/w", "groups/:/blocks/:/w"), _spelled("**/w", "groups/:/blocks/:/w")
    ((True, False), (False, False))
    """
    segments = path.split("/")
    pattern = _pattern_that_matches(selector, path)
    spelled: list[bool] = []
    for at, segment in enumerate(segments):
        if segment == STACKED:
            # a pattern that also matches another name in the place of `:` has a wildcard there
            other = "/".join([*segments[:at], _ANY_NAME, *segments[at + 1 :]])
            spelled.append(pattern is not None and not _matches(pattern, other))
    return tuple(spelled)


def _pattern_that_matches(selector: Selector, path: str) -> str | re.Pattern[str] | None:
    """Find the first pattern or regex in the selector of a rule that matches a path; predicates and exclusions have none."""
    if isinstance(selector, (str, re.Pattern)):
        return selector if _matches(selector, path) else None
    if not isinstance(selector, Sequence):
        return None
    for part in selector:
        pattern = _pattern_that_matches(part, path)
        if pattern is not None:
            return pattern
    return None


def _matches(pattern: str | re.Pattern[str], path: str) -> bool:
    if isinstance(pattern, re.Pattern):
        return pattern.fullmatch(path) is not None
    return not pattern.startswith("!") and compile(pattern).matches(path)
