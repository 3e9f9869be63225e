"""Twins, leaves of one tree that hold the same: one array object twice, or equal values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from ._errors import TieError, quoted
from ._leaf import same
from ._select import leaves
from ._tie import Tie
from ._transform import permuted

_SAMPLE = 64
"""How many numbers of a leaf are looked at before all are compared."""


def shared(tree: Any) -> dict[str, Tie]:
    """Each path at which an array object stands again -> the first path at which it does."""
    first: dict[int, str] = {}
    return {
        path: Tie(first[id(leaf)])
        for path, leaf in leaves(tree)
        if isinstance(leaf, (jax.Array, np.ndarray)) and first.setdefault(id(leaf), path) != path
    }


def find_ties(tree: Any) -> dict[str, str | Tie]:
    """Leaves with the values of an earlier one, as they are or transposed: a table for `tie`. It only reports.

    >>> import numpy as np
    >>> table = np.arange(6.0).reshape(2, 3)
    >>> find_ties({"embed": {"table": table}, "head": {"kernel": table.T.copy(), "bias": np.zeros(3)}})
    {'head/kernel': transposed('embed/table')}

    For a file by a program that knows no ties. Whether equal values are one parameter, nothing can tell; so look
    before you call `tie(tree, find_ties(tree))`. Leaves of one value throughout, such as fresh biases, and what is
    tied already are left out. Equal means equal: shape, dtype and every number, where NaN equals NaN.
    Leaves are compared where they are; only a few numbers of each come to the host.

    Raises:
        TieError: values that are not known, in a spec, an abstract tree, or inside `jax.jit`.
    """
    found: dict[str, str | Tie] = {}
    groups: dict[Any, list[tuple[str, Any, np.ndarray]]] = {}
    for path, leaf in leaves(tree):
        if isinstance(leaf, Tracer) or (hasattr(leaf, "shape") and not hasattr(leaf, "__array__")):
            raise TieError(
                f"cannot find ties: the values of {quoted(path)} are not known. Draw them, outside of jax.jit"
            )
        if not isinstance(leaf, (jax.Array, np.ndarray)) or leaf.size < 2:
            continue
        group = groups.setdefault((leaf.dtype, *sorted(leaf.shape[-2:]), *leaf.shape[:-2]), [])
        twin = next(_twins(leaf, group), None)
        if twin is not None:
            found[path] = twin
        elif not _constant(leaf):
            group.append((path, leaf, _sample(leaf)))
    return found


def _twins(leaf: Any, group: list[tuple[str, Any, np.ndarray]]) -> Iterator[str | Tie]:
    """What an earlier leaf of the group is to this one: as it is, else transposed."""
    for tie in (None, permuted((1, 0))):
        seen = leaf if tie is None else tie.undo(leaf)
        if tie is not None and leaf.ndim < 2:
            return
        sample = _sample(seen)
        for path, other, known in group:
            if other.shape == seen.shape and same(known, sample) and same(other, seen):
                yield path if tie is None else Tie(path, (tie,))


def is_transpose(a: Any, b: Any) -> bool:
    """Whether one square matrix is for certain the other's transpose, and not the same."""
    if not all(isinstance(x, (jax.Array, np.ndarray)) and not isinstance(x, Tracer) and x.size > 1 for x in (a, b)):
        return False
    turned = permuted((1, 0)).undo(a)
    return a is not b and not same(_sample(a), _sample(b)) and same(_sample(turned), _sample(b)) and same(turned, b)


def _sample(leaf: Any) -> np.ndarray:
    """A few numbers of a leaf, always at the same places."""
    places = np.random.default_rng(0).integers(leaf.size, size=_SAMPLE)
    return np.asarray(leaf[np.unravel_index(places, leaf.shape)])


def _constant(leaf: Any) -> bool:
    sample = _sample(leaf)
    return same(sample, np.full_like(sample, sample[0])) and bool((leaf == sample[0]).all())
