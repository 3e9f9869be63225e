"""Tables as JSON: rows with names and the text of an operation, read without running anything."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ..._errors import FileError, PatternError
from ..._words import describe, lines, listed, quoted
from .._operations.text import parse_operation
from .names import NamePattern
from .row import Row, Source, Target

_FORM = 'a list of rows {"from": "a.*.weight", "to": "a/*/kernel", "operation": "linear"}'
_KEYS = {"from", "to", "operation"}


def write_rows(path: str, rows: Sequence[Row]) -> None:
    """Write rows as a JSON file."""
    with open(path, "w", encoding="utf-8") as file:
        json.dump([_written(row) for row in rows], file, indent=1, ensure_ascii=False)
        file.write("\n")


def _written(row: Row) -> dict[str, Any]:
    written: dict[str, Any] = {"from": _names(row.sources), "to": _names(row.targets)}
    if row.says_operation:
        written["operation"] = repr(row.operation)
    return written


def _names(patterns: Sequence[NamePattern]) -> str | list[str]:
    texts = [pattern.text for pattern in patterns]
    return texts[0] if len(texts) == 1 else texts


def read_rows(path: str) -> list[tuple[Source, Target]]:
    """Read the rows of a JSON file, as `Table` takes them."""
    with open(path, encoding="utf-8") as file:
        try:
            content = json.load(file, object_pairs_hook=_without_repeats)
        except PatternError as error:
            raise FileError(f"cannot read the table {quoted(path)}: {error}") from None
        except (ValueError, RecursionError) as error:
            raise FileError(f"cannot read the table {quoted(path)}: {error}") from None
    if isinstance(content, dict):
        return [*content.items()]
    if not isinstance(content, list):
        raise FileError(f"cannot read the table {quoted(path)}: expected {_FORM}, got {describe(content)}")
    rows: list[tuple[Source, Target]] = []
    problems: list[str] = []
    for number, row in enumerate(content):
        try:
            rows.append(_row(row))
        except PatternError as error:
            problems.append(f"row {number}: {error}")
    if problems:
        raise PatternError(f"in the table {quoted(path)}: {lines(problems)}")
    return rows


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object as a dict; JSON alone would keep the last of several values of one key."""
    counts = Counter(key for key, _ in pairs)
    repeated = [key for key, count in counts.items() if count > 1]
    if repeated:
        raise PatternError(f"these keys stand there more than once: {listed(repeated)}")
    return dict(pairs)


def _row(row: Any) -> tuple[Source, Target]:
    if not isinstance(row, dict) or not {"from", "to"} <= row.keys() <= _KEYS:
        raise PatternError(f"expected {_FORM}, got {quoted(str(row))}")
    right = [*_as_list(row["to"])]
    if "operation" in row:
        right.append(parse_operation(str(row["operation"])))
    return tuple(_as_list(row["from"])), tuple(right)


def _as_list(names: Any) -> list[Any]:
    return names if isinstance(names, list) else [names]
