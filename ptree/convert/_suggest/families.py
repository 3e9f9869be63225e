"""Families: arrays whose names differ in numbers alone, such as those of all layers; and how the numbers of two correspond."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from ..._paths import STACKED, escape
from .._named_arrays import NamedArray, NamedArrays
from .._operations.operation import Described
from .name_words import layer_of, roles_of, words_of

Collapse = Literal["all numbers", "numbered segments", "nothing"]
"""Which numbers in names are collapsed: `conv*` and `layer/*`, `layer/*` alone, or none."""
COLLAPSES: tuple[Collapse, ...] = ("all numbers", "numbered segments", "nothing")

_NUMBERS = {
    # a number with leading zeros is no count, and neither is `1d` of a convolution
    "all numbers": re.compile(r"(?<!\d)(?:0|[1-9]\d{0,8})(?![\dd])"),
    "numbered segments": re.compile(r"(?<![^/])(?:0|[1-9]\d{0,8})(?![^/])"),
    "nothing": re.compile(r"(?!)"),
}
Numbers = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Family:
    """Arrays whose names differ in numbers alone."""

    texts: tuple[str, ...]
    """What stands between the numbers: `("encoder/layer/", "/weight")`."""
    members: dict[Numbers, NamedArray]
    """By the numbers that stand between the texts, in ascending order."""

    @cached_property
    def path(self) -> str:
        """The path of the first member."""
        return next(iter(self.members.values())).path

    @cached_property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shape of each member."""
        return [described_of(array).shape for array in self.members.values()]

    @cached_property
    def words(self) -> frozenset[str]:
        """The words of its names."""
        return words_of("/".join(self.texts) if len(self.texts) > 1 else self.path)

    @cached_property
    def roles(self) -> frozenset[str]:
        """What its arrays may be."""
        return roles_of(self.path, len(self.shapes[0]))

    @cached_property
    def parent(self) -> str:
        """Its pattern without the name of the leaf: arrays of one layer have the same. Empty for leaves of no layer."""
        return layer_of("*".join(self.texts))

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """How many numbers each member has."""
        return tuple(_size(shape) for shape in self.shapes)

    def pattern(self, wildcards: Sequence[str], *, is_dotted: bool) -> str:
        """Its name with these in the places of the numbers."""
        escaped = [escape(text) for text in self.texts]
        written = [part for pair in zip(escaped, (*wildcards, ""), strict=True) for part in pair]
        text = "".join(written)
        if not is_dotted:
            return text
        return ".".join(text.split("/"))


def _size(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def described_of(array: NamedArray) -> Described:
    """The shape and dtype of an array of a family, which are known."""
    assert array.described is not None
    return array.described


def whole_arrays(arrays: NamedArrays) -> list[NamedArray]:
    """The arrays that have numbers of their own, stacks by their layers; without other names of the same arrays."""
    stacks = {array.same_as for array in arrays.by_path.values() if array.is_layer}
    found: list[NamedArray] = []
    for path, array in arrays.by_path.items():
        is_alias = array.same_as and not array.is_layer
        if array.described is not None and not is_alias and path not in stacks:
            found.append(array)
    return found


def families_of(arrays: Iterable[NamedArray], collapse: Collapse) -> list[Family]:
    """The families of arrays; a number that is the same in all members is part of the texts."""
    groups: dict[tuple[str, ...], list[NamedArray]] = {}
    number = _NUMBERS[collapse]
    for array in arrays:
        # an array of another rank is another kind of array
        rank = str(len(described_of(array).shape))
        groups.setdefault((rank, *number.split(array.path)), []).append(array)
    return [_family([*texts], members, number) for (_, *texts), members in groups.items()]


def _family(texts: list[str], arrays: Sequence[NamedArray], number: re.Pattern[str]) -> Family:
    numbers = [tuple(map(int, number.findall(array.path))) for array in arrays]
    first = numbers[0]
    varying = [at for at in range(len(first)) if any(other[at] != first[at] for other in numbers)]
    joined: list[str] = [texts[0]]
    for at, text in enumerate(texts[1:]):
        if at in varying:
            joined.append(text)
        else:
            joined[-1] += f"{first[at]}{text}"
    members = {tuple(found[at] for at in varying): array for found, array in zip(numbers, arrays, strict=True)}
    return Family(tuple(joined), dict(sorted(members.items())))


def offsets(source: Family, target: Family) -> Numbers | None:
    """By how much each number of a target is more than that of the source; None if the numbers do not correspond."""
    if len(source.members) != len(target.members) or len(source.texts) != len(target.texts):
        return None
    firsts = zip(next(iter(source.members)), next(iter(target.members)), strict=True)
    steps = tuple(there - here for here, there in firsts)
    for here, there in zip(source.members, target.members, strict=True):
        if any(before + step != after for before, step, after in zip(here, steps, there, strict=True)):
            return None
    return steps


def wildcards_of(source: Family, target: Family, *, is_plain: bool) -> tuple[list[str], list[str]]:
    """What stands in the places of the numbers in a row: `*`, or ranges such as `{1..4}` and `{0..3}` that correspond.

    Args:
        is_plain: whether `*` may be used where the numbers are the same on both sides.
    """
    steps = offsets(source, target)
    assert steps is not None
    left: list[str] = []
    right: list[str] = []
    for at, step in enumerate(steps):
        if not step and is_plain:
            left.append("*")
            right.append("*")
            continue
        values = sorted({numbers[at] for numbers in source.members})
        left.append(_choices(values))
        right.append(_choices([value + step for value in values]))
    return left, right


def _choices(values: Sequence[int]) -> str:
    if len(values) > 1 and values[-1] - values[0] == len(values) - 1:
        return f"{{{values[0]}..{values[-1]}}}"
    return f"{{{','.join(map(str, values))}}}"


def is_stacked(array: NamedArray) -> bool:
    """Whether an array is a layer of a stack."""
    return STACKED in array.same_as.split("/")
