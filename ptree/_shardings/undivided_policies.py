"""What becomes of dimensions that cannot be divided into equal parts: an error, or the leaf stays whole there, by rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from .._edit import assign
from .._tree import PyTree
from .._words import describe, quoted
from .meshes import ShardingError

Otherwise: TypeAlias = str | Mapping[Any, str]
"""What becomes of dimensions that cannot be divided: "error" or "replicate", or rules selector -> one of these."""

POLICIES = ("error", "replicate")


def policies(tree: PyTree, otherwise: Otherwise) -> Mapping[str, str]:
    """The policy of each leaf that a rule matches for what cannot be divided: path -> "error" or "replicate".

    Raises:
        ShardingError: it is none of these.
        PatternError: a rule that applies to no leaf.
    """
    by_rule = {"**": otherwise} if isinstance(otherwise, str) else otherwise
    if not isinstance(by_rule, Mapping):
        raise ShardingError(
            f"otherwise= is 'error', 'replicate' or rules selector -> one of these; got {describe(otherwise)}"
        )
    wrong = [value for value in by_rule.values() if value not in POLICIES]
    if wrong:
        raise ShardingError(f"otherwise= is 'error' or 'replicate', got {quoted(wrong[0])}")
    return {} if isinstance(otherwise, str) else assign(tree, by_rule)
