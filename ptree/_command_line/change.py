"""Commands that write a changed file: rename and tie."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from .._errors import FileError, TieError
from .._words import lines, printable, quoted
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
    return _changed(given, lambda tree, names: _renamed(tree, names, given.pattern, given.new))


def run_tie(given: argparse.Namespace) -> int:
    pairs = list(map(_pair_of, given.ties))
    return _changed(given, lambda tree, names: _tied(tree, _table_of_ties(pairs, names)))


def _renamed(tree: PyTree, names: Mapping[str, str], pattern: str, new: str) -> PyTree:
    """Rename leaves by pattern; names with dots are renamed as the paths that they are shown as, and get their dots again."""
    from .._edit import leaves, rename, unflatten
    from .._paths.dotted_names import with_slashes

    if not _have_dots(names):
        return rename(tree, {pattern: new})
    by_name = dict(leaves(tree))
    by_path = unflatten({path: by_name[name] for path, name in names.items()})
    renamed = dict(leaves(rename(by_path, {with_slashes(pattern): with_slashes(new)})))
    dotted = {path.replace("/", "."): leaf for path, leaf in renamed.items()}
    if len(dotted) < len(renamed):
        raise FileError(f"cannot rename {quoted(pattern)} to {quoted(new)}: two leaves would have one name with dots")
    return dotted


def _have_dots(names: Mapping[str, str]) -> bool:
    return any(path != name for path, name in names.items())


def _table_of_ties(pairs: Iterable[tuple[str, str]], names: Mapping[str, str]) -> dict[str, str | Tie]:
    return {_name_of(alias, names): _source_of(source, names) for alias, source in pairs}


def _name_of(text: str, names: Mapping[str, str]) -> str:
    """The name in the file of a leaf, which may be given as the path that it is shown as."""
    return names.get(text, text)


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


def _pair_of(text: str) -> tuple[str, str]:
    alias, equals, source = text.partition("=")
    if not equals or not alias or not source:
        raise TieError(f"{quoted(text)} is no tie: expected ALIAS=SOURCE, such as lm_head/weight=wte/weight")
    return alias, source


def _source_of(source: str, names: Mapping[str, str]) -> str | Tie:
    from .._tree import transposed

    call = _CALL.fullmatch(source)
    if call is None:
        return _name_of(source, names)
    axes = (1, 0) if call["axes"] is None else tuple(int(axis) for axis in call["axes"].split(",") if axis.strip())
    return transposed(_name_of(call["path"], names), axes)


def _changed(given: argparse.Namespace, change: Callable[[PyTree, Mapping[str, str]], PyTree]) -> int:
    """Load the file, mapped, and save what the change makes of it with the metadata that it had.

    The change gets the tree, and the name in the file of each path.
    """
    import jax

    from ..files import load, save
    from ..look._sources.integrity import damage_of
    from ..look._sources.source import source_of
    from ..look._sources.stored_source import StoredSource

    target = given.file if given.in_place else given.out
    if not given.in_place and os.path.exists(target):
        raise FileError(f"there is {quoted(target)} already: remove it first, or name another file")
    with source_of(given.file) as source:
        if not isinstance(source, StoredSource):
            raise FileError(
                f"cannot change {quoted(given.file)}: it is no safetensors file, and only those are changed"
            )
        problems = damage_of(source).problems
        if problems:  # a new file would have the right checksums of wrong numbers
            raise FileError(f"cannot change {quoted(given.file)}: {lines(problems)}")
        path, metadata, names = source.stored.path, source.stored.metadata, source.names
    with jax.enable_x64(True):  # otherwise numbers of 64 bits cannot be loaded
        tree = change(load(path, mmap=True), names)
        save(path if given.in_place else target, tree, metadata=dict(metadata))
    print(printable(target))
    return 0
