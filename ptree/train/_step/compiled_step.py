"""The compiled step for one structure of the state, the batches that it has seen, and a warning when it is compiled again."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding

from ..._edit import leaves, map_leaves
from ..._shardings import check_same_in_processes, is_spread, mesh_of, mesh_text
from ..._tree import Leaf, PyTree
from ..._words import SHOWN, describe, lines, quoted
from .pure_step import PureStep
from .train_state import Metrics, TrainState
from .trained_part import TrainedPart

LeafFacts = tuple[Hashable, ...]
"""All on which a compiled step depends: the shape, dtype and sharding of an array, or the type of another leaf."""


class Signature(NamedTuple):
    """The structure of a tree, and the facts of each leaf."""

    treedef: Any
    facts: tuple[LeafFacts, ...]


def signature_of(tree: PyTree) -> Signature:
    """What a step is compiled for."""
    found, treedef = jax.tree.flatten(tree)
    return Signature(treedef, tuple(map(_facts, found)))


def _facts(leaf: Leaf) -> LeafFacts:
    if isinstance(leaf, jax.Array):
        # an array that is not committed to its device goes where the others are
        return (leaf.shape, leaf.dtype, leaf.sharding if leaf.committed else None)
    if isinstance(leaf, np.ndarray):
        return (leaf.shape, leaf.dtype, None)
    return (type(leaf),)


class CompiledStep:
    """A jitted step whose outputs are placed as its inputs are, and what it was compiled for.

    Frozen leaves and the key are inputs alone: the new state has the arrays that the old one has. As outputs of `jit` they would
    be copied at each step, or donated.
    """

    def __init__(self, pure: PureStep, state: TrainState, donate: bool):
        leaves, self._treedef = jax.tree.flatten(state)
        is_changed = _changes_of_leaves(pure, state)
        self._changed = [at for at, changes in enumerate(is_changed) if changes]
        self._unchanged = [at for at, changes in enumerate(is_changed) if not changes]
        self._pure = pure
        shardings = [leaves[at].sharding for at in self._changed]
        donated = (0,) if donate else ()
        self.jitted = jax.jit(self._traced(), donate_argnums=donated, out_shardings=(shardings, None))
        self.state = description(state)
        self._mesh = mesh_of(state)
        self.batch: Signature | None = None
        """That of the last batch."""
        self._batches: dict[Signature, dict[str, Leaf]] = {}
        """The batches that it was compiled for, described by path."""

    def __call__(self, state: TrainState, batch: PyTree) -> tuple[TrainState, Metrics]:
        """The state after a step."""
        changed, unchanged = self.parts(state)
        new, metrics = self.jitted(changed, unchanged, batch)
        return self._joined(new, unchanged), metrics

    def parts(self, state: TrainState) -> tuple[list[Leaf], list[Leaf]]:
        """The leaves that a step changes, and those that it does not."""
        leaves = jax.tree.leaves(state)
        return [leaves[at] for at in self._changed], [leaves[at] for at in self._unchanged]

    def _joined(self, changed: list[Leaf], unchanged: list[Leaf]) -> TrainState:
        if not unchanged:
            return self._treedef.unflatten(changed)
        by_place = dict(zip(self._changed, changed, strict=True))
        by_place.update(zip(self._unchanged, unchanged, strict=True))
        return self._treedef.unflatten([by_place[at] for at in range(len(by_place))])

    def _traced(self) -> Callable[[list[Leaf], list[Leaf], PyTree], tuple[list[Leaf], Metrics]]:
        """The pure step from leaves to leaves; errors of JAX have the names of this function and of its arguments."""

        def step(state: list[Leaf], frozen: list[Leaf], batch: PyTree) -> tuple[list[Leaf], Metrics]:
            new, metrics = self._pure(self._joined(state, frozen), batch)
            leaves = self._treedef.flatten_up_to(new)
            return [leaves[at] for at in self._changed], metrics

        return step

    def warn_of_change(self, batch: PyTree, signature: Signature, stacklevel: int) -> None:
        """Warn if the step has been compiled, and has to be compiled again for this batch."""
        if signature in self._batches or not self._batches:
            return
        before = list(self._batches.values())[-1]
        warnings.warn(
            f"the step is compiled again, as the batch has changed: {changes(before, description(batch))}."
            " Drop or pad what is left over at the end of the data, or pad to few sizes",
            stacklevel=stacklevel + 1,
        )

    def check_processes(self, batch: PyTree, signature: Signature) -> None:
        """Before it is compiled for a batch, compare state and batch with those of the other processes of the mesh.

        Raises:
            StructureError: those of one process have other shapes, dtypes or placements; it would wait for the others for ever.
        """
        if signature in self._batches or self._mesh is None:
            return
        state = {f"state: {path}": text for path, text in self.state.items()}
        rows = {f"batch: {path}".strip(): text for path, text in description(batch).items()}
        check_same_in_processes("state or batch", {"mesh": mesh_text(self._mesh), **state, **rows}, self._mesh)

    def remember(self, batch: PyTree, signature: Signature) -> None:
        """Keep what a batch is like for which the step is compiled now."""
        self.batch = signature
        if signature not in self._batches:
            self._batches[signature] = description(batch)


def _changes_of_leaves(pure: PureStep, state: TrainState) -> list[bool]:
    """For each leaf of a state whether a step changes it: all but the frozen parameters and the key."""
    trained = TrainedPart.of(pure.optimiser, state.params).paths
    changed = replace(
        jax.tree.map(lambda leaf: True, state),
        params=map_leaves(state.params, lambda path, leaf: path in trained),
        key=None if state.key is None else False,
    )
    return jax.tree.leaves(changed)


def description(tree: PyTree) -> dict[str, str]:
    """Each leaf by path as a step sees it: `f32[8,4]`, and where its parts are if it is divided."""
    return {path: _shape_and_placement(leaf) for path, leaf in leaves(tree)}


def _shape_and_placement(leaf: Leaf) -> str:
    if isinstance(leaf, bool | int | float | complex):
        return f"a number of the type {type(leaf).__name__}"
    if not is_spread(leaf):
        return describe(leaf)
    if isinstance(leaf.sharding, NamedSharding):
        return f"{describe(leaf)} over {leaf.sharding.spec}"
    return f"{describe(leaf)} over {len(leaf.sharding.device_set)} devices"


def changes(before: dict[str, str], now: dict[str, str]) -> str:
    """What is different between two descriptions by path."""
    found: list[str] = []
    for path, text in now.items():
        if path not in before:
            found.append(f"{_named(path)} is new")
        elif before[path] != text:
            found.append(f"{_named(path)} is {text}, it was {before[path]}")
    found += [f"{_named(path)} is gone" for path in before if path not in now]
    if not found:
        return "its containers or devices are others"
    return lines(found[: SHOWN + 1], ", ")


def _named(path: str) -> str:
    return quoted(path) if path else "it"
