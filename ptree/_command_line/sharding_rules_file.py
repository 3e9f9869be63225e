"""Rules of shardings as JSON: selector -> a list with an axis, null or a list of axes for each dimension."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jax.sharding import PartitionSpec

from .._errors import FileError
from .._stored.drafts import draft
from .._words import lines, quoted


def rules_in(path: str) -> dict[str, PartitionSpec]:
    """Read rules of shardings from a JSON file: selector -> a list with an axis, null or a list of axes for each dimension.

    Raises:
        FileError: it is no JSON, or no such rules; with all problems.
        OSError: it cannot be read.
    """
    try:
        pairs = json.loads(Path(path).read_text(encoding="utf-8"), object_pairs_hook=_Pairs)
    except ValueError as error:
        raise FileError(f"{quoted(path)} is no JSON: {error}") from error
    if not isinstance(pairs, _Pairs):
        raise FileError(f'{quoted(path)}: rules are an object, such as {{"**/kernel": ["data", null], "**": []}}')
    problems: list[str] = []
    rules: dict[str, PartitionSpec] = {}
    for selector, entries in pairs:
        if selector in rules:
            problems.append(f"{quoted(path)}: the selector {quoted(selector)} is there twice")
        spec = _spec_of(entries)
        if spec is None:
            shown = json.dumps(entries)
            problems.append(
                f"{quoted(path)}: {quoted(selector)} has {shown}; expected a list with an axis, null or a list of axes"
                " for each dimension"
            )
        rules[selector] = spec or PartitionSpec()
    if problems:
        raise FileError(lines(problems))
    return rules


class _Pairs(list[tuple[str, Any]]):
    """The members of a JSON object, of which several may have one name."""


def _spec_of(entries: Any) -> PartitionSpec | None:
    """The PartitionSpec of a list in JSON; None if it is none."""
    if entries is None:
        return PartitionSpec()
    if not isinstance(entries, list) or isinstance(entries, _Pairs):
        return None
    made: list[str | tuple[str, ...] | None] = []
    for entry in entries:
        if isinstance(entry, list) and entry and all(isinstance(name, str) for name in entry):
            made.append(tuple(entry))
        elif entry is None or isinstance(entry, str):
            made.append(entry)
        else:
            return None
    return PartitionSpec(*made)


def rules_as_json(rules: Mapping[Any, PartitionSpec]) -> dict[str, list[Any]]:
    return {str(selector): entries_as_json(spec) for selector, spec in rules.items()}


def entries_as_json(spec: PartitionSpec) -> list[Any]:
    return [list(entry) if isinstance(entry, tuple) else entry for entry in spec]


def write_rules(path: str, rules: Mapping[Any, PartitionSpec]) -> None:
    rows = [f"  {json.dumps(selector)}: {json.dumps(entries)}" for selector, entries in rules_as_json(rules).items()]
    text = "{\n" + ",\n".join(rows) + "\n}\n"
    with draft(Path(path)) as descriptor, open(descriptor, "wb", closefd=False) as file:
        file.write(text.encode())
