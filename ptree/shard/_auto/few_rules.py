"""Write what is chosen for each leaf as few, general rules, with `**` for the rest."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from jax.sharding import PartitionSpec

from ..._edit import assign, explain
from ..._errors import PatternError
from ..._paths import STACKED, escape
from ..._shardings import requests_by_rules
from ..._tree import PyTree
from .braces import merged, pattern
from .endings import NOTHING, Form, forms_of, whole_pattern
from .leaf_splits import Split
from .rules import Rules

_MOST_REPAIRS = 8
_MOST_SAID = 3
_MATCHES = 3_000_000
"""Leaves times forms: about so many comparisons of names take three seconds."""
_LEAST_FORMS = 60


def few_rules(
    tree: PyTree, splits: Mapping[str, Split], sizes: Mapping[str, int], tied: Collection[str], head: str
) -> Rules:
    """Write few rules that give each leaf of a tree its split.

    A tree of thousands of leaves whose names have nothing in common would need a rule for each: then those of the largest leaves
    are written, and the others are replicated.

    Args:
        tree: the tree, whose ties decide which rules match what.
        splits: path -> split of each leaf.
        sizes: path -> how many numbers a leaf has.
        tied: paths of tied leaves, whose rules come before those that might match their aliases.
        head: a comment above the rules.
    """
    if _are_alike(splits):
        [spec, *_] = {split.spec for split in splits.values()}
        return Rules({"**": spec}, {"**": _comment(split.comment for split in splits.values())}, head)
    every = forms_of(splits)
    forms = _largest(every, sizes, len(splits))
    dropped = [path for form, paths in every.items() if form not in forms for path in paths]
    splits = {**splits, **dict.fromkeys(dropped, Split(NOTHING))}
    rules, comments = _written(forms, splits, tied)
    rules, replicated = _repaired(tree, rules | {"**": NOTHING}, splits, tied)
    dropped += replicated
    if tied:
        rules = _without_conflicts(tree, rules, tied)
    if "**" in rules:
        more = [f"{len(dropped):,} leaves would need rules of their own"] if dropped else []
        comments["**"] = _comment([*more, *(split.comment for split in splits.values() if split.spec == NOTHING)])
    return Rules(rules, {selector: said for selector, said in comments.items() if selector in rules}, head)


def _are_alike(splits: Mapping[str, Split]) -> bool:
    """Whether one rule for `**` is enough; it does not spell the axis of a stack of experts."""
    return len({split.spec for split in splits.values()}) == 1 and not any(split.is_expert for split in splits.values())


def _written(
    forms: Mapping[Form, list[str]], splits: Mapping[str, Split], tied: Collection[str]
) -> tuple[dict[str, PartitionSpec], dict[str, str]]:
    """The rules of forms, those of tied leaves first, and a comment for each."""
    specs = {form: splits[paths[0]].spec for form, paths in forms.items()}
    of_tied: list[tuple[Form, list[str]]] = []
    of_others: list[tuple[Form, list[str]]] = []
    for form, members in merged(specs).items():
        paths = [path for member in members for path in forms[member]]
        group = of_tied if any(path in tied for path in paths) else of_others
        group.append((form, paths))
    rules: dict[str, PartitionSpec] = {}
    comments: dict[str, str] = {}
    for form, paths in [*of_tied, *of_others]:
        rules[pattern(form)] = splits[paths[0]].spec
        comments[pattern(form)] = _comment(splits[path].comment for path in paths)
    return rules, comments


def _largest(forms: Mapping[Form, list[str]], sizes: Mapping[str, int], leaves: int) -> dict[Form, list[str]]:
    """The forms for the largest leaves: as many as can be matched in seconds, which are all of a tree that is regular."""
    most = _most_forms(leaves)
    if len(forms) <= most:
        return dict(forms)
    by_size = sorted(forms, key=lambda form: sum(sizes[path] for path in forms[form]), reverse=True)
    kept = set(by_size[:most])
    return {form: paths for form, paths in forms.items() if form in kept}


def _most_forms(leaves: int) -> int:
    """How many rules can be matched with so many leaves in seconds."""
    return max(_LEAST_FORMS, _MATCHES // max(1, leaves))


def _comment(comments: Iterable[str]) -> str:
    different = list(dict.fromkeys(filter(None, comments)))
    more = f"; and {len(different) - _MOST_SAID} more" if len(different) > _MOST_SAID else ""
    return "; ".join(different[:_MOST_SAID]) + more


def _repaired(
    tree: PyTree, rules: Mapping[str, PartitionSpec], splits: Mapping[str, Split], tied: Collection[str]
) -> tuple[dict[str, PartitionSpec], list[str]]:
    """The rules, with one in front for each leaf that another takes wrongly, and without those that take nothing.

    A pattern may match a node, an alias of a leaf that is split otherwise, or names that look like patterns. Where this is so for
    more leaves than rules can be matched in seconds, the rules that take them are left out instead.

    Returns:
        the rules, of which the last is `**`, and the leaves that are replicated instead of split.
    """
    rules = dict(rules)
    specs = {path: split.spec for path, split in splits.items()}
    most = _most_forms(len(splits))
    for _ in range(_MOST_REPAIRS):
        rule_of = _rules_of_leaves(tree, rules, splits, tied)
        wrong = [path for path, spec in specs.items() if path not in rule_of or rules[rule_of[path]] != spec]
        taking = {*rule_of.values()}
        rules = {selector: spec for selector, spec in rules.items() if selector in taking or selector == "**"}
        if not wrong:
            if "**" not in taking and len(rules) > 1:
                del rules["**"]
            return rules, _replicated_now(splits, specs)
        if len(wrong) <= most:
            exact = {whole_pattern(path, splits[path]): specs[path] for path in wrong}
            rules = exact | {selector: spec for selector, spec in rules.items() if selector not in exact}
            continue
        at_fault = {rule_of[path] for path in wrong if path in rule_of} - {"**"}
        rules = {selector: spec for selector, spec in rules.items() if selector not in at_fault}
        specs |= dict.fromkeys(wrong, NOTHING)
        specs |= {path: NOTHING for path, rule in rule_of.items() if rule in at_fault}
    return {"**": NOTHING}, _replicated_now(splits, {})


def _rules_of_leaves(
    tree: PyTree, rules: Mapping[str, PartitionSpec], paths: Iterable[str], tied: Collection[str]
) -> dict[str, str]:
    """The rule that takes each leaf by its own path: path -> selector; of no leaf that a rule takes by an alias, and without rules
    that also match single layers of a stack, which `plan` refuses."""
    selectors = {selector: selector for selector in rules}
    if not tied and not any(STACKED in path for path in paths):  # a tenth of the time at 100,000 leaves
        return assign(tree, selectors, strict=False)
    explanation = explain(tree, selectors)
    rule_of: dict[str, str] = {}
    for row in explanation.rows:
        if row.rule is not None and not row.alias and row.rule not in explanation.dead:
            rule_of[row.path] = row.value
    return rule_of


def _without_conflicts(
    tree: PyTree, rules: Mapping[str, PartitionSpec], tied: Collection[str]
) -> dict[Any, PartitionSpec]:
    """The rules, without tied leaves in those that name them by an alias and place them in another way than the rule that takes them."""
    try:
        requests_by_rules(tree, rules)
    except PatternError:
        pass
    else:
        return dict(rules)
    excluded: dict[str, list[str]] = {}
    for row in explain(tree, {selector: selector for selector in rules}).rows:
        for rule in row.shadowed:
            if row.path in tied and rule != "**":
                excluded.setdefault(rule, []).append(f"!{escape(row.path)}")
    return {(rule, *excluded[rule]) if rule in excluded else rule: spec for rule, spec in rules.items()}


def _replicated_now(splits: Mapping[str, Split], specs: Mapping[str, PartitionSpec]) -> list[str]:
    return [path for path, split in splits.items() if specs.get(path, NOTHING) != split.spec]
