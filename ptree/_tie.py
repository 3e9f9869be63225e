"""Tie, an alias's side of a tie: the path of its source, and how the leaf is seen on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import jax


@dataclass(frozen=True)
class Transform:
    """A named, invertible way to see one leaf as another; equal where the names are."""

    name: str
    forward: Callable[[Any], Any] = field(compare=False)  # source array -> what the alias reads
    inverse: Callable[[Any], Any] = field(compare=False)  # what is written to the alias -> source array
    least_ndim: int = field(default=0, compare=False)

    def inverted(self) -> Transform:
        """The way back; a transform that is its own inverse says so by holding one function twice."""
        if self.forward is self.inverse:
            return self
        return Transform(f"inverse of {self.name}", self.inverse, self.forward)


def _through(function: Callable[[Any], Any], leaf: Any) -> Any:
    """A transform's function applied to any leaf: what has no shape is itself, what has no values its shape."""
    if not hasattr(leaf, "shape"):
        return leaf
    if hasattr(leaf, "__array__"):
        return function(leaf)
    seen = jax.eval_shape(function, jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return seen
    return replace(leaf, shape=seen.shape, dtype=seen.dtype)  # a Param


@dataclass(frozen=True, repr=False)
class Tie:
    """An alias's side of a tie: the path of its source, and the transforms on the way, first applied first.

    JAX sees a Tie as a node without leaves.
    """

    source: str
    via: tuple[Transform, ...] = ()

    def __repr__(self) -> str:
        return self.shown(repr(self.source)) if self.via else f"Tie({self.source!r})"

    def shown(self, source: str | None = None) -> str:
        """The source as a person reads it: `embed/table`, `transposed(embed/table)`."""
        text = self.source if source is None else source
        for transform in self.via:
            text = f"{transform.name}({text})"
        return text

    def read(self, leaf: Any) -> Any:
        """What the alias shows of the source's leaf."""
        for transform in self.via:
            leaf = _through(transform.forward, leaf)
        return leaf

    def write(self, leaf: Any) -> Any:
        """The source's leaf, where this is what the alias shows."""
        for transform in reversed(self.via):
            leaf = _through(transform.inverse, leaf)
        return leaf

    def then(self, via: tuple[Transform, ...]) -> Tie:
        """This tie seen through further transforms; two that undo each other vanish."""
        steps = list(self.via)
        for transform in via:
            if steps and steps[-1] == transform.inverted():
                steps.pop()
            else:
                steps.append(transform)
        return Tie(self.source, tuple(steps))


jax.tree_util.register_static(Tie)
