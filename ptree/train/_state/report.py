"""Carried, the report of what became of the slots of each parameter when the state of an optimiser was carried over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..._tree import PyTree, leaves
from ..._words import SHOWN, listed, printable_path
from .changes import Changes
from .destination import Destination
from .old_states import OldStates


@dataclass(frozen=True)
class Carried:
    """What became of the slots of each parameter, by its path; print it for a list.

    >>> import jax.numpy as jnp, optax
    >>> from ptree import train
    >>> old, new, optimiser = {"w": jnp.ones(2)}, {"w": jnp.ones(3)}, optax.sgd(0.1, momentum=0.9)
    >>> _, report = train.carry(optimiser.init(old), old, new, optimiser)
    >>> report.kept, report.fresh
    ((), {'w': 'its shape is (3,) now, (2,) before'})

    A parameter without slots, of an optimiser that keeps none, is in none of the lists.
    """

    kept: tuple[str, ...] = ()
    """Parameters of the new model whose slots go on."""
    fresh: Mapping[str, str] = field(default_factory=dict)
    """Parameters of the new model whose slots, or some of them, start anew -> why."""
    dropped: tuple[str, ...] = ()
    """Parameters of the old model whose slots nothing takes."""

    __module__ = "ptree.train"

    def __str__(self) -> str:
        shown: list[str] = []
        if self.kept:
            shown.append(f"kept {len(self.kept)}: {listed(self.kept)}")
        if self.fresh:
            shown.append(f"fresh {len(self.fresh)}:")
            reasons = [f"  {printable_path(path)}: {why}" for path, why in self.fresh.items()]
            shown += reasons[:SHOWN]
            if len(reasons) > SHOWN:
                shown.append(f"  and {len(reasons) - SHOWN} more")
        if self.dropped:
            shown.append(f"dropped {len(self.dropped)}: {listed(self.dropped)}")
        return "\n".join(shown) or "nothing"


def report_of(new: PyTree, destinations: Sequence[Destination], old_states: OldStates, changes: Changes) -> Carried:
    """What became of the slots of each parameter."""
    kept: list[str] = []
    fresh: dict[str, str] = {}
    taken: set[str] = set()
    units_of = {param: units for destination in destinations for param, units in destination.units.items()}
    for param, _ in leaves(new):
        units = units_of.get(param, {}).values()
        reasons = [unit.why for unit in units if unit.is_fresh]
        if reasons:
            fresh[param] = reasons[0]
        elif units:
            kept.append(param)
        if len(reasons) < len(units):
            taken.update(piece.path for piece in changes.origins[param].pieces)
    dropped = [path for path in old_states.params_with_slots() if path not in taken]
    return Carried(tuple(kept), fresh, tuple(dropped))
