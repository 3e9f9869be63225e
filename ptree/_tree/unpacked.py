"""TiedName, a name of a Tree that knows its ties, so that a Tree made of a dict that was unpacked from one keeps them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import numpy as np
from jax.core import Tracer

from .layout import MISSING, TiedName
from .leaf import Leaf, PyTree, same
from .tie import Tie


class UnpackedTies(NamedTuple):
    """The ties that the names of a mapping know."""

    kept: dict[str, Tie]
    """Ties whose two ends hold the same value in the mapping."""
    lost: dict[str, Tie]
    """Ties whose ends hold different values, or unknown ones (tracers)."""


def unpacked_ties(names: Iterable[object], value_at: Callable[[str], PyTree]) -> UnpackedTies:
    """Find the ties that these names know. If the mapping lacks a source, its first alias becomes the source of the others."""
    kept: dict[str, Tie] = {}
    lost: dict[str, Tie] = {}
    heirs: dict[str, tuple[str, Tie]] = {}
    for name in names:
        if type(name) is not TiedName:
            continue
        for alias, tie in name.ties:
            value = value_at(alias)
            if value is MISSING or type(value) is Tie:  # a node that was read keeps the ties among its aliases
                continue
            if value_at(tie.source) is not MISSING:
                found = tie
            elif tie.source in heirs:
                heir, seen = heirs[tie.source]
                found = seen.back(heir).then(tie.via)
            else:
                heirs[tie.source] = alias, tie
                continue
            is_held = _hold_the_same(value, value_at(found.source), found)
            (kept if is_held else lost)[alias] = found
    return UnpackedTies(kept, lost)


def _hold_the_same(value: PyTree, source: PyTree, tie: Tie) -> bool:
    """Whether an alias holds what is at its source: two leaves, or two nodes leaf by leaf."""
    if isinstance(value, dict) and isinstance(source, dict):
        return value.keys() == source.keys() and all(_hold_the_same(value[name], source[name], tie) for name in value)
    if isinstance(value, dict) or isinstance(source, dict):
        return False
    return _is_seen(value, source, tie)


def _is_seen(value: Leaf, source: Leaf, tie: Tie) -> bool:
    """Whether a leaf is for certain what the alias of a tie reads, and no other of equal values, such as fresh zeros."""
    if isinstance(value, Tracer) or isinstance(source, Tracer):
        return value is source and not tie.via  # inside jit no values are known
    seen = tie.read(source)
    if value is seen:
        return True
    if isinstance(value, jax.Array | np.ndarray):
        return same(value, seen) and not _is_one_value(value)
    return bool(tie.via) and same(value, seen)


def _is_one_value(array: Leaf) -> bool:
    if array.size < 2:
        return True
    return bool((array == array.ravel()[0]).all())
