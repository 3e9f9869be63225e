"""Pairs of a name and a value, as `dict` takes them: from an iterator, the items of a mapping, or a list."""

from __future__ import annotations

from collections.abc import Hashable, ItemsView, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeGuard

from .._errors import StructureError
from .._words import describe, quoted
from .leaf import PyTree

Pair = tuple[Any, PyTree]


def mapping_of(given: Mapping[Any, PyTree] | Iterable[PyTree]) -> Mapping[Any, PyTree] | Sequence[PyTree]:
    """The mapping of an iterator, of items or of a list of pairs; anything else as it is.

    An item of an iterator must be a pair. A list or tuple is a list of layers, except where it holds nothing but pairs
    of a string and a value: a list of `(kernel, bias)` stays one.
    """
    if isinstance(given, Iterator | ItemsView):
        return _mapping_of_pairs(_checked(given))
    if type(given) in (list, tuple) and given and all(map(_is_named, given)):
        return _mapping_of_pairs(given)
    return given  # pyright: ignore[reportReturnType]  # whether it is a mapping, `tree_of` says


def _is_pair(item: PyTree) -> TypeGuard[Pair]:
    return type(item) in (list, tuple) and len(item) == 2 and isinstance(item[0], Hashable)


def _is_named(item: PyTree) -> bool:
    """Whether this is a pair of a string and a value."""
    return _is_pair(item) and isinstance(item[0], str)


def _checked(items: Iterable[PyTree]) -> list[Pair]:
    pairs: list[Pair] = []
    for item in items:
        if not _is_pair(item):
            raise StructureError(
                f"a Tree is made of pairs (name, value); got {describe(item)} as item {len(pairs)} of an iterator."
                " For layers under '0', '1', ... give a list"
            )
        pairs.append(item)
    return pairs


def _mapping_of_pairs(pairs: Iterable[Pair]) -> dict[Any, PyTree]:
    found: dict[Any, PyTree] = {}
    for name, value in pairs:
        if name in found:
            raise StructureError(
                f"two pairs have the name {quoted(name)}: {describe(found[name])} and {describe(value)}"
            )
        found[name] = value
    return found
