"""A mask as a selector: a tree of bools with the paths of another tree, True at the leaves that are meant, as optax takes them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import cast

import numpy as np

from .._errors import PatternError
from .._paths import Selector
from .._tree import Leaf, PyTree, leaves, opened
from .._words import describe, lines, listed, quoted


class Mask:
    """A mask as a predicate: whether the leaf at a path is marked."""

    def __init__(self, marked: dict[str, bool]):
        self._marked = marked

    def __call__(self, path: str, leaf: Leaf) -> bool:
        return self._marked[path]


def with_masks(tree: PyTree, selector: Selector) -> Selector:
    """The selector, with a predicate in the place of each mask.

    Raises:
        PatternError: a mask has other paths than the tree, or a leaf that is no bool.
    """
    if isinstance(selector, str | re.Pattern):
        return selector
    if _is_mask(tree, selector):
        return Mask(_marked(tree, selector))
    if not isinstance(selector, Sequence) or isinstance(selector, bytes):
        return cast(Selector, selector)
    return [with_masks(tree, part) for part in selector]


def _is_mask(tree: PyTree, selector: Selector) -> bool:
    # a module of bools can often be called: it is a mask of a module of its own class, and else a predicate
    if callable(selector) and type(selector) is not type(tree):
        return False
    if opened(selector) is None:
        return False
    are_bools = [_is_bool(leaf) for _, leaf in leaves(selector)]
    if isinstance(selector, Sequence):  # of selectors, unless the tree is a sequence too
        return isinstance(tree, Sequence) and bool(are_bools) and all(are_bools)
    return any(are_bools)


def _is_bool(leaf: Leaf) -> bool:
    return isinstance(leaf, bool | np.bool_)


def _marked(tree: PyTree, mask: PyTree) -> dict[str, bool]:
    """Path -> whether the leaf is marked, for each leaf of the tree."""
    marked = dict(leaves(mask))
    wanted = dict(leaves(tree))
    problems = [
        f"{quoted(path)} is {describe(leaf)}, and not True or False"
        for path, leaf in marked.items()
        if not _is_bool(leaf)
    ]
    missing = [path for path in wanted if path not in marked]
    if missing:
        problems.append(f"missing in the mask: {listed(missing)}")
    unexpected = [path for path in marked if path not in wanted]
    if unexpected:
        problems.append(f"unexpected in the mask: {listed(unexpected)}")
    if problems:
        raise PatternError(f"a mask has True or False at each leaf of the tree: {lines(problems)}")
    return {path: bool(marked[path]) for path in wanted}
