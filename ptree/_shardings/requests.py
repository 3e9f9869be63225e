"""What is asked for each leaf: the Sharding or PartitionSpec that rules, a tree or one for all give it, and the axes of stacks
that it has entries for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jax.sharding import PartitionSpec, Sharding

from .._edit import Rules, assign, rule_name
from .._errors import PatternError
from .._paths import STACKED
from .._tree import Leaves, PyTree, Tree, aliases, leaves, opened, stacked_axes
from .._words import describe, lines, listed, printable, quoted
from .meshes import ShardingError
from .request import Request, ShardingRule, spelled_stacks
from .tied_rules import TiedRules


def requests(tree: PyTree, pairs: Leaves, given: object) -> dict[str, Request]:
    """Find the Sharding or PartitionSpec that is given for each leaf: path -> request.

    Args:
        tree: any pytree.
        pairs: its leaves by path.
        given: one for every leaf, a tree with one at each leaf's path, or rules selector -> one.

    Raises:
        PatternError: a rule that applies to no leaf, a leaf that has no sharding.
        ShardingError: what is no sharding.
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
    nodes = [value for value in given.values() if opened(value) is not None]
    if not nodes or not any(is_sharding(leaf) for _, leaf in leaves(given)):
        return True
    below = [leaf for node in nodes for _, leaf in leaves(node)]
    if below:
        return not any(map(is_sharding, below))  # ("data", None) is no node of a tree, but was meant as a spec
    return "**" in given  # None, which is an empty node, in the place of a spec


def is_sharding(value: object) -> bool:
    """Whether a value is a Sharding or a PartitionSpec."""
    return isinstance(value, (Sharding, PartitionSpec))


def requests_by_rules(tree: PyTree, rules: Rules) -> dict[str, Request]:
    """Find what rules give the leaves that they apply to: path -> request.

    Raises:
        PatternError: a rule that applies to no leaf; rules that give a tied leaf two placements by two of its names.
        ShardingError: what is no sharding.
    """
    wrong = [
        f"{quoted(selector)} is no Sharding and no PartitionSpec, but {_no_spec(value)}"
        for selector, value in rules.items()
        if not is_sharding(value)
    ]
    if wrong:
        raise ShardingError(lines(wrong))
    labels = {selector: ShardingRule(selector, value, rule_name(selector)) for selector, value in rules.items()}
    rule_of = _assigned(tree, labels)
    made: dict[tuple[int, tuple[bool, ...]], Request] = {}  # few, which many leaves share
    found: dict[str, Request] = {}
    for path, rule in rule_of.items():
        stack_axes = spelled_stacks(rule.selector, path) if STACKED in path else ()
        key = id(rule), stack_axes
        if key not in made:
            made[key] = Request(rule.given, stack_axes, rule.name)
        found[path] = made[key]
    return found


def _assigned(tree: PyTree, rules: Mapping[Any, ShardingRule]) -> dict[str, ShardingRule]:
    """The rule that applies to each leaf, where no two give a tied leaf different placements; rules that give it the same are one."""
    ties = aliases(tree)
    if not ties:
        return assign(tree, rules, for_axes=True)
    tied = TiedRules(tree, ties, rules)
    try:
        rule_of = assign(tree, rules, for_axes=True)
    except PatternError:
        some_rule_of = assign(tree, rules, strict=False)
        tied.check(some_rule_of)
        needed = tied.needed(some_rule_of)
        if list(needed) == list(rules):
            raise
        return assign(tree, needed, for_axes=True)
    tied.check(rule_of)
    return rule_of


def _no_spec(value: object) -> str:
    """What is no PartitionSpec, and the one that is likely meant."""
    entries = value if isinstance(value, (tuple, list)) else () if value is None else (value,)
    names = [name for entry in entries for name in (entry if isinstance(entry, (tuple, list)) else (entry,))]
    if not all(name is None or isinstance(name, str) for name in names):
        return describe(value)
    meant = ", ".join(repr(tuple(entry)) if isinstance(entry, list) else repr(entry) for entry in entries)
    as_code = meant.replace("'", '"')
    return printable(f"{value!r}: write P({as_code}), a jax.sharding.PartitionSpec")


def _by_tree(pairs: Leaves, given: PyTree) -> dict[str, Request]:
    if opened(given) is None:
        raise ShardingError(
            f"shardings are a Sharding, a PartitionSpec, a tree of them or rules; got {_no_spec(given)}"
        )
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
