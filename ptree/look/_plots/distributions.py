"""Count the numbers of each layer: histograms, quantiles, mean and standard deviation, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from ..._errors import StructureError
from ..._paths import STACKED, Selector
from ..._words import lines, quoted
from .._sources.selection import selected
from .._sources.source import CHUNK, LeafInfo, Source, in_chunks
from .._stats.layer_moments import problem_of_numbers
from .._stats.moments import Moments, moments_of, together
from .._stats.quantiles import BitCounts

MOST_COUNTED = 1 << 26
"""Numbers: of a larger leaf, or layer of a stack, evenly spread blocks of 256 KiB are counted."""


@dataclass(frozen=True)
class LayerOfLeaf:
    """One layer of a stacked leaf; a leaf that is in no stack is one layer."""

    name: str
    """With the number of the layer: `blocks/3/w`, of the leaf `blocks/:/w`."""
    leaf: str
    shape: tuple[int, ...]
    index: tuple[int, ...] = ()


@dataclass(frozen=True)
class Distribution:
    """The distribution of the numbers of one layer of a leaf; of complex numbers, that of their sizes."""

    layer: LayerOfLeaf
    moments: Moments
    counts: BitCounts
    is_complex: bool

    def quantiles(self, shares: Sequence[float]) -> list[float]:
        """The number below which each share of the finite numbers lies; NaN where there is none."""
        if self.is_constant:
            return [float(abs(self.moments.mean)) if self.is_complex else self.moments.mean.real] * len(shares)
        return self.counts.quantiles(shares)

    @property
    def is_constant(self) -> bool:
        """Whether all finite numbers are the same, such as the zeros of a bias at the start."""
        rounding = 1e-7 * abs(self.moments.mean)
        return self.moments.finite > 0 and self.moments.std <= rounding

    def histogram(self, edges: np.ndarray) -> np.ndarray:
        """How many finite numbers lie between each two edges; one at the border of two bins may be counted in the other.

        The numbers are known to 0.8 percent, so bins that are narrower than that share have gaps.
        """
        if self.is_constant:
            return np.histogram(self.quantiles([0.5]), edges)[0] * self.moments.finite
        low, high, counts = self.counts.bins()
        histogram, _ = np.histogram(low / 2 + high / 2, edges, weights=counts)
        return histogram


def readable_paths(source: Source, selector: Selector | None) -> list[str]:
    """The paths of the selected leaves that have numbers; those that have none are left out of a whole tree.

    Raises:
        PatternError: the selector matches nothing.
        StructureError: no leaf, or a leaf that the selector names, has numbers.
    """
    chosen = selected(source, selector)
    readable = [path for path in chosen if not problem_of(source.leaves[path])]
    if readable:
        return readable
    problems = [f"{quoted(path)} {problem_of(source.leaves[path])}" for path in chosen]
    if not problems:
        problems = [f"{source.title} has no leaves"]
    raise StructureError(f"there are no numbers to draw: {lines(problems)}")


def problem_of(leaf: LeafInfo) -> str:
    """Why a leaf has no numbers to draw, with what to do about it; "" where it has."""
    if leaf.problem.startswith("has no numbers yet"):
        return f"{leaf.problem}. Draw it first: ptree.init(spec, key)"
    if leaf.dtype.startswith("key<"):
        return "is a PRNG key"
    problem = problem_of_numbers(leaf)
    if problem:
        return problem
    return "" if leaf.count else f"has no elements: its shape is {leaf.shape}"


def layers_of_leaves(source: Source, paths: Iterable[str]) -> list[LayerOfLeaf]:
    """The layers of leaves, those of a stack one by one."""
    return [layer for path in paths for layer in _layers_of_leaf(path, source.leaves[path].shape or ())]


def _layers_of_leaf(path: str, shape: tuple[int, ...]) -> Iterator[LayerOfLeaf]:
    stacks = path.split("/").count(STACKED)
    for index in product(*map(range, shape[:stacks])):
        name = path
        for at in index:
            name = _with_number(name, at)
        yield LayerOfLeaf(name, path, shape[stacks:], index)


def _with_number(path: str, at: int) -> str:
    segments = path.split("/")
    segments[segments.index(STACKED)] = str(at)
    return "/".join(segments)


def distribution_of(source: Source, layer: LayerOfLeaf) -> Distribution:
    """Count the numbers of one layer.

    Raises:
        FileError: they cannot be read.
    """
    counts = BitCounts()
    parts: list[Moments] = []
    every = max(1, -(-int(np.prod(layer.shape)) // MOST_COUNTED))
    for at, chunk in enumerate(chunks_of(source, layer)):
        if at % every == 0:
            counts.add(chunk)
            parts.append(moments_of(chunk))
    is_complex = source.leaves[layer.leaf].dtype.startswith("c")
    return Distribution(layer, together(parts), counts, is_complex)


def chunks_of(source: Source, layer: LayerOfLeaf) -> Iterator[np.ndarray]:
    """The numbers of one layer, in flat arrays of bounded size."""
    if not layer.index:
        return source.chunks(layer.leaf)
    return in_chunks(np.ravel(source.part(layer.leaf, layer.index)), CHUNK)
