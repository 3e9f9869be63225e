"""Rules divide the leaves of a tree: which rule trains which leaves; problems of rules that are dead, of leaves without a rule, and
of optimisers for leaves that hold no floats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp
import optax

from ..._edit import Rules, explain, select
from ..._errors import PatternError
from ..._tree import Leaf, PyTree, entries, leaves, signature
from ..._words import describe, lines, listed, quoted
from .frozen import FROZEN

Optimisers: TypeAlias = Mapping[Any, optax.GradientTransformation]
"""Selector -> optimiser."""


class LeafGroup(NamedTuple):
    """The leaves that one rule applies to, by path in listing order, and its optimiser."""

    optimiser: optax.GradientTransformation
    paths: tuple[str, ...]


def leaf_groups(tree: PyTree, rules: Optimisers) -> dict[str, LeafGroup]:
    """The leaves of each rule, by the name of the rule; rules without leaves are left out. Nothing is checked."""
    optimisers: dict[str, optax.GradientTransformation] = {}
    paths: dict[str, list[str]] = {}
    for row in explain(tree, rules).rows:
        if row.rule is not None:
            optimisers[row.rule] = row.value
            paths.setdefault(row.rule, []).append(row.path)
    return {rule: LeafGroup(optimisers[rule], tuple(found)) for rule, found in paths.items()}


def trained_groups(tree: PyTree, rules: Optimisers) -> dict[str, LeafGroup]:
    """The leaves of each rule that trains some; nothing is checked."""
    return {rule: group for rule, group in leaf_groups(tree, rules).items() if group.optimiser is not FROZEN}


def check_rules_fit(tree: PyTree, rules: Optimisers) -> None:
    """Raise unless the rules divide all leaves of the tree, and each optimiser has leaves that it can train.

    Raises:
        PatternError: it lists all problems.
    """
    explanation = explain(tree, rules)
    problems = [*explanation.dead.values()]
    if explanation.unmatched:
        problems.append(
            f"no rule matches {listed(explanation.unmatched)}: add a rule for '**', an optimiser or ptree.train.FROZEN"
        )
    problems += _without_floats(tree, rules)
    if not problems and not trained_groups(tree, rules):
        problems.append(_nothing_trained(tree, rules))
    if problems:
        raise PatternError(lines(problems))


def _without_floats(tree: PyTree, rules: Optimisers) -> list[str]:
    """A problem for each rule whose optimiser gets leaves that have no gradient."""
    found = dict(leaves(tree))
    problems: list[str] = []
    for rule, group in trained_groups(tree, rules).items():
        wrong = [path for path in group.paths if not has_gradient(found[path])]
        if wrong:
            first = f"{quoted(wrong[0])} is {describe(found[wrong[0]])}"
            problems.append(
                f"the rule {quoted(rule)} has an optimiser for {listed(wrong)}, which hold no floating-point numbers"
                f" ({first}): put a rule with ptree.train.FROZEN for them before it"
            )
    return problems


def _nothing_trained(tree: PyTree, rules: Rules) -> str:
    if not leaves(tree):
        return "nothing is trained: the tree has no leaves"
    return f"nothing is trained: the rules {listed(map(str, rules))} freeze every leaf. Give one an optimiser"


def has_gradient(leaf: Leaf) -> bool:
    """Whether a leaf is an array of real or complex floating-point numbers."""
    about = signature(leaf)
    return isinstance(about, tuple) and bool(jnp.issubdtype(about[1], jnp.inexact))


def part_of(tree: PyTree, paths: tuple[str, ...]) -> PyTree:
    """The tree with these leaves alone, under their own paths; the tree itself if it has no others."""
    chosen = {*paths}
    if entries(tree).keys() == chosen:
        return tree
    return select(tree, lambda path, leaf: path in chosen)
