"""CountSources: the counts of each node of a new state, from an old node or from the start, and whether two of them are equal."""

from __future__ import annotations

from functools import cached_property
from math import prod

import jax
import jax.numpy as jnp
import numpy as np

from ..._tree import Leaf
from .changes import Changes
from .initial_state import InitialState
from .old_states import Counts, OldNode, OldStates
from .slots import Node


class CountSources:
    """The leaves of a new state that belong to no parameter, such as step counts: those of an old node, or those at the start."""

    def __init__(self, initial: InitialState, old: OldStates, changes: Changes):
        self._initial, self._old, self._changes = initial, old, changes
        self._positions: dict[Node, dict[str, int]] = {}
        """Node -> field -> number of the leaf."""
        self._carried: dict[tuple[OldNode, Node], Counts | None] = {}
        self._fingerprints: dict[tuple[Node, OldNode | None], object] = {}
        for at, about in enumerate(initial.layout.about):
            if about.param is None:
                self._positions.setdefault(about.node, {})[about.field] = at

    @property
    def nodes(self) -> list[Node]:
        """The nodes that have counts."""
        return [*self._positions]

    def carried(self, where: OldNode, node: Node) -> Counts | None:
        """The counts of an old node as a new one has them; None if they do not fit."""
        key = (where, node)
        if key not in self._carried:
            fields = self._positions.get(node, {})
            wanted = {field: self._initial.layout.shapes[at] for field, at in fields.items()}
            self._carried[key] = self._old.counts(where, wanted, lambda field: self._follows(node, field))
        return self._carried[key]

    def fingerprint(self, node: Node, where: OldNode | None) -> object:
        """What is equal for equal counts of a node that come from an old one; without one it has those at the start."""
        key = (node, where)
        if key not in self._fingerprints:
            carried = None if where is None else self.carried(where, node)
            counts = self._at_start[node] if carried is None else carried
            self._fingerprints[key] = tuple((field, _bytes(value)) for field, value in counts.items())
        return self._fingerprints[key]

    def _follows(self, node: Node, field: str) -> bool:
        """Whether an array that is of no parameter is right for the new parameters too."""
        return self._changes.are_names_alone or (node, field) in self._arrays_of_no_parameter

    @cached_property
    def _arrays_of_no_parameter(self) -> set[tuple[Node, str]]:
        """The arrays that the optimiser has whatever the parameters are."""
        other = {"other": jax.ShapeDtypeStruct((1 + sum(map(prod, self._changes.new_shapes.values())),), jnp.float32)}
        try:
            layout = self._initial.of(other).layout
        except Exception:  # a mask as a tree fits no other parameters
            return set()
        found: set[tuple[Node, str]] = set()
        shapes = {
            (about.node, about.field): shape
            for about, shape in zip(self._initial.layout.about, self._initial.layout.shapes, strict=True)
        }
        for about, shape in zip(layout.about, layout.shapes, strict=True):
            if about.param is None and shape == shapes.get((about.node, about.field)):
                found.add((about.node, about.field))
        return found

    @cached_property
    def _at_start(self) -> dict[Node, Counts]:
        """The counts of each node at the start."""
        wanted = [at for fields in self._positions.values() for at in fields.values()]
        values = self._initial.leaves(wanted)
        found: dict[Node, Counts] = {}
        for node, fields in self._positions.items():
            found[node] = {field: values[at] for field, at in fields.items()}
        return found


def _bytes(value: Leaf) -> bytes:
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    return np.asarray(value).tobytes()
