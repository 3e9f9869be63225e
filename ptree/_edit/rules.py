"""Rules, an ordered table selector -> value of which the first match wins: explain which rule applies to which leaf, label, assign
values, mask.

Rules are strict: one that applies to no leaf, as it matches nothing or as the rules before it apply to all that it
matches, and, where every leaf needs a value, a leaf that none matches, are one error that lists all of them.
Only `**` may apply to no leaf. `default=` and `strict=False` are the ways out.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from .._errors import PatternError
from .._paths import is_everything, parse_selector
from .._tree import (
    LEAF_TYPES,
    MISSING,
    BareTree,
    PyTree,
    aliases,
    check_depth,
    leaves,
    make,
    map_leaves,
    replace_leaves,
)
from .._words import describe, lines, listed, name_of, quoted, table
from .hints import Hints
from .pattern_walk import Selected
from .selectors import LayerNumbers, Selector, choose, layer_numbers, match, simply_matched, single_layers

Rules: TypeAlias = Mapping[Any, Any]
"""Selector -> value. A sequence as a key is written as a tuple: `("encoder", "!**/bias")`."""


class Taken(NamedTuple):
    """One leaf and the rules that match it: the first applies, the others are shadowed."""

    path: str
    rule: str | None
    value: Any
    shadowed: tuple[str, ...]
    alias: str = ""
    """The alias by which the rule matches the leaf; empty where its own path matches."""


class Explanation(NamedTuple):
    """What rules do to a tree: each leaf, the rules that apply to none with the reason, the leaves that nothing matched."""

    rows: tuple[Taken, ...]
    dead: dict[str, str]

    @property
    def unmatched(self) -> list[str]:
        """The leaves that no rule matches."""
        return [row.path for row in self.rows if row.rule is None]

    def __str__(self) -> str:
        rows = [("leaf", "rule", "shadowed")]
        for row in self.rows:
            rule = f"{row.rule} (as {row.alias})" if row.alias else row.rule or "-"
            rows.append((row.path, rule, ", ".join(row.shadowed)))
        shown = table(rows)
        shown += [f"dead: {why}" for why in self.dead.values()]
        if self.unmatched:
            shown.append(f"unmatched: {listed(self.unmatched)}")
        return "\n".join(shown)


class _Rule:
    """One rule of a table: its name for people, its value, and what it selects."""

    def __init__(self, tree: PyTree, key: Any, name: str, value: Any, hints: Hints):
        self.name, self.value = name, value
        self.selector: Selector = list(key) if isinstance(key, tuple) else key
        found = match(tree, self.selector, hints)
        problem = single_layers(found.selected)
        self.problems = [*found.problems, problem] if problem else found.problems
        self.aliases = {one.own_path: one.alias for one in found.selected if not one.layers}
        """Own path -> the alias by which the leaf is matched, of each leaf that the rule matches."""

    def may_take_nothing(self) -> bool:
        return all(is_everything(part) and not part.removes for part in parse_selector(self.selector))


def _check_are_rules(rules: object) -> None:
    if not isinstance(rules, Mapping):
        raise PatternError(f"rules are a dict, selector -> value; got {describe(rules)}")
    if isinstance(rules, BareTree):
        raise PatternError("rules are a dict, selector -> value; got a Tree. The tree comes first, and then the rules")


def explain(tree: PyTree, rules: Rules) -> Explanation:
    """Which rule applies to each leaf, which later rules it shadows, and which rules apply to none; print it for a table.

    >>> from ptree import Tree
    >>> print(explain(Tree({"enc": {"kernel": 0, "bias": 0}, "n": 0}), {"**/bias": "none", "enc": "decay", "hed": "x"}))
    leaf        rule     shadowed
    enc/kernel  enc
    enc/bias    **/bias  enc
    n           -
    dead: the pattern 'hed' matches nothing: at the root there are ['enc', 'n'].
    unmatched: ['n']

    A leaf that a rule matches by an alias alone says so: `head/kernel (as head/kernel)`.

    Args:
        tree: any pytree.
        rules: selector -> value; the first that matches wins.

    Raises:
        PatternError: a malformed pattern, or rules that are no dict.
    """
    _check_are_rules(rules)
    matched: dict[str, list[_Rule]] = {path: [] for path, _ in leaves(tree)}
    dead: dict[str, str] = {}
    hints = Hints(tree)
    names: list[str] = []
    for key, value in rules.items():
        rule = _Rule(tree, key, _unique(rule_name(key), names), value, hints)
        names.append(rule_name(key))
        problems = rule.problems or _why_too_late(rule, matched)
        if problems:
            dead[rule.name] = "\n".join(problems)
        for path in rule.aliases:
            matched[path].append(rule)
    rows = [_taken(path, found) for path, found in matched.items()]
    return Explanation(tuple(rows), dead)


def _taken(path: str, matched: list[_Rule]) -> Taken:
    if not matched:
        return Taken(path, None, None, ())
    first, *others = matched
    return Taken(path, first.name, first.value, tuple(rule.name for rule in others), first.aliases[path])


def _why_too_late(rule: _Rule, matched: Mapping[str, list[_Rule]]) -> list[str]:
    """The message for a rule whose leaves were all taken by earlier rules."""
    if rule.may_take_nothing() or not all(matched[path] for path in rule.aliases):
        return []
    first: dict[str, None] = {}
    for path in rule.aliases:
        earlier = matched[path][0]
        alias = earlier.aliases[path]
        first[f"{earlier.name} (as {alias})" if alias else earlier.name] = None
    return [_too_late(rule.name, first)]


def _too_late(rule: str, earlier: Iterable[str]) -> str:
    return f"the rule {quoted(rule)} applies to no leaf: {listed(earlier)} before it applies to all that it matches"


def _unique(name: str, names: list[str]) -> str:
    """The name, with a number where another rule has the same: two functions may both be `<lambda>`."""
    count = names.count(name)
    return f"{name} ({count + 1})" if count else name


def rule_name(key: Any) -> str:
    """A selector as a person would write it."""
    if isinstance(key, tuple):
        return f"({', '.join(map(rule_name, key))})"
    if isinstance(key, re.Pattern):
        return str(key.pattern)
    return key if isinstance(key, str) else name_of(key)


def label(tree: PyTree, rules: Rules, *, default: Any = MISSING, strict: bool = True) -> PyTree:
    """A tree of the same structure with a rule's value at each leaf: labels, learning rates, dtypes, shardings.

    >>> from ptree import Tree
    >>> label(Tree({"enc": {"kernel": 0, "bias": 0}}), {"**/bias": "none", "**": "decay"})
    Tree(
      enc/kernel  'decay'
      enc/bias    'none'
    )

    `jax.tree.map` takes both trees, to cast by rules for example:

    >>> import jax, jax.numpy as jnp
    >>> params = {"norm": {"scale": jnp.ones(2)}, "fc": {"kernel": jnp.ones((2, 2))}}
    >>> dtypes = label(params, {"**/scale": jnp.float32, "**": jnp.bfloat16})
    >>> jax.tree.map(jnp.astype, params, dtypes)["fc"]["kernel"].dtype
    dtype(bfloat16)

    A label tree of a module of Equinox is such a module, and can be called: give optax a function, `lambda _: labels`.

    Args:
        tree: any pytree.
        rules: selector -> value; the first that matches wins.
        default: the value of leaves that no rule matches; without it they are an error.
        strict: whether a rule that applies to no leaf is an error.

    Raises:
        PatternError: rules that apply to no leaf, or single layers of a stack, and leaves that no rule matches; it lists
            all of them.
    """
    explanation = explain(tree, rules)
    problems = list(explanation.dead.values()) if strict else []
    if default is MISSING and explanation.unmatched:
        problems.append(f"no rule matches {listed(explanation.unmatched)}: add a rule for '**', or give default=")
    if problems:
        raise PatternError(lines(problems))
    values = {row.path: default if row.rule is None else row.value for row in explanation.rows}
    return replace_leaves(tree, values)


def assign(tree: PyTree, rules: Rules, strict: bool = True, *, for_axes: bool = False) -> dict[str, Any]:
    """Path -> value for the leaves that a rule matches; raises as `label` does for rules that apply to no leaf.

    Values that are meant for a leaf's axes, such as an initialiser or a `PartitionSpec`, are assigned `for_axes`: then
    a rule that matches a leaf only by an alias with other axes is an error too.
    """
    _check_are_rules(rules)
    simple = _assigned_by_own_paths(tree, rules)
    if simple is not None:
        return simple
    explanation = explain(tree, rules)
    problems = list(explanation.dead.values()) if strict else []
    if for_axes:
        problems += _taken_with_other_axes(tree, explanation)
    if problems:
        raise PatternError(lines(problems))
    return {row.path: row.value for row in explanation.rows if row.rule is not None}


def _assigned_by_own_paths(tree: PyTree, rules: Rules) -> dict[str, Any] | None:
    """Path -> value, where each rule is one pattern that takes leaves by their own paths; None where it takes a closer look.

    Spares an object for each leaf of each rule: half of the time at 100,000 leaves.
    """
    values: dict[str, Any] = {}
    for pattern, value in rules.items():
        walk = simply_matched(tree, pattern)
        if walk is None:
            return None
        before = len(values)
        for path, _ in walk.whole:
            values.setdefault(path, value)
        if len(values) == before and pattern != "**":
            return None
        if any(one.layers or one.own_path not in values for one in walk.others):  # single layers, or taken by an alias
            return None
    return {path: values[path] for path, _ in leaves(tree) if path in values}


def _taken_with_other_axes(tree: PyTree, explanation: Explanation) -> list[str]:
    """The problem of each leaf that a rule applies to by an alias that is seen through a transform."""
    by_alias = [(str(row.rule), row.path, row.alias) for row in explanation.rows if row.alias]
    return _other_axes(tree, by_alias)


def _other_axes(tree: PyTree, by_alias: Sequence[tuple[str, str, str]]) -> list[str]:
    """A line for each rule, own path and alias of which the alias is seen through a transform."""
    if not by_alias:
        return []
    tied = aliases(tree)
    problems: list[str] = []
    for rule, path, alias in by_alias:
        tie = tied.get(alias)
        if tie is not None and tie.via:
            problems.append(
                f"the rule {quoted(rule)} matches {quoted(path)} only by its alias {quoted(alias)},"
                f" which is {tie.shown()}, and its value is for the axes of the leaf: name {quoted(path)} in the rule"
            )
    return problems


def assign_values(tree: PyTree, rules: Rules, strict: bool = True) -> list[tuple[Selected, Any]]:
    """Assign values by rules, as `assign` does, to leaves and to single layers of stacks; the values are for axes.

    Whole leaves come first, then layers.

    Raises:
        PatternError: a malformed rule, or with `strict` one that applies to no leaf.
    """
    _check_are_rules(rules)
    taken: dict[str, set[LayerNumbers]] = {}
    values: list[tuple[Selected, Any]] = []
    by_alias: list[tuple[str, str, str]] = []
    takers: list[tuple[str, list[str]]] = []
    problems: list[str] = []
    hints = Hints(tree)
    for key, value in rules.items():
        found = match(tree, list(key) if isinstance(key, tuple) else key, hints)
        new = [one for one in found.selected if not _is_taken(one, taken)]
        for one in new:
            taken.setdefault(one.own_path, set()).add(layer_numbers(one))
            values.append((one, value))
            if one.alias:
                by_alias.append((rule_name(key), one.own_path, one.alias))
        takers.append((rule_name(key), [one.own_path for one in new]))
        problems += found.problems
        if found.selected and not new and key != "**":
            earlier = [rule for rule, selected in takers if {*selected} & {one.own_path for one in found.selected}]
            problems.append(_too_late(rule_name(key), earlier))
    problems = problems if strict else []
    problems += _other_axes(tree, by_alias)
    if problems:
        raise PatternError(lines(problems))
    return sorted(values, key=lambda pair: bool(pair[0].layers))


def _is_taken(one: Selected, taken: Mapping[str, Collection[LayerNumbers]]) -> bool:
    layers = taken.get(one.own_path, ())
    return () in layers or layer_numbers(one) in layers


def mask(tree: PyTree, selector: Selector) -> PyTree:
    """A tree of the same structure: True at the selected leaves, False at the others.

    >>> from ptree import Tree
    >>> mask(Tree({"enc": {"kernel": 1, "bias": 2}}), "**/kernel")
    Tree(
      enc/kernel  True
      enc/bias    False
    )

    It is a selector too: `select(tree, mask)`. Of a module of Equinox it is such a module, and can be called: give optax a
    function, `lambda _: mask`.

    Args:
        tree: any pytree.
        selector: which leaves: a pattern, a regex, a predicate, a mask, or a sequence of these.

    Raises:
        PatternError: the selector is malformed, a part of it matches nothing, or it names single layers of a stack.
        PathError: two leaves of a plain tree have one path, or it has more than 256 levels.
    """
    return _Marker(frozenset(path for path, _ in choose(tree, selector))).marked(tree, "")


class _Marker:
    """Makes a mask, in which Trees that are alike are one object, as the layers of a model mostly are.

    So 100,000 leaves take two thirds of the time and next to no memory.
    """

    def __init__(self, chosen: Collection[str]):
        self.chosen = chosen
        self.made: dict[tuple[int, ...], PyTree] = {}
        """Each Tree by its layout and its children, by identity."""

    def marked(self, node: PyTree, prefix: str) -> PyTree:
        """The node with True at the chosen leaves and False at the others."""
        if not isinstance(node, BareTree):
            return map_leaves(node, lambda path, _: path in self.chosen, prefix)
        check_depth(node, prefix)
        children, layout = node._node
        marks: list[PyTree] = []
        for name, child in zip(layout.keys, children, strict=True):
            if type(child) in LEAF_TYPES:
                marks.append(prefix + name in self.chosen)
            else:
                marks.append(self.marked(child, f"{prefix}{name}/"))
        alike = (id(layout), *map(id, marks))
        if alike not in self.made:
            self.made[alike] = make(layout, marks)
        return self.made[alike]
