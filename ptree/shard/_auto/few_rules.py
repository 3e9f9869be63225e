"""Write what is chosen for each leaf as few, general rules: patterns by the ends of paths, names in braces, and `**` for the rest."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple, TypeAlias

from jax.sharding import PartitionSpec

from ..._edit import explain
from ..._paths import STACKED, escape
from ..._tree import PyTree
from .leaf_splits import Split
from .rules import Rules

_Ending: TypeAlias = tuple[str, ...]
"""The last segments of paths, as patterns: escaped names, and `*` for numbers and stacks."""
_MOST_REPAIRS = 3
_SHOWN = 3
_NOTHING = PartitionSpec()


class _Leaf(NamedTuple):
    path: str
    segments: tuple[str, ...]
    split: Split


class _Form(NamedTuple):
    """A pattern that is not written out yet."""

    ending: tuple[tuple[str, ...], ...]
    """For each segment its alternatives."""
    is_whole: bool
    """Whether it is of whole paths, without `**` in front."""
    separator: str


def few_rules(tree: PyTree, splits: Mapping[str, Split], first: Collection[str], head: str) -> Rules:
    """Write few rules that give each leaf of a tree its split.

    Args:
        tree: the tree, whose ties decide which rules match what.
        splits: path -> split of each leaf.
        first: paths of tied leaves, whose rules come before those that might match their aliases.
        head: a comment above the rules.
    """
    leaves = [_Leaf(path, tuple(path.split(_separator(path))), split) for path, split in splits.items()]
    chosen = sorted(_forms(leaves), key=lambda leaf: leaf not in first)
    forms: dict[_Form, Split] = {}
    comments: dict[_Form, list[str]] = {}
    found = _forms(leaves)
    for path in chosen:
        form = found[path]
        forms.setdefault(form, splits[path])
        said = comments.setdefault(form, [])
        if splits[path].comment not in said:
            said.append(splits[path].comment)
    merged = _merged(forms)
    rules: dict[str, PartitionSpec] = {}
    text: dict[str, str] = {}
    for form, members in merged.items():
        pattern = _pattern(form)
        rules[pattern] = forms[members[0]].spec
        text[pattern] = _comment([said for member in members for said in comments[member]])
    rest = [leaf for leaf in leaves if leaf.split.spec == _NOTHING]
    rules = _repaired(tree, rules, splits)
    if rest or not rules:
        rules["**"] = _NOTHING
        text["**"] = _comment([leaf.split.comment for leaf in rest])
    return Rules(rules, {pattern: said for pattern, said in text.items() if pattern in rules}, head)


def _comment(comments: Iterable[str]) -> str:
    different = list(dict.fromkeys(filter(None, comments)))
    more = f"; and {len(different) - _SHOWN} more" if len(different) > _SHOWN else ""
    return "; ".join(different[:_SHOWN]) + more


# ------------------------------------------------------------- the end of a path that decides


def _separator(path: str) -> str:
    """Between the names of a path: a state dict of PyTorch, unread by ptree, has dots in one name."""
    return "." if "/" not in path else "/"


def _forms(leaves: Sequence[_Leaf]) -> dict[str, _Form]:
    """For each leaf that is split the shortest pattern of a path's end that matches only leaves that are split alike."""
    endings = _Endings()
    general = [_general(leaf) for leaf in leaves]
    spec_of: dict[_Ending, PartitionSpec | None] = {}
    for leaf, ending in zip(leaves, general, strict=True):
        spec = leaf.split.spec
        spec_of[ending] = spec if spec_of.setdefault(ending, spec) == spec else None
    for ending, spec in spec_of.items():
        endings.add(ending, spec)
    for leaf, ending in zip(leaves, general, strict=True):
        if spec_of[ending] is None:
            for numbered in _numbered(leaf, ending):
                endings.add(numbered, leaf.split.spec)
    forms: dict[str, _Form] = {}
    made: dict[_Ending, _Form] = {}
    for leaf, ending in zip(leaves, general, strict=True):
        if leaf.split.spec == _NOTHING:
            continue
        if ending in made:
            forms[leaf.path] = made[ending]
            continue
        if spec_of[ending] is not None:
            form = made[ending] = _form(leaf, endings.shortest(ending, leaf.split), ending)
        else:
            numbered = [one for one in _numbered(leaf, ending) if endings.is_pure(one)][0]
            form = _form(leaf, endings.shortest(numbered, leaf.split), numbered)
        forms[leaf.path] = form
    return forms


def _form(leaf: _Leaf, ending: _Ending, whole: _Ending) -> _Form:
    separator = _separator(leaf.path)
    is_whole = len(ending) == len(whole)
    return _Form(tuple((segment,) for segment in ending), is_whole, separator)


class _Endings:
    """What leaves with each ending of their paths have in common."""

    def __init__(self) -> None:
        self._spec_of: dict[_Ending, PartitionSpec | None] = {}
        """None where leaves with this ending are split differently."""

    def add(self, path: _Ending, spec: PartitionSpec | None) -> None:
        for start in range(len(path)):
            ending = path[start:]
            if self._spec_of.setdefault(ending, spec) != spec:
                self._spec_of[ending] = None

    def is_pure(self, ending: _Ending) -> bool:
        return self._spec_of[ending] is not None

    def shortest(self, path: _Ending, split: Split) -> _Ending:
        """The shortest ending of a path that decides, and begins with a name; for experts it has the name of their stack."""
        latest = len(path) - 1
        if split.is_expert:
            latest = path.index(STACKED) - 1
        for start in range(latest, 0, -1):
            begins_with_name = path[start] != "*" and not path[start].isdecimal()
            if begins_with_name and self.is_pure(path[start:]):
                return path[start:]
        return path


def _general(leaf: _Leaf) -> _Ending:
    """The path with `*` for numbers and stacks; the stack of experts stays as it is."""
    return tuple(_general_segment(leaf, at) for at in range(len(leaf.segments)))


def _general_segment(leaf: _Leaf, at: int) -> str:
    segment = leaf.segments[at]
    if segment == STACKED:
        is_split = leaf.split.is_expert and leaf.segments[at - 1] in EXPERTS
        return STACKED if is_split else "*"
    return "*" if segment.isdecimal() else escape(segment)


EXPERTS = frozenset({"experts", "expert"})
"""Names of nodes whose layers are experts."""


def _numbered(leaf: _Leaf, general: _Ending) -> list[_Ending]:
    """The path with its last number, with its first one, and with all of them."""
    places = [at for at, segment in enumerate(leaf.segments) if segment.isdecimal()]
    choices = [places[-1:], places[:1], places]
    return [
        tuple(leaf.segments[at] if at in chosen else name for at, name in enumerate(general)) for chosen in choices
    ]


# -------------------------------------------------------------------- patterns with braces


def _merged(forms: Mapping[_Form, Split]) -> dict[_Form, list[_Form]]:
    """Forms of one split that differ in one segment, as one with alternatives there -> the forms that it stands for."""
    merged: dict[_Form, list[_Form]] = {form: [form] for form in forms}
    longest = max((len(form.ending) for form in forms), default=0)
    for at in range(1, longest + 1):
        merged = _merged_at(merged, forms, -at)
    return merged


def _merged_at(
    merged: Mapping[_Form, list[_Form]], forms: Mapping[_Form, Split], at: int
) -> dict[_Form, list[_Form]]:
    groups: dict[object, list[_Form]] = {}
    for form, members in merged.items():
        key: object = form
        if len(form.ending) >= -at and _goes_into_braces(form.ending[at]):
            around = (form.ending[: len(form.ending) + at], form.ending[len(form.ending) + at + 1 :])
            key = (around, form.is_whole, form.separator, forms[members[0]].spec)
        groups.setdefault(key, []).append(form)
    result: dict[_Form, list[_Form]] = {}
    for alike in groups.values():
        first = alike[0]
        if len(alike) > 1:
            names = tuple(dict.fromkeys(name for form in alike for name in form.ending[at]))
            place = len(first.ending) + at
            first = first._replace(ending=(*first.ending[:place], names, *first.ending[place + 1 :]))
        result[first] = [member for form in alike for member in merged[form]]
    return result


def _goes_into_braces(names: Sequence[str]) -> bool:
    return all(name not in ("*", STACKED) and name.isprintable() and not {*name} & set(",\\ {}") and ".." not in name for name in names)


def _pattern(form: _Form) -> str:
    front = "" if form.is_whole else ("**/" if form.separator == "/" else "*.")
    return front + form.separator.join(map(_segment, form.ending))


def _segment(names: Sequence[str]) -> str:
    """One name, or several in braces, with numbers as ranges.

    >>> _segment(["q", "k"]), _segment(["0", "1", "2", "5"])
    ('{q,k}', '{0..2,5}')
    """
    if len(names) == 1:
        return names[0]
    numbers = sorted(int(name) for name in names if _is_number(name))
    shown = [name for name in names if not _is_number(name)]
    return "{" + ",".join([*shown, *_ranges(numbers)]) + "}"


def _is_number(name: str) -> bool:
    return name.isdecimal() and name == str(int(name))


def _ranges(numbers: Sequence[int]) -> list[str]:
    shown: list[str] = []
    starts = [at for at in range(len(numbers)) if at == 0 or numbers[at] != numbers[at - 1] + 1]
    for start, stop in pairwise([*starts, len(numbers)]):
        low, high = numbers[start], numbers[stop - 1]
        shown += [f"{low}..{high}"] if high > low + 1 else map(str, range(low, high + 1))
    return shown


# ------------------------------------------------------------------------- what is left


def _repaired(tree: PyTree, rules: Mapping[str, PartitionSpec], splits: Mapping[str, Split]) -> dict[str, PartitionSpec]:
    """The rules, with one in front for each leaf that another takes wrongly, and without those that take nothing.

    A `*` for numbers may match names too, and a pattern may match an alias.
    """
    rules = dict(rules)
    for _ in range(_MOST_REPAIRS):
        rows = explain(tree, rules).rows
        wrong = [row.path for row in rows if (row.value or _NOTHING) != splits[row.path].spec]
        taken = {row.rule for row in rows}
        rules = {pattern: spec for pattern, spec in rules.items() if pattern in taken}
        if not wrong:
            break
        rules = {escape(path): splits[path].spec for path in wrong} | rules
    return rules
