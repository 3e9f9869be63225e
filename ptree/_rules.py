"""Rules: an ordered table selector -> value; the first that matches a leaf wins, and each must match."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._errors import PatternError
from ._leaf import describe
from ._select import Selector, choose

Rules = Mapping[Any, Any]


def assign(tree: Any, rules: Rules) -> dict[str, Any]:
    """Path -> value, for the leaves that a rule matches.

    >>> from ptree import Tree
    >>> assign(Tree({"enc": {"kernel": 0, "bias": 0}, "n": 0}), {"**/bias": "none", "enc": "decay"})
    {'enc/bias': 'none', 'enc/kernel': 'decay'}

    Raises:
        PatternError: rules that match nothing; it lists all of them.
    """
    if not isinstance(rules, Mapping):
        raise PatternError(f"rules are a dict, selector -> value; got {describe(rules)}")
    taken: dict[str, Any] = {}
    dead: list[str] = []
    for selector, value in rules.items():
        try:
            chosen = choose(tree, _selector(selector))
        except PatternError as error:
            dead.append(str(error))
            continue
        for path, _ in chosen:
            taken.setdefault(path, value)
    if dead:
        raise PatternError("\n".join(dead))
    return taken


def _selector(key: Any) -> Selector:
    return list(key) if isinstance(key, tuple) else key
