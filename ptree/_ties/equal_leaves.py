"""Twins, leaves of one tree that hold the same: one array object twice, or equal values."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from .._edit import leaves
from .._errors import TieError
from .._tree import Tie, permuted, same
from .._words import quoted


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
    PRNG keys are not looked at. Leaves that another is like in dtype and shape come to the host, one after the other.

    Raises:
        TieError: values that are not known: in a spec, an abstract tree, inside `jax.jit`, or in another process.
        PathError: two leaves of a plain tree have one path, or it has more than 256 levels.
    """
    found: dict[str, str | Tie] = {}
    for alike in _groups(tree):
        known: list[tuple[str, np.ndarray]] = []
        for path, leaf in alike if len(alike) > 1 else ():
            values = _on_host(path, leaf)
            twin = _twin_of(values, known)
            if twin is not None:
                found[path] = twin
            elif not (values == values.flat[0]).all():
                known.append((path, values))
    return found


def _groups(tree: Any) -> list[list[tuple[str, Any]]]:
    """The leaves that could be equal to each other, as far as dtypes and shapes tell."""
    groups: dict[Any, list[tuple[str, Any]]] = {}
    for path, leaf in leaves(tree):
        if isinstance(leaf, Tracer) or (hasattr(leaf, "shape") and not hasattr(leaf, "__array__")):
            raise TieError(
                f"cannot find ties: the values of {quoted(path)} are not known. Draw them, outside of jax.jit"
            )
        if _numbers(leaf) and leaf.size > 1:
            groups.setdefault((leaf.dtype, *leaf.shape[:-2], *sorted(leaf.shape[-2:])), []).append((path, leaf))
    return [*groups.values()]


def _numbers(leaf: Any) -> bool:
    known = isinstance(leaf, (jax.Array, np.ndarray)) and not isinstance(leaf, Tracer)
    return known and not jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _on_host(path: str, leaf: Any) -> np.ndarray:
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        raise TieError(f"cannot find ties: {quoted(path)} is not whole in this process")
    return np.asarray(leaf)


def _twin_of(leaf: np.ndarray, known: list[tuple[str, np.ndarray]]) -> str | Tie | None:
    """What one of these leaves is to another: as it is, else transposed."""
    for path, other in known:
        if _equal(other, leaf):
            return path
    for path, other in known if leaf.ndim > 1 else ():
        if _equal(other, leaf.swapaxes(-1, -2)):
            return Tie(path, (permuted((1, 0)),))
    return None


def is_transpose(a: Any, b: Any) -> bool:
    """Whether one square matrix is for certain the other's transpose, and not the same."""
    shape = getattr(a, "shape", ())
    if a is b or len(shape) < 2 or shape[-1] != shape[-2] or not (_numbers(a) and _numbers(b)):
        return False
    if not all(leaf.is_fully_addressable for leaf in (a, b) if isinstance(leaf, jax.Array)):
        return False
    a, b = np.asarray(a), np.asarray(b)
    return _equal(a.swapaxes(-1, -2), b) and not _equal(a, b)


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays hold the same; a corner of them tells nearly always."""
    corner = (*(slice(1) for _ in a.shape[:-2]), slice(16), slice(16))[-a.ndim :]
    return a.shape == b.shape and same(a[corner], b[corner]) and same(a, b)
