"""Changes between two sources, leaf by leaf, for the rows of a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..._paths import Selector
from .._diff.diff import diff
from .._sources.source import Source

_SIZES = ("relative", "largest", "cosine")


@dataclass(frozen=True)
class Change:
    """What became of a leaf or a tied name."""

    kinds: tuple[str, ...]
    """The kind of the difference, and `renamed` where it has another name too."""
    before: str | None = None
    """Its name before; None of what is added."""
    sizes: Mapping[str, float | str] | None = None
    """How large the change is: relative, largest, cosine. NaN and infinities are texts."""
    note: str = ""


@dataclass(frozen=True)
class Changes:
    """The changes between two sources."""

    by_path: Mapping[str, Change]
    """Under the name after; of what was removed, under the name before. Leaves that are the same are not among them."""
    rules: tuple[str, ...]
    """Rules by which leaves were renamed, for people."""


def changes_of(before: Source, after: Source, selector: Selector | None) -> Changes:
    """The changes from one source to another."""
    found = diff(before, after, selector=selector).to_dict()
    rules = [f"renamed {rule['before']} → {rule['after']}, {rule['count']:,} leaves" for rule in found["rules"]]
    return Changes({row["path"]: _change(row) for row in found["rows"]}, tuple(rules))


def _change(row: Mapping[str, Any]) -> Change:
    kinds = [row["kind"]]
    before = row["path_before"]
    if before is not None and before != row["path"] and row["kind"] != "renamed":
        kinds.append("renamed")
    sizes = {name: row[name] for name in _SIZES if row[name] is not None}
    return Change(tuple(kinds), before, sizes, "; ".join(filter(None, [_shapes(row), row["note"]])))


def _shapes(row: Mapping[str, Any]) -> str:
    """What became of the shape or the dtype."""
    if row["kind"] in ("added", "removed"):
        return ""
    texts: list[str] = []
    if row["shape_before"] != row["shape"]:
        texts.append(f"{row['shape_before']} → {row['shape']}")
    if row["dtype_before"] != row["dtype"]:
        texts.append(f"{row['dtype_before']} → {row['dtype']}")
    return ", ".join(texts)
