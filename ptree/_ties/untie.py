"""Untie aliases: each selected alias, or all of a tree, becomes a leaf of its own with equal values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import jax

from .._edit import Selector, choose_names, names_of_leaves
from .._errors import PatternError
from .._paths import compile
from .._tree import (
    PyTree,
    Structure,
    Tie,
    assemble,
    copied,
    structure,
)
from .._words import listed, quoted

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
    is given shapes and dtypes. Works on any pytree that holds Trees, such as an optax state.

    Args:
        tree: any pytree that holds Trees.
        selector: which aliases; all by default.

    Raises:
        PatternError: the selector is malformed, or matches no alias; or the tree has no ties.
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
    if isinstance(selector, str) and not any(compile(selector.removeprefix("!")).matches(name.name) for name in names):
        raise _no_alias(selector, tied)
    chosen = choose_names(tree, selector, names)
    # an alias of a container is one tie with a name for each leaf
    return [alias for alias in tied if any(name == alias or name.startswith(f"{alias}/") for name in chosen)]


def _no_alias(selector: str, tied: Mapping[str, Tie]) -> PatternError:
    """The error for a pattern that matches a source, or a leaf that is not tied."""
    aliases_of_it = [alias for alias, tie in tied.items() if tie.source == selector]
    if aliases_of_it:
        return PatternError(f"{quoted(selector)} is a source: name its aliases, {listed(aliases_of_it)}")
    return PatternError(f"the pattern {quoted(selector)} matches no alias: there are {listed(tied)}")
