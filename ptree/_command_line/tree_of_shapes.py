"""The tree of a file without its numbers: shapes, dtypes and ties, to plan where it lives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from .._errors import PatternError
from .._stored.dtypes import DTYPES, LACKING
from .._tree import Tie, Tree
from .._tree.transform import permuted
from .._words import printable, short_dtype
from ..files._kinds import key_dtype
from ..look._sources.source import LeafInfo, Source
from ..look._sources.stored_source import KEY_TAGS


@cache
def _dtypes() -> Mapping[str, Any]:
    """The dtypes of arrays and of PRNG keys by their short names."""
    return {short_dtype(dtype): dtype for dtype in [*DTYPES.values(), *LACKING, *map(key_dtype, KEY_TAGS)]}


@dataclass(frozen=True)
class _FileLeaf:
    """A leaf of a file without its numbers."""

    shape: tuple[int, ...]
    dtype: Any


def tree_of_shapes(source: Source) -> tuple[Tree, list[LeafInfo]]:
    """The leaves of a file with their ties, and those of which the shape is not known."""
    left_out = [info for info in source.leaves.values() if info.shape is None and info.is_damaged]
    values: dict[str, Any] = {}
    for info in source.leaves.values():
        if info.shape is not None:
            values[info.path] = _FileLeaf(info.shape, _dtype_of(info))
    for alias in source.aliases.values():
        if alias.source in values and alias.axes is not None:
            values[alias.path] = Tie(alias.source, tuple(map(permuted, alias.axes)))
    if not values:
        raise PatternError(f"there is nothing to plan: {printable(source.title)} has no arrays")
    return Tree({path: values[path] for path in source.order if path in values}), left_out


def _dtype_of(info: LeafInfo) -> Any:
    """The dtype of a leaf; of one that NumPy lacks raw bytes of its size."""
    found = _dtypes().get(info.dtype)
    if found is not None:
        return found
    return np.dtype((np.void, info.nbytes // info.count if info.count else 1))
