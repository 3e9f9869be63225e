"""Moments of the leaves of a source, of a stack those of each layer: read in chunks, or computed where the arrays are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache, partial

import numpy as np

from .._sources.source import LeafInfo, Source
from .moments import Moments, moments_of, together
from .quantiles import BitCounts
from .stack_layers import Layers

_AT_ONCE = 1 << 16
"""So many numbers are read at a time: 256 KiB of f32, which a processor's cache holds."""

_DTYPES = re.compile(r"[<>]?(bf|f|i|u|c)\d\w*|bool|int|float|complex")
"""The dtypes of numbers, in short: f32, bf16, f8_e4m3fn, i4, >f4, and those of Python."""

Piece = tuple[int, int, np.ndarray]
"""A part of one layer: the number of the layer, the place of the part in it, its numbers."""


def start_moments(source: Source, path: str, layers: Layers) -> Callable[[], list[Moments]]:
    """Start to compute the moments of each layer of a leaf; the function that is returned gives them.

    Arrays on accelerators are dispatched now; what is read in chunks is read when the function is called.
    """
    if not source.is_file:
        from .device_moments import device_moments  # with JAX, which a look at a file does without

        on_device = device_moments(source, path, layers)
        if on_device is not None:
            return on_device
    return partial(_moments_by_layer, source, path, layers)


def _moments_by_layer(source: Source, path: str, layers: Layers) -> list[Moments]:
    parts: list[list[Moments]] = [[] for _ in layers.paths]
    for layer, place, numbers in _pieces(_checked_chunks(source, path), layers):
        parts[layer].append(moments_of(numbers, place))
    return [together(part) for part in parts]


def bit_counts_by_layer(source: Source, path: str, layers: Layers) -> list[BitCounts]:
    """The counts of each layer of a leaf from which its quantiles are found."""
    counts = [BitCounts() for _ in layers.paths]
    for layer, _, numbers in _pieces(_chunks(source, path), layers):
        counts[layer].add(numbers)
    return counts


def changes_by_layer(source: Source, other: Source, path: str, layers: Layers) -> list[float]:
    """How far each layer of a leaf is from the same one of another source: |a - b| / |b|, over the finite numbers."""
    distances: list[list[Moments]] = [[] for _ in layers.paths]
    references: list[list[Moments]] = [[] for _ in layers.paths]
    pairs = zip(_pieces(_chunks(source, path), layers), _pieces(_checked_chunks(other, path), layers), strict=True)
    for (layer, _, numbers), (_, _, before) in pairs:
        distances[layer].append(moments_of(_difference(numbers, before)))
        references[layer].append(moments_of(before))
    return [_relative(together(distance), together(reference)) for distance, reference in zip(distances, references)]


def _relative(distance: Moments, reference: Moments) -> float:
    if not distance.finite or distance.norm == 0:
        return 0.0 if distance.finite or not distance.nonfinite else float("nan")
    return distance.norm / reference.norm if reference.norm else float("inf")


def _difference(numbers: np.ndarray, before: np.ndarray) -> np.ndarray:
    """The difference, of two leaves in f32 or less in f32, which takes a third of the time."""
    if _fits_f32(numbers) and _fits_f32(before):
        return numbers.astype(np.float32, copy=False) - before.astype(np.float32, copy=False)
    is_complex = "c" in (numbers.dtype.kind, before.dtype.kind)
    wide = np.complex128 if is_complex else np.float64
    return numbers.astype(wide) - before.astype(wide)


def _fits_f32(numbers: np.ndarray) -> bool:
    return numbers.dtype == np.float32 or (numbers.dtype.itemsize <= 2 and numbers.dtype.kind != "c")


def _chunks(source: Source, path: str) -> Iterator[np.ndarray]:
    """The numbers of a leaf, in every source the same count at a time."""
    return source.chunks(path, _AT_ONCE * _itemsize(source.leaves[path]))


def _checked_chunks(source: Source, path: str) -> Iterator[np.ndarray]:
    """The same, compared with the checksum of the leaf: at about 10 GB/s a small part of the time of the moments."""
    return source.checked_chunks(path, _AT_ONCE * _itemsize(source.leaves[path]))


def _itemsize(leaf: LeafInfo) -> int:
    return max(1, leaf.nbytes // leaf.count) if leaf.count else 1


def _pieces(chunks: Iterator[np.ndarray], layers: Layers) -> Iterator[Piece]:
    """Cut chunks where one layer ends and the next one begins."""
    size, layer, place = layers.size, 0, 0
    for chunk in chunks:
        first = 0
        while first < chunk.size:
            numbers = chunk[first : first + size - place]
            yield layer, place, numbers
            first, place = first + numbers.size, place + numbers.size
            if place == size:
                layer, place = layer + 1, 0


def problem_of_numbers(leaf: LeafInfo) -> str:
    """Why a leaf has no statistics; "" where it has."""
    if leaf.problem:
        return leaf.problem
    if leaf.dtype.startswith("key<"):
        return "holds PRNG keys, which have no statistics"
    return "" if _is_of_numbers(leaf.dtype) else f"holds no numbers: its dtype is {leaf.dtype}"


@cache
def _is_of_numbers(dtype: str) -> bool:
    return _DTYPES.fullmatch(dtype) is not None
