"""Similarity of two checkpoints layer by layer: cosine, relative change, overlap of the largest singular directions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..._errors import StructureError
from ..._paths import Selector
from ..._words import listed
from .._sources.source import Source
from .distributions import LayerOfLeaf, chunks_of, layers_of_leaves, readable_paths
from .spectra import is_matrix, largest_directions, matrix_shape

_MOST_COLUMNS = 1024
_MOST_NUMBERS = 1 << 22
_DIRECTIONS = 8


@dataclass(frozen=True)
class LayerSimilarity:
    """How similar one layer is in two checkpoints."""

    path: str
    count: int
    cosine: float
    """Of the angle between the two, as vectors; NaN where one is zero or not finite."""
    relative: float
    """|b - a| / |a|; infinite where a is zero and b is not."""
    overlap: float
    """Of the subspaces of the 8 largest singular values (half of all, if there are fewer than 16), on the side of the last axis: the mean of the squared cosines of
    the principal angles, 1 where they are the same and about 8 / n where they are random. NaN where it is not computed."""


@dataclass(frozen=True)
class Similarity:
    """The similarity of the layers that two checkpoints have in common."""

    layers: tuple[LayerSimilarity, ...]
    only_one: tuple[str, ...]
    """Paths of leaves that only one of the two has."""
    other_shape: tuple[str, ...]


def similarity_of(
    a: Source, b: Source, selector: Selector | None, with_overlap: Callable[[Sequence[str]], set[str]]
) -> Similarity:
    """Compare the leaves of the same path and shape, in float64 and in blocks of bounded size.

    `with_overlap` chooses, from the names of all layers, those whose singular directions are compared.

    Raises:
        StructureError: no leaf has the same path and shape in both.
        FileError: a leaf cannot be read.
    """
    paths = readable_paths(a, selector)
    there = {*readable_paths(b, None)}
    common = [path for path in paths if path in there]
    same = [path for path in common if a.leaves[path].shape == b.leaves[path].shape]
    others = tuple(path for path in common if path not in {*same})
    only_one = [path for path in paths if path not in there]
    if selector is None:
        only_one += sorted(there - {*paths})
    if not same:
        raise StructureError(
            f"the two have no leaf of the same path and shape: {listed(a.leaves)} and {listed(b.leaves)}."
            " Rename one of them first: ptree.rename(tree, rules)"
        )
    layers = layers_of_leaves(a, same)
    chosen = with_overlap([layer.name for layer in layers if _is_cheap(layer)])
    compared = tuple(_compare(a, b, layer, layer.name in chosen) for layer in layers)
    return Similarity(compared, tuple(only_one), others)


def _is_cheap(layer: LayerOfLeaf) -> bool:
    """Whether the singular directions of a layer take about a second or less."""
    rows, columns = matrix_shape(layer)
    return is_matrix(layer) and columns <= _MOST_COLUMNS and rows * columns <= _MOST_NUMBERS


def _compare(a: Source, b: Source, layer: LayerOfLeaf, has_overlap: bool) -> LayerSimilarity:
    dot = first = second = change = 0.0
    scale = _largest(a, layer) or _largest(b, layer) or 1.0
    with np.errstate(all="ignore"):  # of numbers that are not finite, or far larger in b than in a
        for one, other in _pairs(a, b, layer):
            one, other = one / scale, other / scale
            dot += float(np.vdot(one, other).real)
            first += float(np.vdot(one, one).real)
            second += float(np.vdot(other, other).real)
            difference = other - one
            change += float(np.vdot(difference, difference).real)
    lengths = math.sqrt(first) * math.sqrt(second)
    cosine = dot / lengths if lengths else math.nan
    overlap = _overlap(a, b, layer) if has_overlap else math.nan
    count = math.prod(layer.shape)
    return LayerSimilarity(layer.name, count, cosine, _ratio(math.sqrt(change), math.sqrt(first)), overlap)


def _largest(source: Source, layer: LayerOfLeaf) -> float:
    """The largest size, by which numbers are divided so that no square overflows."""
    largest = max((float(np.abs(_wide(chunk)).max()) for chunk in chunks_of(source, layer)), default=0.0)
    return largest if math.isfinite(largest) else 1.0


def _pairs(a: Source, b: Source, layer: LayerOfLeaf):
    """Blocks of both at the same places, although the two may be read in blocks of other sizes."""
    left: np.ndarray = np.zeros(0)
    others = iter(chunks_of(b, layer))
    for chunk in chunks_of(a, layer):
        one = _wide(chunk)
        parts = [left]
        size = left.size
        while size < one.size:
            parts.append(_wide(next(others)))
            size += parts[-1].size
        joined = np.concatenate(parts)
        yield one, joined[: one.size]
        left = joined[one.size :]


def _wide(chunk: np.ndarray) -> np.ndarray:
    return chunk.astype(np.complex128 if chunk.dtype.kind == "c" else np.float64)


def _ratio(change: float, length: float) -> float:
    if length:
        return change / length
    return math.inf if change else 0.0


def _overlap(a: Source, b: Source, layer: LayerOfLeaf) -> float:
    rows, columns = matrix_shape(layer)
    count = min(_DIRECTIONS, max(min(rows, columns) // 2, 1))  # all directions together are always the same space
    one = largest_directions(a, layer, count)
    other = largest_directions(b, layer, count)
    if not one.size or not other.size:
        return math.nan
    return float(np.sum(np.square(one.T @ other)) / count)
