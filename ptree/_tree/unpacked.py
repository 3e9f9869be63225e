"""TiedName, a name of a Tree that knows its ties, so that a Tree made of a dict that was unpacked from one keeps them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from jax.core import Tracer

from .layout import MISSING, TiedName
from .leaf import Leaf, PyTree, same
from .tie import Tie


class UnpackedTies(NamedTuple):
    """The ties that the names of a mapping know."""

    kept: dict[str, Tie]
    """Those whose two ends hold the same in the mapping."""
    lost: dict[str, Tie]
    """Those whose ends hold different values, or values that are not known."""


def unpacked_ties(names: Iterable[object], value_at: Callable[[str], PyTree]) -> UnpackedTies:
    """The ties that these names know, of what is in the mapping; where a source is not in it, its first alias is one."""
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
    """Whether an alias reads what is at its source: two leaves, or two nodes leaf by leaf."""
    if isinstance(value, dict) and isinstance(source, dict):
        return value.keys() == source.keys() and all(_hold_the_same(value[name], source[name], tie) for name in value)
    if isinstance(value, dict) or isinstance(source, dict):
        return False
    return _are_one_leaf(value, tie.read(source))


def _are_one_leaf(a: Leaf, b: Leaf) -> bool:
    if a is b:
        return True
    if isinstance(a, Tracer) or isinstance(b, Tracer):
        return False  # inside jit nobody can know
    return same(a, b)
