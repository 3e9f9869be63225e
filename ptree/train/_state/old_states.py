"""The old state of an optimiser, or those of its cohorts, in which slots are found by role and parameter, counts by node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..._tree import Leaf
from .moved_slots import Shape, cast_slot
from .slots import Node, StateLayout, StateLeaf

Counts = dict[str, Leaf]
"""The leaves of a node that belong to no parameter, by field."""


class OldState(NamedTuple):
    """A state of some old parameters: what its leaves are, and their values."""

    layout: StateLayout
    values: Sequence[Leaf]
    shapes: Mapping[str, Shape]
    """The parameters that it was made for: path -> shape."""
    rule: str = ""
    """The rule of `groups` that it is of."""


class OldNode(NamedTuple):
    """A node of one of the old states."""

    state: int
    node: Node


class FoundSlot(NamedTuple):
    """A slot in one of the old states."""

    where: OldNode
    value: Leaf


class OldStates:
    """Finds slots and counts in old states, also where labels or what is around an optimiser have changed."""

    def __init__(self, states: Sequence[OldState]):
        self.states = states
        self._by_role: dict[tuple[object, ...], list[FoundSlot]] = {}
        self._by_type: dict[tuple[object, ...], list[FoundSlot]] = {}
        self._counts: dict[OldNode, Counts] = {}
        self._nodes: list[OldNode] = []
        self._like: dict[tuple[int, Node], OldNode | None] = {}
        self._state_of: dict[str, int] = {}
        for number, state in enumerate(states):
            self._enter(number, state)

    def _enter(self, number: int, state: OldState) -> None:
        for path in state.shapes:
            self._state_of.setdefault(path, number)
        for about, value in zip(state.layout.about, state.values, strict=True):
            where = OldNode(number, about.node)
            if where not in self._counts:
                self._counts[where] = {}
                self._nodes.append(where)
            if about.param is None:
                self._counts[where][about.field] = value
                continue
            slot = (about.field, about.below, about.param)
            found = FoundSlot(where, value)
            self._by_role.setdefault((about.node.role, *slot), []).append(found)
            self._by_type.setdefault((about.node.role[-1], *slot), []).append(found)

    def slot(self, about: StateLeaf, param: str) -> FoundSlot | None:
        """The slot of an old parameter that plays the part of this one in a new state; None if no or several ones do."""
        slot = (about.field, about.below, param)
        found = self._by_role.get((about.node.role, *slot), [])
        if not found:
            found = self._by_type.get((about.node.role[-1], *slot), [])
        return found[0] if len(found) == 1 else None

    def state_of(self, param: str) -> int | None:
        """The number of the state that an old parameter is in."""
        return self._state_of.get(param)

    def state_of_rule(self, rule: str) -> int | None:
        """The number of the first state of a rule of `groups`, or of the one state of an optimiser without groups."""
        for number, state in enumerate(self.states):
            if state.rule in (rule, ""):
                return number
        return None

    def params_with_slots(self) -> list[str]:
        """The old parameters that have slots."""
        found: dict[str, None] = {}
        for state in self.states:
            found.update(dict.fromkeys(about.param for about in state.layout.about if about.param is not None))
        return [*found]

    def node_like(self, state: int, node: Node) -> OldNode | None:
        """The node of an old state that corresponds to a node of a new one: it has its labels, or is the only one of its role."""
        if (state, node) not in self._like:
            self._like[state, node] = self._found_like(state, node)
        return self._like[state, node]

    def _found_like(self, state: int, node: Node) -> OldNode | None:
        of_state = [where for where in self._nodes if where.state == state]
        same_role = [where for where in of_state if where.node.role == node.role]
        same_place = [where for where in same_role if where.node == node]
        same_type = [where for where in of_state if where.node.role[-1] == node.role[-1]]
        for found in (same_place, same_role, same_type):
            if len(found) == 1:
                return found[0]
        return None

    def counts(
        self, where: OldNode, wanted: Mapping[str, jax.ShapeDtypeStruct], follows: Callable[[str], bool]
    ) -> Counts | None:
        """The counts of an old node as a new one has them; None unless all are there and fit.

        `follows` says of an array, by its field, whether it is right for the new parameters too.
        """
        old = self._counts[where]
        found: Counts = {}
        for field, like in wanted.items():
            count = None if field not in old else _fitted_count(old[field], like.shape)
            if count is None:
                return None
            is_array_over_all = np.shape(old[field]) == like.shape != ()
            if is_array_over_all and not follows(field):
                return None
            value = cast_slot(count, like.dtype)
            if value is None:
                return None
            found[field] = value
        return found


def _fitted_count(count: Leaf, shape: Shape) -> Leaf | None:
    """A count in another shape: `by_layer` counts for each layer, and the counts of layers are equal."""
    own = np.shape(count)
    if own == shape:
        return count
    numbers = np.asarray(count)
    if not np.issubdtype(numbers.dtype, np.integer) or not numbers.size or (numbers != numbers.flat[0]).any():
        return None
    if own and shape:
        return None
    return jnp.full(shape, numbers.flat[0])
