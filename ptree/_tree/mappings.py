"""Make a Tree of a mapping, a list or a tuple whose keys are paths: nest the values, keep the ties in it, refuse bad keys."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from .._errors import PathError, StructureError, TieError
from .._paths import DEEPEST, in_order, split
from .._words import describe, lines, listed, quoted
from .assembly import grown_tree
from .branches import Branch, branch_at, clash, plant, set_at, value_at
from .entries import structure
from .layout import BareTree, TiedName
from .leaf import PyTree
from .nodes import has_string_keys, opened
from .path_keys import KeySplitter
from .tie import Tie
from .unpacked import unpacked_ties


def tree_of(mapping: Mapping[Any, PyTree] | Sequence[PyTree], *, sort: bool = True) -> PyTree:
    """Make the Tree of a mapping, a list or a tuple, whose keys are paths; `sort` lists sorted names as people count."""
    if not isinstance(mapping, Mapping) and type(mapping) not in (list, tuple):
        hint = ". ptree.Tree(ptree.flatten(it)) holds its leaves by path" if opened(mapping) is not None else ""
        raise StructureError(f"a Tree is made of a mapping, a list or a tuple; got {describe(mapping)}{hint}")
    nesting = _Nesting(sort)
    root = Branch()
    nesting.nest_all(root, mapping, "")
    nesting.check_nothing_below_none(root)
    tree = grown_tree(root, nesting.containers, KeySplitter(nesting.containers), has_ties=nesting.has_ties)
    _check_transforms(tree, nesting.ties)
    if nesting.lost:
        _warn_of_lost_ties(nesting.lost)
    return tree


def _warn_of_lost_ties(lost: Mapping[str, Tie]) -> None:
    shown = listed(f"{alias} = {tie.shown()}" for alias, tie in lost.items())
    warnings.warn(
        f"a dict that was made of a tied Tree does not hold the same at the two ends of {shown}: they are leaves of their"
        " own now. tree | {...}, ptree.put and ptree.set keep ties; ptree.untie ends them without this warning",
        stacklevel=4,
    )


class _Nesting:
    """Nests any mapping whose keys are paths into branches."""

    def __init__(self, sort: bool) -> None:
        self.sort = sort
        self.containers: dict[str, PyTree] = {}
        """Path -> the Tree that was given there, kept where nothing else is put into it."""
        self.has_ties = False
        self.ties: dict[str, Tie] = {}
        """The ties with a transform that were written as values."""
        self.nones: list[list[str]] = []
        """The segments of the paths at which None was given."""
        self.lost: dict[str, Tie] = {}
        """The ties that names of a tied Tree know, and that their values do not hold."""

    def nest_all(self, root: Branch, mapping: Mapping[Any, PyTree] | Sequence[PyTree], prefix: str) -> None:
        if not isinstance(mapping, Mapping):
            mapping = {str(position): value for position, value in enumerate(mapping)}
        for key in self._listed(mapping):
            self._nest_one(root, _key_segments(key, prefix), mapping[key], prefix)
        if TiedName in {*map(type, mapping)}:
            self._tie_unpacked(root, mapping, prefix)

    def _tie_unpacked(self, root: Branch, names: Iterable[object], prefix: str) -> None:
        """Tie what was tied in the Tree that was unpacked into this mapping."""
        found = unpacked_ties(names, partial(value_at, root))
        self.has_ties = self.has_ties or bool(found.kept)
        for alias, tie in found.kept.items():
            set_at(root, tuple(alias.split("/")), Tie(prefix + tie.source, tie.via))
        self.lost.update({prefix + alias: Tie(prefix + tie.source, tie.via) for alias, tie in found.lost.items()})

    def _listed(self, mapping: Mapping[Any, PyTree]) -> Sequence[object]:
        keys = tuple(mapping)
        if self.sort and type(mapping) is dict and has_string_keys(mapping):
            return in_order(keys)  # pyright: ignore[reportArgumentType]
        return keys

    def _nest_one(self, root: Branch, segments: Sequence[str], value: PyTree, prefix: str) -> None:
        path = prefix + "/".join(segments)
        if isinstance(value, BareTree):
            self._nest_tree(root, segments, value, prefix)
        elif isinstance(value, Mapping) or type(value) in (list, tuple):
            below = branch_at(root, segments, prefix)
            self.nest_all(below, value, f"{path}/")
        else:
            plant(root, segments, value, prefix)
            if type(value) is Tie:
                self.has_ties = True
                if value.via:
                    self.ties[path] = value
            if value is None:
                self.nones.append(path.split("/"))

    def _nest_tree(self, root: Branch, segments: Sequence[str], tree: BareTree, prefix: str) -> None:
        if not tree._node[1].names():  # empty, or with gaps alone: it is kept as it is
            plant(root, segments, tree, prefix)
            return
        path = prefix + "/".join(segments)
        below = branch_at(root, segments, prefix)
        inner = structure(tree)
        keys = KeySplitter(inner.containers)
        for place, node in inner.containers.items():
            self.containers[f"{path}/{place}" if place else path] = node
        for name, value in inner.entries.items():
            if type(value) is Tie:
                self.has_ties = True
                value = Tie(f"{path}/{value.source}", value.via)
            plant(below, keys.of(name, value), value, f"{path}/")

    def check_nothing_below_none(self, root: Branch) -> None:
        """Raise where None, which elsewhere gives way to a node, was given beside keys below it."""
        for segments in self.nones:
            node: PyTree = root
            for segment in segments:
                node = node[segment]
            if node is not None:
                raise clash("/".join(segments), None, ", and a node with keys below it")


def _key_segments(key: object, prefix: str) -> list[str]:
    try:
        segments = split(key)  # pyright: ignore[reportArgumentType]
    except PathError as error:
        raise _bad_key(key, prefix) from error
    if not segments:
        raise _bad_key(key, prefix)
    return segments


def _bad_key(key: object, prefix: str) -> PathError:
    place = f"in {prefix[:-1]!r}" if prefix else "at the root"
    if not isinstance(key, str):
        why = "it is not a string or an int"
    elif "" in key.split("/"):
        why = "it is empty or has an empty segment"
    else:
        why = f"it has more than {DEEPEST} segments"
    return PathError(f"bad key {quoted(key)} {place}: {why}")


def _check_transforms(tree: PyTree, ties: Mapping[str, Tie]) -> None:
    """Raise where the first transform of a tie that was written as a value does not fit its source."""
    problems: list[str] = []
    for path, tie in ties.items():
        step, leaf = tie.via[0], tree[tie.source]
        why = step.misfit(leaf)
        if why:
            problems.append(
                f"cannot tie {quoted(path)} to {quoted(tie.source)}: {quoted(tie.shown())} {why}, and {quoted(tie.source)} is {describe(leaf)}"
            )
    if problems:
        raise TieError(lines(problems))
