"""Write forms of paths as patterns: several names in braces, numbers as ranges."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from jax.sharding import PartitionSpec

from ..._paths import STACKED


class Form(NamedTuple):
    """A pattern for paths or their ends, which is not written out yet."""

    ending: tuple[tuple[str, ...], ...]
    """For each segment its alternatives: escaped names, or `*`."""
    is_whole: bool
    """Whether it is of whole paths, without `**` in front."""
    separator: str


_SPECIAL = frozenset(",\\ {}[]")
"""Characters that mean something else in braces, or are there as they are only by an escape."""


def merged(specs: Mapping[Form, PartitionSpec]) -> dict[Form, list[Form]]:
    """Join forms of one spec that differ in one segment: form with alternatives -> the forms that it stands for."""
    groups: dict[Form, list[Form]] = {form: [form] for form in specs}
    longest = max((len(form.ending) for form in specs), default=0)
    for at in range(1, longest + 1):
        groups = _merged_at(-at, groups, specs)
    return groups


def _merged_at(
    at: int, groups: Mapping[Form, list[Form]], specs: Mapping[Form, PartitionSpec]
) -> dict[Form, list[Form]]:
    alike: dict[object, list[Form]] = {}
    for form, members in groups.items():
        key: object = form
        if len(form.ending) >= -at and all(map(_fits_in_braces, form.ending[at])):
            key = (_with_names(form, at, ()), specs[members[0]])
        alike.setdefault(key, []).append(form)
    result: dict[Form, list[Form]] = {}
    for forms in alike.values():
        names = tuple(dict.fromkeys(name for form in forms for name in form.ending[at])) if len(forms) > 1 else ()
        joined = _with_names(forms[0], at, names) if names else forms[0]
        result[joined] = [member for form in forms for member in groups[form]]
    return result


def _with_names(form: Form, at: int, names: tuple[str, ...]) -> Form:
    ending = list(form.ending)
    ending[at] = names
    return form._replace(ending=tuple(ending))


def _fits_in_braces(name: str) -> bool:
    return name not in ("*", STACKED) and name.isprintable() and not _SPECIAL & {*name} and ".." not in name


def pattern_text(form: Form) -> str:
    """Write a form as a pattern.

    >>> pattern_text(Form((("q", "k"), ("kernel",)), is_whole=False, separator="/"))
    '**/{q,k}/kernel'
    """
    ending = form.separator.join(map(_segment, form.ending))
    if form.is_whole:
        return ending
    return f"**/{ending}" if form.separator == "/" else f"*.{ending}"


def _segment(names: Sequence[str]) -> str:
    """One name, or several in braces, with numbers as ranges.

    >>> _segment(["q", "k"]), _segment(["0", "1", "2"]), _segment(["0", "1", "2", "5"])
    ('{q,k}', '{0..2}', '{{0..2},5}')
    >>> _segment(["Block_0", "Block_1", "Block_2"]), _segment(["Block_0", "Block_2", "head"])
    ('Block_{0..2}', '{Block_0,Block_2,head}')
    """
    if len(names) == 1:
        return names[0]
    cut = [_cut(name) for name in names]
    numbers: dict[str, list[int]] = {}
    for before, number in sorted(cut, key=lambda pair: pair[1] or 0):
        if number is not None:
            numbers.setdefault(before, []).append(number)
    alternatives: list[str] = []
    for name, (before, number) in zip(names, cut, strict=True):
        if number is None or len(numbers[before]) < _SEVERAL:
            alternatives.append(name)
        elif number == numbers[before][0]:  # once for all numbers
            ranges = _ranges(numbers[before])
            alternatives += [before + _in_braces(ranges)] if before else ranges
    return _in_braces(alternatives)


_SEVERAL = 3
_NUMBERED = re.compile(r"([^0-9]*)(0|[1-9][0-9]{0,8})", re.ASCII)


def _cut(name: str) -> tuple[str, int | None]:
    """A name without the number at its end, and the number; None if it has none."""
    found = _NUMBERED.fullmatch(name)
    return (name, None) if found is None else (found[1], int(found[2]))


def _in_braces(alternatives: Sequence[str]) -> str:
    # a range has braces of its own, and a single name needs none
    return alternatives[0] if len(alternatives) == 1 else "{" + ",".join(alternatives) + "}"


def _ranges(numbers: Sequence[int]) -> list[str]:
    """Sorted numbers, of which three and more in a row are a range."""
    shown: list[str] = []
    starts = [at for at in range(len(numbers)) if at == 0 or numbers[at] != numbers[at - 1] + 1]
    for start, stop in pairwise([*starts, len(numbers)]):
        row = numbers[start:stop]
        shown += map(str, row) if len(row) < _SEVERAL else [f"{{{row[0]}..{row[-1]}}}"]
    return shown
