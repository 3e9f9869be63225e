"""Untie aliases: each selected alias, or all of a tree, becomes a leaf of its own with equal values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TypeVar

import jax

from .._edit import Selector, choose_names, names_of_leaves
from .._errors import PatternError
from .._paths import MaskPredicate, Part, Pattern, Predicate, is_everything, unused_alternatives, unused_in_words
from .._tree import (
    PyTree,
    Structure,
    Tie,
    assemble,
    copied,
    structure,
)
from .._words import listed, name_of, quoted, suggestion

T = TypeVar("T")


def untie(tree: T, selector: Selector | None = None) -> T:
    """Untie each selected alias (all, without a selector): it becomes a leaf of its own with equal values.

    >>> from ptree import tie
    >>> tree = tie({"a": 1, "b": 1}, {"b": "a"})
    >>> untie(tree)
    Tree(
      a  1
      b  1
    )

    Arrays are copied, so that both leaves can be donated. The selector's patterns match aliases' paths; a predicate
    is given shapes and dtypes; a mask unties all aliases of the leaves at which it is True. Works on any pytree that
    holds Trees, such as an optax state.

    Args:
        tree: any pytree that holds Trees.
        selector: which aliases: a pattern, a regex, a predicate, a mask, or a sequence of these; all by default.

    Raises:
        PatternError: the selector is malformed, or a part of it matches no alias; or the tree has no ties.
    """
    before = structure(tree)
    tied = {path: value for path, value in before.entries.items() if type(value) is Tie}
    chosen = [*tied] if selector is None else _chosen_aliases(tree, tied, selector)
    if not chosen:
        return tree
    after = dict(before.entries)
    for alias in chosen:
        after[alias] = jax.tree.map(copied, _seen(before, tied[alias]))
    return assemble(after, before.containers)


def _seen(before: Structure, tie: Tie) -> PyTree:
    """What an alias shows: of a leaf, or of a container that is tied as a whole."""
    if tie.source in before.containers:
        return tie.read(before.containers[tie.source])
    return tie.read(before.entries[tie.source])


def _chosen_aliases(tree: PyTree, tied: Mapping[str, Tie], selector: Selector) -> list[str]:
    if not tied:
        raise PatternError("cannot untie: the tree has no ties")
    names = [name for name in names_of_leaves(tree) if name.tie is not None]
    chosen = choose_names(tree, selector, names, partial(_problems_of, tied))
    # an alias of a container is one tie with a name for each leaf
    return [alias for alias in tied if any(name == alias or name.startswith(f"{alias}/") for name in chosen)]


def _problems_of(tied: Mapping[str, Tie], part: Part, found: Sequence[str]) -> list[str]:
    """Why a part of a selector, or an alternative in its braces, matches no alias, given those that it matches."""
    if not found:
        return [] if is_everything(part) else [_why_no_alias(part.test, tied)]
    if not isinstance(part.test, Pattern):
        return []
    unused = unused_alternatives(part.test, found)
    if not unused:
        return []
    segments = {segment for alias in tied for segment in alias.split("/")}
    hint = suggestion(unused[0], segments)
    return [f"{unused_in_words(part.test, unused)} no alias: there are {listed(tied)}.{hint}".rstrip(".")]


def _why_no_alias(test: Pattern | re.Pattern[str] | Predicate, tied: Mapping[str, Tie]) -> str:
    """Why a test is true of no alias: it may match a source, or a leaf that is not tied."""
    if isinstance(test, MaskPredicate):
        return f"the mask is True at no leaf that has an alias: the aliases are {listed(tied)}"
    if isinstance(test, re.Pattern):
        return f"the regex {quoted(test.pattern)} matches no alias: there are {listed(tied)}"
    if not isinstance(test, Pattern):
        return f"the predicate {name_of(test)!r} is true of no alias: there are {listed(tied)}"
    aliases_of_it = [alias for alias, tie in tied.items() if tie.source == test.text]
    if aliases_of_it:
        return f"{quoted(test.text)} is a source: name its aliases, {listed(aliases_of_it)}"
    hint = suggestion(test.text, [*tied])
    return f"the pattern {quoted(test.text)} matches no alias: there are {listed(tied)}.{hint}".rstrip(".")
