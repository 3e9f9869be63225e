"""Commands that write a changed file: rename and tie."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from .._errors import FileError, TieError
from .._words import lines, quoted
from .output import Commands

if TYPE_CHECKING:
    from .._tree import PyTree, Tie

_CALL = re.compile(r"transposed\((?P<path>[^(),]+)(, *\((?P<axes>[0-9, ]+)\))?\)")


def add_commands(commands: Commands) -> None:
    rename = commands.add_parser(
        "rename",
        help="other names, by pattern",
        description="Write a file whose leaves have other names: ptree rename a.safetensors 'h/*/**' 'blocks/*/**' -o b.safetensors",
    )
    rename.add_argument("file", metavar="FILE")
    rename.add_argument("pattern", metavar="PATTERN", help="each wildcard of it is one of NEW")
    rename.add_argument("new", metavar="NEW")
    _add_target(rename)
    rename.set_defaults(run=run_rename)

    tie = commands.add_parser(
        "tie",
        help="two names for one leaf",
        description="Write a file in which names with equal numbers are one leaf: ptree tie a.safetensors lm_head/weight=wte/weight -o b.safetensors",
    )
    tie.add_argument("file", metavar="FILE")
    tie.add_argument("ties", metavar="ALIAS=SOURCE", nargs="+", help="SOURCE may be transposed(wte/weight)")
    _add_target(tie)
    tie.set_defaults(run=run_tie)


def _add_target(command: argparse.ArgumentParser) -> None:
    target = command.add_mutually_exclusive_group(required=True)
    target.add_argument("-o", "--out", metavar="FILE", help="the file to write")
    target.add_argument("--in-place", action="store_true", help="replace the file itself")


def run_rename(given: argparse.Namespace) -> int:
    from .._edit import rename

    return _changed(given, lambda tree: rename(tree, {given.pattern: given.new}))


def run_tie(given: argparse.Namespace) -> int:
    table = dict(map(_tie_of, given.ties))
    return _changed(given, lambda tree: _tied(tree, table))


def _tied(tree: PyTree, table: Mapping[str, str | Tie]) -> PyTree:
    """Tie names whose numbers are equal: others would lose theirs.

    Raises:
        TieError: the numbers of a name differ from those of its source.
    """
    from .._ties import tie, ties
    from .._tree import largest_difference, same

    tied = tie(tree, table)
    problems: list[str] = []
    for alias, source in ties(tied).items():
        if alias not in ties(tree) and not same(tree[alias], tied[alias]):
            distance = largest_difference(tree[alias], tied[alias])
            problems.append(
                f"cannot tie {quoted(alias)} to {quoted(source)}: they are not equal, but differ by up to {distance:.3g}"
            )
    if problems:
        raise TieError(lines(problems))
    return tied


def _tie_of(text: str) -> tuple[str, str | Tie]:
    from .._tree import transposed

    alias, equals, source = text.partition("=")
    if not equals or not alias or not source:
        raise TieError(f"{quoted(text)} is no tie: expected ALIAS=SOURCE, such as lm_head/weight=wte/weight")
    call = _CALL.fullmatch(source)
    if call is None:
        return alias, source
    axes = (1, 0) if call["axes"] is None else tuple(int(axis) for axis in call["axes"].split(",") if axis.strip())
    return alias, transposed(call["path"], axes)


def _changed(given: argparse.Namespace, change: Callable[[PyTree], PyTree]) -> int:
    """Load the file, mapped, and save what the change makes of it with the metadata that it had."""
    import jax

    from ..files import load, open, save

    target = given.file if given.in_place else given.out
    if not given.in_place and os.path.exists(target):
        raise FileError(f"there is {quoted(target)} already: remove it first, or name another file")
    with open(given.file) as file:
        metadata = dict(file.metadata)
    with jax.enable_x64(True):  # otherwise numbers of 64 bits cannot be loaded
        tree = change(load(given.file, mmap=True))
        save(target, tree, metadata=metadata)
    print(target)
    return 0
