"""Sliding windows of convolutions and pools: spread sizes and padding over each axis of space, and check that they fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import jax

from .._tree import Entry, PyTree, entries_of
from .._words import describe
from ._explicit_axes import those_that_divide
from ._inputs import floats_or_complex, misfit
from ._layer import Layer, Params

Sizes: TypeAlias = int | tuple[int, ...]
"""One number for all axes of space, or a tuple with one for each."""
Padding: TypeAlias = str | int | tuple[str | int | tuple[int, int], ...]
"""A name such as `"SAME"`, a number for both sides of all axes, or for each axis a name, a number or (before, after)."""

PaddingMode: TypeAlias = str | tuple[str, ...]
"""What padding is filled with: "zeros", "circular", "reflect" or "replicate", or a tuple with one for each axis."""


def spatial_rank(
    layer: Layer, x: PyTree, window: Sizes, per_axis: Mapping[str, Sizes | Padding | PaddingMode | None]
) -> int:
    """The number of axes of space in an input: as many as sizes of a window, else all between the first and the last.

    Args:
        per_axis: options of the window that, as tuples, need an entry for each axis of space.
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
            raise misfit(layer, f"a {option} of {rank} entries, for the axes of space", f"{given}")
    return rank


def entries_of_windows(layer: Layer, params: Params, x: PyTree) -> tuple[Entry, ...]:
    """What splits the axes of batch and space of an output under explicit axes: what splits the input's, where it divides."""
    entries = entries_of(x)[:-1]
    if not any(entries[1:]):
        return entries
    # The sizes of an output with padding and dilation are JAX's to compute; from shapes without a sharding it does not ask again.
    params, x = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), (params, x))
    output = jax.eval_shape(lambda params, x: type(layer).apply(layer, params, x), params, x)
    return those_that_divide(entries, output.shape)


def check_not_empty(layer: Layer, x: jax.Array, y: jax.Array) -> None:
    """Check that a window fits into the input at least once: that the output is not empty."""
    # After the call, as the size of the output with padding and dilation is JAX's to compute.
    if 0 in y.shape and 0 not in x.shape:
        raise misfit(layer, "an input that holds the window at least once", describe(x))


def for_each_axis(sizes: Sizes, rank: int) -> tuple[int, ...]:
    """Spread a size of a window over each axis of space."""
    return sizes if isinstance(sizes, tuple) else (sizes,) * rank


def padding_for_each_axis(padding: Padding, rank: int) -> tuple[str | int | tuple[int, int], ...]:
    """Spread a padding over each axis of space."""
    return padding if isinstance(padding, tuple) else (padding,) * rank


def before_and_after(padding: str | int | tuple[int, int], size: int, reach: int, stride: int) -> tuple[int, int]:
    """How many places the padding of one axis adds before and after it.

    Args:
        size: of the input's axis.
        reach: how far the window reaches beyond its first place: `dilation * (kernel - 1)`.
        stride: of the window.
    """
    if isinstance(padding, tuple):
        return padding
    if not isinstance(padding, str):
        return padding, padding
    if padding == "CAUSAL":
        return reach, 0
    if padding in ("SAME", "VALID"):
        (sides,) = jax.lax.padtype_to_pads((size,), (reach + 1,), (stride,), padding)
        return sides
    # As in Flax: with the stride 1 the output is as large as the input.
    return reach // 2, reach - reach // 2
