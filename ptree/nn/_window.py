"""Sliding windows of convolutions and pools: check their sizes and padding, and spread them over each axis of space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import jax

from .._tree import PyTree
from .._words import describe
from ._inputs import floats_or_complex, misfit
from ._layer import Layer

Sizes: TypeAlias = int | tuple[int, ...]
"""One number for all axes of space, or a tuple with one for each."""
Padding: TypeAlias = str | int | Sequence[int | tuple[int, int]]
"""`"SAME"`, `"VALID"`, a number for both sides of all axes, or for each axis a number or (before, after)."""


def spatial_rank(layer: Layer, x: PyTree, window: Sizes, per_axis: Mapping[str, Sizes | Padding | None]) -> int:
    """The number of axes of space in an input: as many as sizes of a window, else all between the first and the last.

    Args:
        per_axis: options of the window that, as tuples, need a number for each axis of space.
    """
    axes = len(floats_or_complex(layer, x).shape)
    # One size for all axes does not say how many there are: then the input has exactly one axis of batch.
    rank = len(window) if isinstance(window, tuple) else axes - 2
    is_supported = 1 <= rank <= 3  # the axes of space are depth, height and width
    if axes < rank + 1 or not is_supported:
        count = f"{rank} axes" if isinstance(window, tuple) and is_supported else "1 to 3 axes"
        raise misfit(layer, f"an input of {count} of space and one of features", describe(x))
    # An empty batch is fine, an empty image is not: JAX would return an empty or constant output.
    if 0 in x.shape[axes - rank - 1 : -1]:
        raise misfit(layer, "an input with places on each axis of space", describe(x))
    for option, given in per_axis.items():
        if isinstance(given, tuple) and len(given) != rank:
            raise misfit(layer, f"a {option} of {rank} numbers, for the axes of space", f"{given}")
    return rank


def check_not_empty(layer: Layer, x: jax.Array, y: jax.Array) -> None:
    """Check that a window fits into the input at least once: that the output is not empty."""
    # After the call, as the size of the output with padding and dilation is JAX's to compute.
    if 0 in y.shape and 0 not in x.shape:
        raise misfit(layer, "an input that holds the window at least once", describe(x))


def for_each_axis(sizes: Sizes, rank: int) -> tuple[int, ...]:
    """Spread a size of a window over each axis of space."""
    return sizes if isinstance(sizes, tuple) else (sizes,) * rank


def before_and_after(padding: int | Sequence[int | tuple[int, int]], rank: int) -> list[tuple[int, int]]:
    """Spread a padding over each axis of space, as pairs (before, after)."""
    sides = [padding] * rank if isinstance(padding, int) else padding
    return [(side, side) if isinstance(side, int) else side for side in sides]
