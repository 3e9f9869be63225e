"""Destination, the state of a changed model that is to be filled: for each parameter the slots that go on, or why they start anew,
with the counts that belong to them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import jax
import numpy as np

from ..._tree import Leaf, PyTree, copied, leaves
from ..._words import describe, quoted
from .._groups.leaf_groups import part_of
from .changes import Changes
from .count_sources import CountSources
from .initial_state import InitialState, sharding_beside
from .moved_slots import OldSlot, Shape, can_be_resized, moved_slot, with_corner
from .old_states import FoundSlot, OldNode, OldStates
from .origins import Origin
from .slots import Init, Node, StateLayout, StateLeaf

SlotName: TypeAlias = tuple[str, str]
"""Field, and name below it."""


_NOT_OF_SLOTS = ("MultiStepsState", "ApplyEvery", "ScaleByLionState")
"""States of optax with counts that say when to update, or nothing, not how old the slots beside them are."""


@dataclass(frozen=True)
class Unit:
    """The slots that one node of a state keeps for one parameter: they go on together, or start anew together."""

    node: Node
    slots: Mapping[SlotName, Leaf]
    """The old values of slots as the new parameter has them; what is not here starts anew."""
    where: OldNode | None
    """The old node, whose counts are theirs; None for slots that start anew."""
    why: str = ""
    """Why they start anew."""
    is_resized: bool = False
    """Whether the slots are those of the parameter in another size, to be put into fresh ones."""

    @property
    def is_fresh(self) -> bool:
        """Whether the slots start anew."""
        return self.where is None


class Destination:
    """The state that an optimiser makes of new parameters, and what old states have for it."""

    def __init__(self, init: Init, params: PyTree, old: OldStates, changes: Changes, *, rule: str = ""):
        self._initial = InitialState(init, params)
        self.layout = self._initial.layout
        self.paths = [path for path, _ in leaves(params)]
        self.units: dict[str, dict[Node, Unit]] = {}
        self._old, self._changes, self._rule = old, changes, rule
        self._counts = CountSources(self._initial, old, changes)
        slots: dict[tuple[str, Node], list[int]] = {}
        for at, about in enumerate(self.layout.about):
            if about.param is not None:
                slots.setdefault((about.param, about.node), []).append(at)
        self._nodes_with_slots = {node for _, node in slots}
        for (param, node), positions in slots.items():
            self.units.setdefault(param, {})[node] = self._unit(param, node, positions)

    # ------------------------------------------------------------------------------- slots

    def _unit(self, param: str, node: Node, positions: list[int]) -> Unit:
        why = self._changes.why_new(param)
        if why:
            return Unit(node, {}, None, why)
        origin = self._changes.origins[param]
        values: dict[SlotName, Leaf] = {}
        places: dict[OldNode, None] = {}
        for at in positions:
            about, wanted = self.layout.about[at], self.layout.shapes[at]
            found = self._pieces(about, origin)
            if found is None:
                return Unit(node, {}, None, self._why_without(origin))
            places.update(dict.fromkeys(slot.where for slot in found))
            value = self._new_slot(found, param, origin, wanted)
            if value is not None:
                values[about.field, about.below] = value
            elif not _is_filler(found, wanted, self._changes.new_shapes[param]):
                return Unit(node, {}, None, _why_unlike(about.field, found[0], wanted))
        where = self._one_place(places, node)
        if where is None:
            return Unit(node, {}, None, "its step counts differ, or do not fit")
        return Unit(node, values, where, is_resized=param in self._changes.resized)

    def _pieces(self, about: StateLeaf, origin: Origin) -> list[FoundSlot] | None:
        found: list[FoundSlot] = []
        for piece in origin.pieces:
            slot = self._old.slot(about, piece.path)
            if slot is None:
                return None
            found.append(slot)
        return found

    def _why_without(self, origin: Origin) -> str:
        if self._old.state_of(origin.pieces[0].path) is None:
            return "was not trained before"
        return "the old optimiser keeps no such slots"

    def _new_slot(
        self, found: list[FoundSlot], param: str, origin: Origin, wanted: jax.ShapeDtypeStruct
    ) -> Leaf | None:
        if param in self._changes.resized:
            old_shape = self._changes.old_shapes[origin.pieces[0].path]
            old = found[0].value
            fits = can_be_resized(np.shape(old), wanted.shape, old_shape, self._changes.new_shapes[param])
            return old if fits else None
        slots: list[OldSlot] = []
        for slot, piece in zip(found, origin.pieces, strict=True):
            slots.append(OldSlot(slot.value, self._changes.old_shapes[piece.path]))
        return moved_slot(slots, origin, wanted)

    def _one_place(self, places: Collection[OldNode], node: Node) -> OldNode | None:
        """The node whose counts the slots go on with; None if they come from several nodes with different ones."""
        first, *others = places
        if self._counts.carried(first, node) is None:
            return None
        for other in others:
            if self._counts.carried(other, node) is None:
                return None
            if self._counts.fingerprint(node, other) != self._counts.fingerprint(node, first):
                return None
        return first

    # ------------------------------------------------------------------------------- counts

    def nodes_by_count(self) -> list[Node]:
        """The nodes whose slots go by a count, or another number of the node."""
        return [node for node in self._counts.nodes if self._is_of_slots(node)]

    def _is_of_slots(self, node: Node) -> bool:
        return node in self._nodes_with_slots and node.role[-1] not in _NOT_OF_SLOTS

    def _where(self, param: str, node: Node) -> OldNode | None:
        """The old node whose counts a parameter continues; None if it starts at 0.

        Counts that say nothing about slots, such as that of a schedule, go on, for a new parameter too.
        """
        if self._is_of_slots(node):
            return self.units[param][node].where
        origin = self._changes.origins.get(param)
        state = None if origin is None else self._old.state_of(origin.pieces[0].path)
        if state is None:
            state = self._old.state_of_rule(self._rule)
        return None if state is None else self._old.node_like(state, node)

    def _nodes_of(self, param: str) -> list[Node]:
        """The nodes whose counts the updates of a parameter depend on."""
        units = self.units.get(param, {})
        return [node for node in self._counts.nodes if node in units or not self._is_of_slots(node)]

    def fingerprint(self, param: str) -> tuple[tuple[Node, object], ...]:
        """What is equal for parameters whose updates depend on equal counts."""
        return tuple((node, self._counts.fingerprint(node, self._where(param, node))) for node in self._nodes_of(param))

    def fingerprint_at(self, unit: Unit) -> object:
        """What is equal for units whose slots go by equal counts."""
        return self._counts.fingerprint(unit.node, unit.where)

    def units_at(self, node: Node) -> dict[str, Unit]:
        """The units of a node, by parameter."""
        return {param: units[node] for param, units in self.units.items() if node in units}

    def restart(self, node: Node) -> None:
        """Let all slots of a node start anew."""
        for units in self.units.values():
            if node in units and not units[node].is_fresh:
                units[node] = Unit(node, {}, None, "starts anew with the others")

    # ---------------------------------------------------------------------------- the state

    def state_of(self, paths: tuple[str, ...]) -> PyTree:
        """The state of some of the parameters, whose fingerprints agree."""
        is_whole = len(paths) == len(self.paths)
        initial = self._initial if is_whole else self._initial.of(part_of(self._initial.params, paths))
        places: dict[Node, OldNode | None] = {}
        for path in paths:
            for node in self._nodes_of(path):
                if node not in places:
                    places[node] = self._where(path, node)
        return self._filled(initial, places)

    def state(self, oldest: Mapping[Node, Unit]) -> PyTree:
        """The state of all parameters, in which the slots of each node go by the counts of one unit."""
        places = {node: self._where("", node) for node in self._counts.nodes if not self._is_of_slots(node)}
        places |= {node: unit.where for node, unit in oldest.items()}
        return self._filled(self._initial, places)

    def _filled(self, initial: InitialState, places: Mapping[Node, OldNode | None]) -> PyTree:
        """An initial state with all that goes on."""
        layout = initial.layout
        values: dict[int, Leaf] = {}
        corners: dict[int, Leaf] = {}
        for at, about in enumerate(layout.about):
            if about.param is None:
                where = places.get(about.node)
                carried = None if where is None else self._counts.carried(where, about.node)
                if carried is not None:
                    values[at] = carried[about.field]
                continue
            unit = self.units[about.param][about.node]
            value = unit.slots.get((about.field, about.below))
            if value is not None and unit.is_resized:
                corners[at] = value
            elif value is not None:
                values[at] = value
        missing = [at for at in range(len(layout.about)) if at not in values]
        values |= initial.leaves(missing)
        for at, corner in corners.items():
            values[at] = with_corner(values[at], corner)
        placed = _each_placed(values, layout, initial.params)
        return jax.tree.unflatten(layout.structure, placed)


def _each_placed(values: Mapping[int, Leaf], layout: StateLayout, params: PyTree) -> list[Leaf]:
    """The leaves of a state in order, each an array of its own, which can be donated; new ones where their parameters are."""
    params_at = dict(leaves(params))
    seen: set[int] = set()
    found: list[Leaf] = []
    for at, about in enumerate(layout.about):
        value = values[at]
        sharding = sharding_beside(params_at.get(about.param or ""), np.shape(value))
        if sharding is not None and getattr(value, "sharding", None) != sharding:
            value = jax.device_put(value, sharding)
        if id(value) in seen:
            value = copied(value)
        seen.add(id(value))
        found.append(value)
    return found


def _why_unlike(field: str, found: FoundSlot, wanted: jax.ShapeDtypeStruct) -> str:
    """Why an old slot cannot be the new one."""
    now, before = describe(wanted), describe(found.value)
    if now != before:
        return f"{quoted(field)} is {now} now, {before} before"
    # a sum over a leaf that is turned now, or one layer of it: nothing in it says what the new one's is
    return f"{quoted(field)} was made of the whole leaf as it was, with other axes or layers, and has no axes to take it apart"


def _is_filler(found: list[FoundSlot], wanted: jax.ShapeDtypeStruct, param_shape: Shape) -> bool:
    """Whether a slot is an array of one number that an optimiser keeps in the place of one that it does not need.

    adafactor has such a `v` for kernels, of which it keeps rows and columns.
    """
    if param_shape == (1,) or wanted.shape != (1,):
        return False
    return all(np.shape(slot.value) == (1,) for slot in found)
