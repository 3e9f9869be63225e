"""Equal leaves: one array object at several paths, or leaves of equal known numbers, as they are or transposed."""

from __future__ import annotations

from typing import TypeAlias

import jax
import numpy as np
from jax.core import Tracer

from .._edit import leaves
from .._errors import TieError
from .._tree import Leaf, Leaves, PyTree, Tie, permuted, same
from .._words import quoted

HostArray: TypeAlias = "np.ndarray[tuple[int, ...], np.dtype[np.generic]]"


def same_objects(tree: PyTree) -> dict[str, Tie]:
    """Each path at which an array object stands again -> the first path at which it does."""
    first: dict[int, str] = {}
    again: dict[str, Tie] = {}
    for path, leaf in leaves(tree):
        if isinstance(leaf, jax.Array | np.ndarray) and first.setdefault(id(leaf), path) != path:
            again[path] = Tie(first[id(leaf)])
    return again


def find_ties(tree: PyTree) -> dict[str, str | Tie]:
    """Leaves with the values of an earlier one, as they are or transposed: a table for `tie`. It only reports.

    >>> table = np.arange(6.0).reshape(2, 3)
    >>> find_ties({"embed": {"table": table}, "head": {"kernel": table.T.copy(), "bias": np.zeros(3)}})
    {'head/kernel': transposed('embed/table')}

    For a file by a program that knows no ties. Whether equal values are one parameter, nothing can tell; so look
    before you call `tie(tree, find_ties(tree))`. Leaves of one value throughout, such as fresh biases, and what is
    tied already are left out. Equal means equal: shape, dtype and every number, where NaN equals NaN.
    PRNG keys are not looked at. Leaves of equal dtype and shape come to the host, one after the other.

    Args:
        tree: any pytree of arrays with numbers.

    Raises:
        TieError: values that are not known: in a spec, an abstract tree, inside `jax.jit`, or in another process.
        PathError: two leaves of a plain tree have one path, or it has more than 256 levels.
    """
    found: dict[str, str | Tie] = {}
    for group in _comparable(tree):
        if len(group) == 1:
            continue
        distinct: list[tuple[str, HostArray]] = []
        for path, leaf in group:
            values = _on_host(path, leaf)
            equal = _equal_to(values, distinct)
            if equal is not None:
                found[path] = equal
            elif not (values == values.flat[0]).all():
                distinct.append((path, values))
    return found


def _comparable(tree: PyTree) -> list[Leaves]:
    """Groups of leaves that could be equal, as far as dtypes and shapes tell."""
    groups: dict[object, Leaves] = {}
    for path, leaf in leaves(tree):
        is_abstract = hasattr(leaf, "shape") and not hasattr(leaf, "__array__")
        if isinstance(leaf, Tracer) or is_abstract:
            raise TieError(
                f"cannot find ties: the values of {quoted(path)} are not known. Draw them, outside of jax.jit"
            )
        if _holds_numbers(leaf) and leaf.size > 1:
            key = (leaf.dtype, *leaf.shape[:-2], *sorted(leaf.shape[-2:]))
            groups.setdefault(key, []).append((path, leaf))
    return [*groups.values()]


def _holds_numbers(leaf: Leaf) -> bool:
    """Whether a leaf is an array of known numbers: no tracer, no PRNG keys."""
    if not isinstance(leaf, jax.Array | np.ndarray) or isinstance(leaf, Tracer):
        return False
    return not jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _on_host(path: str, leaf: Leaf) -> HostArray:
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        raise TieError(f"cannot find ties: {quoted(path)} is not whole in this process")
    return np.asarray(leaf)


def _equal_to(leaf: HostArray, others: list[tuple[str, HostArray]]) -> str | Tie | None:
    """The path of an equal leaf among others: as it is, else transposed."""
    for path, other in others:
        if _is_equal(other, leaf):
            return path
    if leaf.ndim < 2:
        return None
    for path, other in others:
        if _is_equal(other, leaf.swapaxes(-1, -2)):
            return Tie(path, (permuted((1, 0)),))
    return None


def is_transpose(a: Leaf, b: Leaf) -> bool:
    """Whether one square matrix is for certain the other's transpose, and not equal to it."""
    shape = getattr(a, "shape", ())
    if a is b or len(shape) < 2 or shape[-1] != shape[-2]:
        return False
    if not (_holds_numbers(a) and _holds_numbers(b)):
        return False
    for leaf in (a, b):
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return False
    a, b = np.asarray(a), np.asarray(b)
    return _is_equal(a.swapaxes(-1, -2), b) and not _is_equal(a, b)


def _is_equal(a: HostArray, b: HostArray) -> bool:
    """Whether two arrays hold the same; a corner of them tells nearly always, at a fraction of the time."""
    corner = (*(slice(1) for _ in a.shape[:-2]), slice(16), slice(16))[-a.ndim :]
    return a.shape == b.shape and same(a[corner], b[corner]) and same(a, b)
