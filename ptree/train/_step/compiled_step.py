"""The compiled step for one structure of the state, the batches that it has seen, and a warning when it is compiled again."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding

from ..._edit import leaves
from ..._tree import Leaf, PyTree
from ..._words import SHOWN, describe, lines, quoted

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
    """A jitted step whose outputs are placed as its inputs are, and what it was compiled for."""

    def __init__(self, pure: Callable[..., Any], state: PyTree, donate: bool):
        shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
        self.jitted = jax.jit(pure, donate_argnums=(0,) if donate else (), out_shardings=(shardings, None))
        self.state = description(state)
        self.batch: Signature | None = None
        """That of the last batch."""
        self._batches: dict[Signature, dict[str, Leaf]] = {}
        """The batches that it was compiled for, described by path."""

    def notice(self, batch: PyTree, signature: Signature, stacklevel: int) -> None:
        """Remember a batch, and warn if the step has to be compiled again for it."""
        self.batch = signature
        if signature in self._batches:
            return
        now = description(batch)
        if self._batches:
            before = list(self._batches.values())[-1]
            warnings.warn(
                f"the step is compiled again, as the batch has changed: {changes(before, now)}."
                " Drop or pad what is left over at the end of the data, or pad to few sizes",
                stacklevel=stacklevel + 1,
            )
        self._batches[signature] = now


def description(tree: PyTree) -> dict[str, str]:
    """Each leaf by path as a step sees it: `f32[8,4]`, and where its parts are if it is divided."""
    return {path: _shape_and_placement(leaf) for path, leaf in leaves(tree)}


def _shape_and_placement(leaf: Leaf) -> str:
    if isinstance(leaf, bool | int | float | complex):
        return f"a number of the type {type(leaf).__name__}"
    if not isinstance(leaf, jax.Array) or len(leaf.sharding.device_set) == 1:
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
