"""A mask as a selector: a tree of bools with the paths of another tree, True at the leaves that are meant, as optax takes them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import product
from typing import cast

import numpy as np

from .._errors import PatternError
from .._paths import STACKED, MaskPredicate, Selector
from .._tree import Leaf, Leaves, PyTree, layer_number, leaves, opened
from .._words import describe, lines, listed, quoted
from .leaf_names import names_of_leaves

NamesOfLeaves = Mapping[str, str]
"""Each name of a leaf, own path or alias -> its own path."""


def with_masks(tree: PyTree, selector: Selector) -> Selector:
    """The selector, with a predicate in the place of each mask.

    Raises:
        PatternError: a mask has other paths than the tree, or a leaf that is no bool.
    """
    if isinstance(selector, str | re.Pattern):
        return selector
    return MaskReader(lambda: {name.name: name.path for name in names_of_leaves(tree)}, type(tree)).read(selector)


class MaskReader:
    """Reads the masks in a selector of leaves that have these names. They are asked for where there is a mask.

    Args:
        names: gives each name of a leaf, own path or alias -> its own path.
        kind: the type of the tree; a mask of that type may be a module that can be called.
        are_parts: whether the leaves are some of a tree, and its stacks are apart, as what `observe` saw; a mask has the others too.
    """

    def __init__(self, names: Callable[[], NamesOfLeaves], kind: type | None = None, *, are_parts: bool = False):
        self._given_names, self._kind, self._are_parts = names, kind, are_parts

    @cached_property
    def _names(self) -> NamesOfLeaves:
        return self._given_names()

    def read(self, selector: Selector) -> Selector:
        """The selector, with a predicate in the place of each mask."""
        if isinstance(selector, str | re.Pattern):
            return selector
        if self._is_mask(selector):
            return MaskPredicate(self._marked(selector))
        if not isinstance(selector, Sequence) or isinstance(selector, bytes):
            return cast(Selector, selector)
        return [self.read(cast(Selector, part)) for part in selector]

    def _is_mask(self, selector: Selector) -> bool:
        if opened(selector) is None:
            return False
        marks = leaves(selector)
        are_bools = bool(marks) and all(_is_bool(leaf) or _is_array_of_bools(leaf) for _, leaf in marks)
        # a module of bools can often be called: it is a mask if it has the class or the paths of the tree, and else a predicate
        if callable(selector) and type(selector) is not self._kind:
            return are_bools and self._are_marked_by(marks)
        if isinstance(selector, Sequence):  # of selectors, which may be masks, or one mask
            return are_bools and (any(map(_is_bool, selector)) or self._are_marked_by(marks))
        return are_bools or any(_is_bool(leaf) for _, leaf in marks)

    def _are_marked_by(self, marks: Leaves) -> bool:
        """Whether there is a mark for each leaf."""
        found = self._marks_of_leaves(dict(marks))
        return bool(found) and all(found.values())

    def _marked(self, mask: PyTree) -> dict[str, bool]:
        """Own path -> whether the leaf is marked, for each leaf."""
        found = self._marks_of_leaves({name.name: name.leaf for name in names_of_leaves(mask)})
        problems = self._problems(leaves(mask), found)
        if not problems:
            problems = [_contradiction(marks) for marks in found.values() if len({*marks.values()}) > 1]
        if problems:
            raise PatternError(f"a mask has True or False at each leaf of the tree: {lines(problems)}")
        return {path: bool(next(iter(marks.values()))) for path, marks in found.items()}

    def _marks_of_leaves(self, marks: Mapping[str, Leaf]) -> dict[str, dict[str, Leaf]]:
        """Own path of each leaf -> its marks, by the names under which a mask has them."""
        stacks = _positions_of_stacks(marks) if self._are_parts else frozenset[int]()
        found: dict[str, dict[str, Leaf]] = {path: {} for path in self._names.values()}
        for name, path in self._names.items():
            for spelling in _spellings(name, stacks):
                if spelling in marks:
                    found[path][name] = marks[spelling]
        return found

    def _problems(self, marks: Leaves, found: Mapping[str, Mapping[str, Leaf]]) -> list[str]:
        """What of a mask is no bool, and where it has other paths than the tree."""
        problems = [_not_a_bool(path, leaf) for path, leaf in marks if not _is_bool(leaf)]
        missing = [path for path, marks_of_leaf in found.items() if not marks_of_leaf]
        if missing:
            problems.append(f"missing in the mask: {listed(missing)}")
        unexpected = [] if self._are_parts else [path for path, _ in marks if path not in self._names]
        if unexpected:
            problems.append(f"unexpected in the mask: {listed(unexpected)}")
        return problems


def _positions_of_stacks(paths: Iterable[str]) -> frozenset[int]:
    """At which positions of these paths there are stacks."""
    return frozenset(at for path in paths for at, segment in enumerate(path.split("/")) if segment == STACKED)


def _spellings(name: str, stacks: Collection[int]) -> Iterator[str]:
    """A name, and the paths of the stacks in which it may be a layer, at these positions."""
    choices = [
        (segment, STACKED) if at in stacks and layer_number(segment) is not None else (segment,)
        for at, segment in enumerate(name.split("/"))
    ]
    return map("/".join, product(*choices))


def _not_a_bool(path: str, leaf: Leaf) -> str:
    fix = ": write bool(...)" if _is_array_of_bools(leaf) and leaf.shape == () else ""
    return f"{quoted(path)} is {describe(leaf)}, and not True or False{fix}"


def _contradiction(marks: Mapping[str, Leaf]) -> str:
    """The problem with a leaf that is marked by one of its names, and not by another."""
    marked = next(name for name, mark in marks.items() if mark)
    other = next(name for name, mark in marks.items() if not mark)
    return (
        f"{quoted(marked)} is True and {quoted(other)} is False in the mask, and they are names of one tied leaf: give both the"
        " same, or select by a pattern"
    )


def _is_bool(leaf: Leaf) -> bool:
    return isinstance(leaf, bool | np.bool_)


def _is_array_of_bools(leaf: Leaf) -> bool:
    return getattr(leaf, "dtype", None) == np.bool_
