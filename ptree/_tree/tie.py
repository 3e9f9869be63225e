"""Tie, what an alias is tied to: the path of its source, and the transforms it is seen through; transposed makes one;
register_transform."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax

from .._paths import split
from .leaf import Leaf
from .transform import Function, Transform, order_of, permuted, registered


@dataclass(frozen=True, repr=False)
class Tie:
    """What an alias is tied to: the path of its source, and the transforms it is seen through, first applied first.

    JAX sees a Tie as a node without leaves.
    """

    source: str
    via: tuple[Transform, ...] = ()

    def __repr__(self) -> str:
        return self.shown(repr(self.source)) if self.via else f"Tie({self.source!r})"

    def shown(self, source: str | None = None) -> str:
        """The source as people write it: `embed/table`, `transposed(embed/table)`."""
        text = self.source if source is None else source
        for transform in self.via:
            text = transform.shown(text)
        return text

    def read(self, leaf: Leaf) -> Leaf:
        """What the alias shows of the source's leaf."""
        for transform in self.via:
            leaf = transform.see(leaf)
        return leaf

    def write(self, leaf: Leaf) -> Leaf:
        """The source's leaf of which the alias shows this."""
        for transform in reversed(self.via):
            leaf = transform.undo(leaf)
        return leaf

    def then(self, via: tuple[Transform, ...]) -> Tie:
        """This tie seen through further transforms; two in a row that undo each other are left out."""
        steps = list(self.via)
        for transform in via:
            if steps and steps[-1] == transform.inverted():
                steps.pop()
            else:
                steps.append(transform)
        return Tie(self.source, tuple(steps))

    def back(self, path: str) -> Tie:
        """The way back: the source as the alias at this path shows it."""
        return Tie(path, tuple(step.inverted() for step in reversed(self.via)))

    def between(self, other: Tie, path: str) -> Tie | None:
        """Another alias of this source, seen from the alias of this tie at a path; None where that is not exact.

        Functions that users register may undo each other only within rounding, permutations of axes do so exactly.
        """
        shared = 0
        for step, same in zip(self.via, other.via, strict=False):
            if step != same:
                break
            shared += 1
        if not all(step.axes for step in self.via[shared:]):
            return None
        return self.back(path).then(other.via)


jax.tree_util.register_static(Tie)


def transposed(path: str | Tie, axes: Sequence[int] = (1, 0)) -> Tie:
    """A tie to the leaf at a path with its last two axes swapped: an output kernel (d, vocab) from a table (vocab, d).

    >>> transposed("embed/table")
    transposed('embed/table')
    >>> transposed("conv/kernel", (3, 2, 0, 1))
    transposed('conv/kernel', (3, 2, 0, 1))

    With `axes` all axes in this order, as in `numpy.transpose`. A value in the table of `tie`, and in
    `Tree(...)` for a tree that is written with its ties. It moves no data under `jit`.

    Args:
        path: the path of the source, or a tie that is transposed once more.
        axes: the order of axes: of the last two by default.

    Raises:
        TieError: `axes` is no order of axes.
    """
    order = order_of(axes)
    return _seen(path, () if order == tuple(range(len(order))) else (permuted(order),))


def register_transform(name: str, forward: Function, inverse: Function) -> Callable[[str | Tie], Tie]:
    """Register two functions of an array that undo each other, under the name that files will hold.

    >>> import jax.numpy as jnp
    >>> negated = register_transform("negated", jnp.negative, jnp.negative)
    >>> from ptree import Tree
    >>> tree = Tree({"a": jnp.ones(2), "b": negated("a")})
    >>> tree["b"].tolist()
    [-1.0, -1.0]

    Reading the alias gives `forward(source)`, differentiably; writing to it stores `inverse(value)`. What is read after a
    write is what was written only as exactly as the two functions undo each other. Both must be pure, work under
    `jax.jit`, and act on each number or on the last axes: a stack or an ensemble has more in front. A process that loads a
    file or a pickle with this tie registers the same name first. The same functions can be registered again, others under
    the same name cannot.

    Args:
        name: the name in files, an identifier.
        forward: from the source's array to the alias's.
        inverse: the other way.

    Returns:
        A function like `transposed`: path -> a value for the table of `tie`.

    Raises:
        TieError: a name that is taken or no identifier, or something that is no function.
    """
    transform = registered(name, forward, inverse)
    return lambda path: _seen(path, (transform,))


def _seen(path: str | Tie, via: tuple[Transform, ...]) -> Tie:
    return (path if isinstance(path, Tie) else Tie("/".join(split(path)))).then(via)
