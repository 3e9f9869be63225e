"""Rules: an ordered table selector -> value, in which the first that matches a leaf wins.

Rules are strict: one that takes no leaf, as it matches nothing or as the rules before it take all that it
matches, and, where every leaf needs a value, a leaf that none matches, are one error that lists all of them.
Only `**` may be left with nothing to take. `default=` and `strict=False` are the ways out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .._errors import PatternError
from .._tree import MISSING
from .._words import describe, lines, listed, name_of, quoted
from .access import replace_leaves
from .selectors import leaves, match, parse, takes_all

Rules = Mapping[Any, Any]
"""Selector -> value. A sequence as a key is written as a tuple: `("encoder", "!**/bias")`."""


@dataclass(frozen=True)
class Taken:
    """One leaf and the rules that match it: the first takes it, the others are shadowed."""

    path: str
    rule: str | None
    value: Any
    shadowed: tuple[str, ...]


@dataclass(frozen=True)
class Explanation:
    """What rules do to a tree: each leaf, the rules that take none with the reason, the leaves that nothing matched."""

    rows: tuple[Taken, ...]
    dead: dict[str, str]

    @property
    def unmatched(self) -> list[str]:
        """The leaves that no rule matches."""
        return [row.path for row in self.rows if row.rule is None]

    def __str__(self) -> str:
        cells = [("leaf", "rule", "shadowed")]
        cells += [(row.path, row.rule or "-", ", ".join(row.shadowed)) for row in self.rows]
        wide, middle = (max(len(row[at]) for row in cells) for at in (0, 1))
        lines = [f"{path:{wide}}  {rule:{middle}}  {shadowed}".rstrip() for path, rule, shadowed in cells]
        lines += [f"dead: {why}" for why in self.dead.values()]
        lines += [f"unmatched: {listed(self.unmatched)}"] if self.unmatched else []
        return "\n".join(lines)


def explain(tree: Any, rules: Rules) -> Explanation:
    """Which rule takes each leaf, which rules that shadows, and which take nothing; print it for a table.

    >>> from ptree import Tree
    >>> print(explain(Tree({"enc": {"kernel": 0, "bias": 0}, "n": 0}), {"**/bias": "none", "enc": "decay", "hed": "x"}))
    leaf        rule     shadowed
    enc/kernel  enc
    enc/bias    **/bias  enc
    n           -
    dead: the pattern 'hed' matches nothing: at the root there are ['enc', 'n'].
    unmatched: ['n']

    Raises:
        PatternError: a malformed pattern, or rules that are no dict.
    """
    if not isinstance(rules, Mapping):
        raise PatternError(f"rules are a dict, selector -> value; got {describe(rules)}")
    hits: dict[str, list[tuple[str, Any]]] = {path: [] for path, _ in leaves(tree)}
    dead: dict[str, str] = {}
    names: list[str] = []
    for key, value in rules.items():
        selector = list(key) if isinstance(key, tuple) else key
        found, why = match(tree, selector)
        name = _unique(_name(key), names)
        everything = all(takes_all(part) and not away for away, part in parse(selector))
        if not why and not everything and all(hits[path] for path, _ in found):
            first = list(dict.fromkeys(hits[path][0][0] for path, _ in found))
            why = [f"the rule {quoted(name)} takes nothing: {listed(first)} before it takes all that it matches"]
        if why:
            dead[name] = "\n".join(why)
        for path, _ in found:
            hits[path].append((name, value))
    return Explanation(
        tuple(
            Taken(path, *(found[0] if found else (None, None)), tuple(name for name, _ in found[1:]))
            for path, found in hits.items()
        ),
        dead,
    )


def _unique(name: str, names: list[str]) -> str:
    """The name, with a number where another rule has the same: two functions may both be `<lambda>`."""
    names.append(name)
    return name if names.count(name) == 1 else f"{name} ({names.count(name)})"


def _name(key: Any) -> str:
    """A selector as a person would write it."""
    if isinstance(key, tuple):
        return f"({', '.join(map(_name, key))})"
    return key if isinstance(key, str) else str(getattr(key, "pattern", "")) or name_of(key)


def label(tree: Any, rules: Rules, *, default: Any = MISSING, strict: bool = True) -> Any:
    """A tree of the same structure with a rule's value at each leaf: labels, learning rates, shardings.

    >>> from ptree import Tree
    >>> label(Tree({"enc": {"kernel": 0, "bias": 0}}), {"**/bias": "none", "**": "decay"})
    Tree(
      enc/kernel  'decay'
      enc/bias    'none'
    )

    Args:
        tree: any pytree.
        rules: selector -> value; the first that matches wins.
        default: the value of leaves that no rule matches; without it they are an error.
        strict: whether a rule that takes no leaf is an error.

    Raises:
        PatternError: rules that take no leaf, and leaves that no rule matches; it lists all of them.
    """
    told = explain(tree, rules)
    problems = list(told.dead.values()) if strict else []
    if default is MISSING and told.unmatched:
        problems.append(f"no rule matches {listed(told.unmatched)}: add a rule for '**', or give default=")
    if problems:
        raise PatternError(lines(problems))
    return replace_leaves(tree, {row.path: default if row.rule is None else row.value for row in told.rows})


def assign(tree: Any, rules: Rules, strict: bool = True) -> dict[str, Any]:
    """Path -> value for the leaves that a rule matches; raises as `label` does for rules that take no leaf."""
    told = explain(tree, rules)
    if strict and told.dead:
        raise PatternError(lines(list(told.dead.values())))
    return {row.path: row.value for row in told.rows if row.rule is not None}
