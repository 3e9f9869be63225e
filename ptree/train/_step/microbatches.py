"""Divide a batch into microbatches of equal size, and find what share of the whole batch each of them is."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..._edit import leaves as leaves_of
from ..._errors import StructureError
from ..._tree import Leaf, PyTree
from ..._words import describe, lines, quoted

Weight = Callable[[PyTree], Leaf]
"""What counts in a batch, such as the number of tokens that are no padding."""


class Microbatches(NamedTuple):
    """The rows of each microbatch, `[count, rows, ...]` by the position of the leaf, and how one is put together."""

    rows: dict[int, Leaf]
    assembled: Callable[[dict[int, Leaf]], PyTree]
    """A microbatch from the rows of one; leaves without axes are in each microbatch."""


def microbatches(batch: PyTree, count: int) -> Microbatches:
    """The batch in so many parts: part `i` has the rows `i`, `i + count`, `i + 2 * count`, ...

    Strided, since each device then keeps its rows where a batch is divided over devices; parts of neighbouring rows would
    be gathered from other devices, one part after the other.

    Raises:
        StructureError: a leaf has a number of rows that cannot be divided, or not that of the others.
    """
    leaves, treedef = jax.tree.flatten(batch)
    _check_rows(batch, count)
    rows: dict[int, Leaf] = {}
    for at, leaf in enumerate(leaves):
        if np.ndim(leaf) == 0:
            continue
        size = leaf.shape[0] // count
        rows[at] = jnp.moveaxis(leaf.reshape(size, count, *leaf.shape[1:]), 1, 0)

    def assembled(part: dict[int, Leaf]) -> PyTree:
        return jax.tree.unflatten(treedef, [part.get(at, leaf) for at, leaf in enumerate(leaves)])

    return Microbatches(rows, assembled)


def _check_rows(batch: PyTree, count: int) -> None:
    with_axes = [(path, leaf) for path, leaf in leaves_of(batch) if np.ndim(leaf) > 0]
    if not with_axes:
        raise StructureError(f"cannot divide the batch into {count} microbatches: it has no array with an axis")
    problems: list[str] = []
    reference: tuple[str, int] | None = None
    for path, leaf in with_axes:
        size = leaf.shape[0]
        if size % count or size == 0:
            problems.append(f"{_named(path)} is {describe(leaf)}: {size} rows are no multiple of {count}")
        elif reference is None:
            reference = (path, size)
        elif size != reference[1]:
            other = f"{_named(reference[0])} has {reference[1]}"
            problems.append(f"{_named(path)} is {describe(leaf)} with {size} rows, {other}")
    if problems:
        raise StructureError(
            f"cannot divide the batch into accumulate={count} microbatches along the first axis:\n  {lines(problems, chr(10) + '  ')}"
        )


def _named(path: str) -> str:
    return quoted(path) if path else "the batch"


class Shares(NamedTuple):
    """What part of the whole batch each microbatch is, `[count]`; and the sum of the weights, if there are any."""

    shares: jax.Array
    total: jax.Array | None


def shares(parts: Microbatches, count: int, weight: Weight | None, dtype: np.dtype) -> Shares:
    """Equal shares, or each weight by the sum of all, in this dtype; all are 0 where nothing in the batch counts."""
    if weight is None:
        return Shares(jnp.full(count, 1 / count, dtype), None)
    weights = jax.vmap(lambda part: weight_of(weight, parts.assembled(part), dtype))(parts.rows)
    total = weights.sum()
    return Shares(jnp.where(total > 0, weights / jnp.where(total > 0, total, 1), 0), total)


def weight_of(weight: Weight, batch: PyTree, dtype: np.dtype) -> jax.Array:
    """What counts in a batch, in this dtype, that of the sums of the loss.

    Raises:
        StructureError: it is not one real number.
    """
    found = weight(batch)
    is_real = isinstance(found, bool | int | float) or (
        hasattr(found, "dtype") and np.shape(found) == () and not jnp.issubdtype(found.dtype, jnp.complexfloating)
    )
    if not is_real:
        raise StructureError(
            f"weight(batch) must return one real number, such as batch['mask'].sum(), got {describe(found)}"
        )
    return jnp.asarray(found, dtype)
