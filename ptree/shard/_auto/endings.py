"""Endings of paths: for each leaf the shortest pattern of a path's end that only matches leaves which are split alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import NamedTuple, TypeAlias

from jax.sharding import PartitionSpec

from ..._paths import STACKED, escape
from .leaf_splits import EXPERTS, Split

Ending: TypeAlias = tuple[str, ...]
"""The last segments of paths, as patterns: escaped names, and `*` for numbers and stacks."""

NOTHING = PartitionSpec()


class Form(NamedTuple):
    """A pattern for the ends of paths, which is not written out yet."""

    ending: tuple[tuple[str, ...], ...]
    """For each segment its alternatives."""
    is_whole: bool
    """Whether it is of whole paths, without `**` in front."""
    separator: str


def forms_of(splits: Mapping[str, Split]) -> dict[Form, list[str]]:
    """The form for each leaf that is split -> the paths of the leaves that it is for; it matches no leaf that is split otherwise."""
    general = {path: _general(path, split) for path, split in splits.items()}
    endings = _Endings()
    endings.add_all((ending, splits[path].spec) for path, ending in general.items())
    endings.compare()
    # where layers of one name are split differently, their numbers decide
    numbered = {path: _numbered(path, ending) for path, ending in general.items() if not endings.is_pure(ending)}
    literal = _with_numbers(splits, numbered) if numbered else endings
    forms: dict[Form, list[str]] = {}
    made: dict[Ending, Form] = {}
    for path, ending in general.items():
        split = splits[path]
        if split.spec == NOTHING:
            continue
        known = endings
        if path in numbered:
            known = literal
            pure = [choice for choice in numbered[path] if literal.is_pure(choice)]
            ending = pure[0] if pure else numbered[path][-1]
        if ending not in made:
            made[ending] = _form(known.shortest(ending, split), len(ending), separator_in(path))
        forms.setdefault(made[ending], []).append(path)
    return forms


def _with_numbers(splits: Mapping[str, Split], numbered: Mapping[str, list[Ending]]) -> _Endings:
    """The endings of all paths as they are, in which these with some numbers are looked up."""
    endings = _Endings()
    endings.add_all((tuple(map(escape, path.split(separator_in(path)))), split.spec) for path, split in splits.items())
    for choices in numbered.values():
        for choice in choices:
            endings.will_look_up(choice)
    endings.compare()
    return endings


def separator_in(path: str) -> str:
    """What is between the names of a path: a state dict of PyTorch as it is has dots in one name."""
    return "/" if "/" in path else "."


def _form(ending: Ending, length: int, separator: str) -> Form:
    return Form(tuple((segment,) for segment in ending), len(ending) == length, separator)


_Mask: TypeAlias = tuple[int, tuple[int, ...]]
"""A number of segments, and which of them are `*`."""


class _Endings:
    """What leaves whose paths have the same ending have in common; in an ending `*` is any name."""

    def __init__(self) -> None:
        self._paths: dict[Ending, PartitionSpec | None] = {}
        self._of_wholes: dict[Ending, PartitionSpec | None] = {}
        self._of_endings: dict[Ending, PartitionSpec | None] = {}
        """None where leaves with this ending are split differently."""
        self._masks: dict[_Mask, None] = {}

    def add_all(self, leaves: Iterable[tuple[Ending, PartitionSpec]]) -> None:
        """Add all leaves, and the nodes above them: a pattern that matches a node takes all leaves below it."""
        different = dict.fromkeys(leaves)  # few, where layers are alike
        for path, spec in different:
            if path not in self._paths:
                self.will_look_up(path)
            _agree(self._paths, path, spec)
        for path, spec in different:
            for stop in range(1, len(path)):
                _agree(self._paths, path[:stop], spec)

    def will_look_up(self, path: Ending) -> None:
        for start in range(len(path)):
            stars = tuple(at for at, segment in enumerate(path[start:]) if segment == "*")
            self._masks[len(path) - start, stars] = None

    def compare(self) -> None:
        """Compare all paths, when all have been added, under each arrangement of `*` that is looked up."""
        for path, spec in self._paths.items():
            for length, stars in self._masks:
                if length > len(path):
                    continue
                ending = path[len(path) - length :]
                if stars:
                    ending = tuple("*" if at in stars else segment for at, segment in enumerate(ending))
                _agree(self._of_endings, ending, spec)
                if length == len(path):
                    _agree(self._of_wholes, ending, spec)

    def is_pure(self, path: Ending) -> bool:
        """Whether all leaves that a whole path matches are split alike."""
        return self._of_wholes[path] is not None

    def shortest(self, path: Ending, split: Split) -> Ending:
        """The shortest ending that decides, and begins with a name; for experts it begins with the name of their stack."""
        latest = path.index(STACKED) - 1 if split.is_expert else len(path) - 1
        for start in range(latest, 0, -1):
            begins_with_name = path[start] != "*" and not path[start].isdecimal()
            if begins_with_name and self._of_endings[path[start:]] is not None:
                return path[start:]
        return path


def _agree(known: dict[Ending, PartitionSpec | None], ending: Ending, spec: PartitionSpec | None) -> None:
    if known.setdefault(ending, spec) != spec:
        known[ending] = None


def _general(path: str, split: Split) -> Ending:
    """A path with `*` for numbers and stacks; the stack of experts, whose axis is split, stays as it is."""
    names = path.split(separator_in(path))
    ending = [_general_name(name) for name in names]
    if split.is_expert:
        for at, name in enumerate(names):
            if name == STACKED and at and names[at - 1] in EXPERTS:
                ending[at] = STACKED
    return tuple(ending)


@cache
def _general_name(name: str) -> str:
    return "*" if name == STACKED or name.isdecimal() else escape(name)


def whole_pattern(path: str, split: Split) -> str:
    """The pattern of one leaf alone, with `*` for stacks whose axes are not split."""
    return separator_in(path).join(_numbered(path, _general(path, split))[-1])


def _numbered(path: str, general: Ending) -> list[Ending]:
    """A path with its last number, with its first one, and with all of them."""
    names = path.split(separator_in(path))
    places = [at for at, name in enumerate(names) if name.isdecimal()]
    choices: list[Ending] = []
    for kept in (places[-1:], places[:1], places):
        choices.append(tuple(names[at] if at in kept else name for at, name in enumerate(general)))
    return choices
