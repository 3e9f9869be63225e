"""Rows of a table as Python code, folded to a width, and as comments."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from ..._words import columns, printable
from .._operations.axes import SplitAxis
from .._operations.operation import Operation
from .fitting import steps_of

INDENT = "    "


def operation_code(operation: Operation) -> str:
    """An operation as code: `convert.linear >> convert.heads(12)`."""
    return " >> ".join(f"convert.{_step_text(step)}" for step in steps_of(operation))


def _step_text(step: Operation) -> str:
    if isinstance(step, SplitAxis) and len(step.sizes) == 2 and step.sizes[1] == -1:
        axis = "" if step.axis == -1 else f", axis={step.axis}"
        return f"heads({step.sizes[0]}{axis})"
    return repr(step)


def row_code(sources: Sequence[str], targets: Sequence[str], operation: Operation | None, width: int) -> list[str]:
    """A row of a dict as lines of code: one line where it fits, else one for each name and the operation."""
    left = _literal(sources[0]) if len(sources) == 1 else f"({', '.join(map(_literal, sources))})"
    cells = [_literal(target) for target in targets]
    if operation is not None:
        cells.append(operation_code(operation))
    right = cells[0] if len(cells) == 1 else f"({', '.join(cells)})"
    line = f"{left}: {right},"
    if columns(line) <= width:
        return [line]
    return (
        [f"{left}: (", *(f"{INDENT}{cell}," for cell in cells), "),"]
        if len(cells) > 1
        else [f"{left}:", f"{INDENT}{right},"]
    )


def _literal(name: str) -> str:
    """A name as a string of Python, with double quotes where that is possible."""
    text = repr(name)
    has_quotes = '"' in name or "'" in name
    return printable(text if has_quotes else f'"{text[1:-1]}"')


def comment(text: str, width: int, *, indent: str = INDENT, mark: str = "#") -> list[str]:
    """A sentence as lines of comments."""
    start = f"{indent}{mark} "
    return textwrap.wrap(
        text,
        max(width, len(start) + 12),
        initial_indent=start,
        subsequent_indent=start,
        break_long_words=False,
        break_on_hyphens=False,
    )


def commented(lines: Sequence[str], *, indent: str = INDENT) -> list[str]:
    """Lines of code as comments, which an editor turns back into code."""
    return [f"{indent}# {line}" for line in lines]
