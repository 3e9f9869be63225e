"""Run the commands that write a changed file: rename and tie."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import jax

from .._edit import rename
from .._errors import FileError, TieError
from .._foreign.name_endings import name_ending
from .._paths.dotted_names import with_slashes
from .._stored.locations import INDEX_SUFFIX, checked_path, file_path, index_path
from .._stored.stored import Stored
from .._ties import tie, ties
from .._tree import PyTree, Tie, assemble, entries, largest_difference, same, transposed
from .._words import lines, listed, printable, quoted
from ..files import load, save
from ..look._sources.integrity import damage_of
from ..look._sources.source_of import source_of
from ..look._sources.stored_source import StoredSource
from .interrupts import interrupts_raised
from .output import refuse_existing

_CALL = re.compile(r"transposed\((?P<path>[^(),]+)(, *\((?P<axes>[0-9, ]+)\))?\)")


def run_rename(given: argparse.Namespace) -> int:
    _refuse_target(given)
    with _opened(given.file, given.in_place) as file:
        tree = rename(file.tree, {file.spelled(given.pattern): file.spelled(given.new)})
        return _saved(file, tree, given)


def run_tie(given: argparse.Namespace) -> int:
    _refuse_target(given)
    with _opened(given.file, given.in_place) as file:
        return _saved(file, _tied(file.tree, _table_of_ties(given.ties, file)), given)


def _refuse_target(given: argparse.Namespace) -> None:
    """Refuse a file that is there, before the time is taken to read the other."""
    if not given.in_place:
        _refuse_other_format(given.out)
        file = file_path(checked_path(given.out, "save(path, tree)"))
        for place in (given.out, str(file), str(index_path(file))):
            refuse_existing(place)


def _refuse_other_format(path: str) -> None:
    """Refuse a new file whose name says another format than the one that is written."""
    ending = name_ending(path)
    if ending is not None:
        raise FileError(
            f"cannot write {quoted(path)}: it ends in {ending.ending}, as {ending.kind} does, and this command writes"
            f" safetensors. Name it {quoted(ending.safetensors_name(path))}; `ptree convert` writes other formats"
        )


@dataclass(frozen=True)
class _ChangedFile:
    """A file that is changed, as the tree of the paths that it is shown with."""

    path: str
    tree: PyTree
    metadata: dict[str, str]
    has_dots: bool
    """Whether its names have dots where paths have slashes, as those of PyTorch's modules do; it keeps them."""
    shard_size: int | None
    """Of files in shards: the most bytes of a shard."""
    shards: tuple[str, ...]
    """The paths of all its files."""

    def spelled(self, text: str) -> str:
        """A name or a pattern as the paths of this file are spelled."""
        return with_slashes(text) if self.has_dots else text


@contextmanager
def _opened(path: str, in_place: bool) -> Iterator[_ChangedFile]:
    """Load a file, mapped, that is whole; others are refused, and a shard that is to be replaced alone."""
    with source_of(path) as source:
        if not isinstance(source, StoredSource):
            raise FileError(f"cannot change {quoted(path)}: it is no safetensors file, and only those are changed")
        problems = damage_of(source).problems
        if problems:  # a new file would have the right checksums of wrong numbers
            raise FileError(f"cannot change {quoted(path)}: {lines(problems)}")
        stored, paths = source.stored, source.names
    index = "" if stored.facts is None else stored.facts.index
    if index and in_place:
        raise FileError(f"{quoted(path)} is a shard of {quoted(index)}, and fits no other: change {quoted(index)}")
    has_dots = any(shown != name for shown, name in paths.items())
    with jax.enable_x64(True):  # otherwise numbers of 64 bits cannot be loaded
        tree = load(stored.path, mmap=True)
        if has_dots:
            tree = _with_names(tree, {name: shown for shown, name in paths.items()})
        shards = tuple(shard.path for shard in stored.shards)
        yield _ChangedFile(stored.path, tree, dict(stored.metadata), has_dots, _shard_size(stored), shards)


def _shard_size(stored: Stored) -> int | None:
    if not stored.path.endswith(INDEX_SUFFIX):
        return None
    sizes = [sum(leaf.nbytes for leaf in shard.header.leaves.values()) for shard in stored.shards]
    return max(1, *sizes)


def _with_names(tree: PyTree, new: Mapping[str, str]) -> PyTree:
    """The tree with other names: old -> new. Its ties follow."""
    renamed: dict[str, PyTree] = {}
    for name, value in entries(tree).items():
        if isinstance(value, Tie):
            value = Tie(new.get(value.source, value.source), value.via)
        renamed[new.get(name, name)] = value
    return assemble(renamed)


def _with_dots(tree: PyTree) -> PyTree:
    """The tree whose paths are names with dots.

    Raises:
        FileError: two leaves would have one name, or a name would no more be read as a path.
    """
    names = {path: path.replace("/", ".") for path in entries(tree)}
    if len({*names.values()}) < len(names):
        raise FileError(
            "cannot write names with dots for slashes, as this file has them: two leaves would have one name"
        )
    unread = [name for name in names.values() if "" in name.split(".")]
    if unread:
        raise FileError(f"the names of this file have dots for slashes, and {quoted(unread[0])} would not be a path")
    return _with_names(tree, names)


def _tied(tree: PyTree, table: Mapping[str, str | Tie]) -> PyTree:
    """Tie names whose numbers are equal: others would lose theirs.

    Raises:
        TieError: the numbers of a name differ from those of its source.
    """
    before, tied = ties(tree), tie(tree, table)
    problems: list[str] = []
    for alias, source in ties(tied).items():
        if alias not in before and not same(tree[alias], tied[alias]):
            distance = largest_difference(tree[alias], tied[alias])
            problems.append(
                f"cannot tie {quoted(alias)} to {quoted(source)}: they are not equal, but differ by up to {distance:.3g}"
            )
    if problems:
        raise TieError(lines(problems))
    return tied


def _table_of_ties(texts: Sequence[str], file: _ChangedFile) -> dict[str, str | Tie]:
    table: dict[str, str | Tie] = {}
    for text in texts:
        alias, source = _pair_of(text, file.spelled)
        if alias in table:
            raise TieError(f"cannot tie {quoted(alias)} twice")
        table[alias] = source
    return table


def _pair_of(text: str, spelled: Callable[[str], str]) -> tuple[str, str | Tie]:
    alias, equals, source = text.partition("=")
    if not equals or not alias or not source:
        raise TieError(f"{quoted(text)} is no tie: expected ALIAS=SOURCE, such as lm_head/weight=wte/weight")
    call = _CALL.fullmatch(source)
    if call is None:
        return spelled(alias), spelled(source)
    axes = (1, 0) if call["axes"] is None else tuple(int(axis) for axis in call["axes"].split(",") if axis.strip())
    return spelled(alias), transposed(spelled(call["path"]), axes)


def _saved(file: _ChangedFile, tree: PyTree, given: argparse.Namespace) -> int:
    """Save a changed tree as the file was: with its metadata, its kind of names, and in shards if it is."""
    if file.has_dots:
        tree = _with_dots(tree)
    target = file.path if given.in_place else given.out
    with interrupts_raised():
        save(target, tree, metadata=file.metadata, max_shard_size=file.shard_size)
    print(printable(given.file if given.in_place else target))
    left = [path for path in file.shards if given.in_place and path != target and os.path.exists(path)]
    if left:  # `save` removes no files of other programs
        print(f"no longer needed: {listed(left)}")
    return 0
