"""Rules: a dict selector -> PartitionSpec that prints as one would write it, with comments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jax.sharding import PartitionSpec


class Rules(dict[Any, PartitionSpec]):
    """Rules of shardings, selector -> PartitionSpec: a dict to edit, which prints as the code that makes it.

    >>> rules = Rules({"**/kernel": PartitionSpec(None, "data"), "**": PartitionSpec()}, {"**/kernel": "by size"})
    >>> rules
    {
        "**/kernel": P(None, "data"),  # by size
        "**": P(),
    }

    `P` is `jax.sharding.PartitionSpec`. A comment is gone when its rule gets another value.

    Args:
        rules: selector -> PartitionSpec, in order.
        comments: selector -> a comment behind its rule.
        head: a comment above all rules.
    """

    def __init__(self, rules: Mapping[Any, PartitionSpec], comments: Mapping[Any, str] | None = None, head: str = ""):
        super().__init__(rules)
        self._head = head
        self._comments = {selector: (rules[selector], text) for selector, text in (comments or {}).items()}

    def __repr__(self) -> str:
        shown = ["{"]
        if self._head:
            shown.append(f"    # {self._head}")
        for selector, spec in self.items():
            shown.append(f"    {_code(selector)}: {_code(spec)},{self._comment(selector, spec)}")
        return "\n".join([*shown, "}"])

    def _comment(self, selector: Any, spec: PartitionSpec) -> str:
        commented, text = self._comments.get(selector, (None, ""))
        return f"  # {text}" if commented == spec and text else ""


def _code(value: Any) -> str:
    """A selector or a PartitionSpec as code."""
    if isinstance(value, PartitionSpec):
        return f"P({', '.join(map(_code, value))})"
    if isinstance(value, tuple):
        items = ", ".join(map(_code, value))
        return f"({items},)" if len(value) == 1 else f"({items})"
    is_plain = isinstance(value, str) and value.isprintable() and not {'"', "\\"} & {*value}
    return f'"{value}"' if is_plain else repr(value)
