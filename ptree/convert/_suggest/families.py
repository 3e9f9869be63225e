"""Families: arrays whose names differ in numbers alone, such as those of all layers; and how the numbers of two correspond."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from ..._paths import escape
from .._named_arrays import NamedArray, NamedArrays
from .._operations.operation import Described
from .name_words import layer_of, roles_of, words_of

Collapse = Literal["all numbers", "numbered segments", "all but the last number", "nothing"]
"""Which numbers in names are collapsed: `conv*` and `layer/*`, `layer/*` alone, the layer's in `layer/*/mlp/0`, or none."""
COLLAPSE_LEVELS: tuple[Collapse, ...] = ("all numbers", "numbered segments", "all but the last number", "nothing")

# a number with leading zeros is no count, and neither is `1d` of a convolution
_ANY_NUMBER = re.compile(r"(?<!\d)(?:0|[1-9]\d{0,8})(?![\dd])")
_NUMBERED_SEGMENT = re.compile(r"(?<![^/])(?:0|[1-9]\d{0,8})(?![^/])")
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

    @property
    def template(self) -> str:
        """Its path with `*` in the places of the numbers."""
        return "*".join(self.texts)

    @cached_property
    def fixed_number(self) -> str:
        """The last number that all its names have: `2` of `h/*/ln_2/weight`; empty where there is none."""
        found = _ANY_NUMBER.findall(self.template)
        return found[-1] if found else ""

    @cached_property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shape of each member."""
        return [described_of(array).shape for array in self.members.values()]

    @cached_property
    def words(self) -> frozenset[str]:
        """The words of its names."""
        return words_of(self.template)

    @cached_property
    def roles(self) -> frozenset[str]:
        """What its arrays may be."""
        return roles_of(self.path, len(self.shapes[0]))

    @cached_property
    def parent(self) -> str:
        """Its pattern without the name of the leaf: arrays of one layer have the same. Empty for leaves of no layer."""
        return layer_of(self.template)

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


def tied_arrays(arrays: NamedArrays) -> list[NamedArray]:
    """The other names of arrays that have several: the tied name, `lm_head/weight`."""
    found: list[NamedArray] = []
    for array in arrays.by_path.values():
        if array.described is not None and array.same_as and not array.is_layer:
            found.append(array)
    return found


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
    groups: dict[tuple[object, ...], dict[Numbers, NamedArray]] = {}
    for array in arrays:
        numbers, texts = _apart(array.path, collapse)
        # an array of another rank is another kind of array
        rank = len(described_of(array).shape)
        groups.setdefault((rank, texts), {})[numbers] = array
    return [_family(texts, members) for (_, texts), members in groups.items()]  # pyright: ignore[reportArgumentType]


def _apart(path: str, collapse: Collapse) -> tuple[Numbers, tuple[str, ...]]:
    """The numbers in a path that are collapsed, and the texts around them."""
    if collapse == "nothing":
        return (), (path,)
    pattern = _NUMBERED_SEGMENT if collapse == "numbered segments" else _ANY_NUMBER
    found = [*pattern.finditer(path)]
    if collapse == "all but the last number":
        found = found[:-1]
    texts: list[str] = []
    begin = 0
    for match in found:
        texts.append(path[begin : match.start()])
        begin = match.end()
    return tuple(int(match[0]) for match in found), (*texts, path[begin:])


def _family(texts: tuple[str, ...], members: Mapping[Numbers, NamedArray]) -> Family:
    first = next(iter(members))
    varying = [at for at in range(len(first)) if any(other[at] != first[at] for other in members)]
    joined: list[str] = [texts[0]]
    for at, text in enumerate(texts[1:]):
        if at in varying:
            joined.append(text)
        else:
            joined[-1] += f"{first[at]}{text}"
    kept = {tuple(numbers[at] for at in varying): array for numbers, array in members.items()}
    return Family(tuple(joined), dict(sorted(kept.items())))


def part_of(family: Family, places: Collection[int]) -> Family:
    """The family of those members alone that have these places in it."""
    members = [*family.members.items()]
    return _family(family.texts, dict(members[at] for at in places))


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
