"""How a command writes its result: as a table of the terminal's width, with or without colours, or as JSON or CSV."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from typing import Any, Protocol, TypeAlias

from .._errors import FileError
from .._words import quoted

Commands: TypeAlias = "argparse._SubParsersAction[Any]"
"""The commands of the parser, to which each module adds its own."""

_NARROWEST = 20
_WIDTH_OF_A_PIPE = 80


class Table(Protocol):
    """A result of `ptree.look` that can be written: a Summary, Stats or a Diff."""

    def text(self, width: int = 80, *, color: bool = False) -> str: ...
    def to_dict(self) -> dict[str, object]: ...
    def to_csv(self) -> str: ...


def add_output_arguments(command: argparse.ArgumentParser) -> None:
    form = command.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="write JSON")
    form.add_argument("--csv", action="store_true", help="write CSV")
    command.add_argument("--width", type=width_of, metavar="COLUMNS", help="of the table; by default the terminal's")
    command.add_argument(
        "--color", choices=("auto", "always", "never"), default="auto", help="NO_COLOR=1 is never, too"
    )


def width_of(text: str) -> int:
    """Parse the width of a table.

    Raises:
        ArgumentTypeError: it is no whole number of 20 columns or more.
    """
    if not text.isdecimal() or int(text) < _NARROWEST:
        raise argparse.ArgumentTypeError(f"{text!r} is no width: a whole number from {_NARROWEST} on")
    return int(text)


def refuse_existing(path: str) -> None:
    """Raise FileError where a file or a folder is at the path: what a command writes replaces nothing in silence."""
    if os.path.isdir(path):
        raise FileError(f"{quoted(path)} is a folder: name the file to write")
    if os.path.lexists(path):
        raise FileError(f"there is {quoted(path)} already: remove it first, or name another file")


def write(result: Table, given: argparse.Namespace) -> None:
    """Write a result in the form that was asked for."""
    if given.json:
        print(json.dumps(result.to_dict(), indent=1))
    elif given.csv:
        print(result.to_csv(), end="")
    else:
        print(result.text(given.width or _terminal_width(), color=_has_color(given.color)))


def _terminal_width() -> int:
    return max(_NARROWEST, shutil.get_terminal_size((_WIDTH_OF_A_PIPE, 24)).columns)


def _has_color(choice: str) -> bool:
    if choice != "auto":
        return choice == "always"
    is_plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    return sys.stdout.isatty() and not is_plain
