"""Windows that slide over the axes of space, for convolutions and pools: sizes, strides, paddings and their checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import jax

from .._errors import LayerError
from .._tree import PyTree
from .._words import describe
from ._inputs import floats, misfit
from ._layer import Layer

Sizes: TypeAlias = int | tuple[int, ...]
"""One number for all axes of space, or one for each."""
Padding: TypeAlias = str | int | Sequence[int | tuple[int, int]]
"""`"SAME"`, `"VALID"`, or how much on both sides of every axis, of each axis, or (before, after) of each."""


def check_sizes(kind: str, options: Mapping[str, Sizes | None]) -> None:
    """Sizes are whole numbers from 1 on, or tuples of them."""
    for name, sizes in options.items():
        numbers = sizes if isinstance(sizes, tuple) else (sizes,)
        if sizes is not None and not all(isinstance(number, int) and number >= 1 for number in numbers):
            raise LayerError(f"{kind}: expected {name} of at least 1, got {sizes!r}")


def check_padding(kind: str, padding: Padding) -> None:
    """A padding is `"SAME"`, `"VALID"`, a number, or for each axis a number or (before, after)."""
    if isinstance(padding, str):
        fits = padding in ("SAME", "VALID")
    elif isinstance(padding, tuple):
        fits = bool(padding) and all(map(_is_side, padding))
    else:
        fits = isinstance(padding, int)
    if not fits:
        raise LayerError(
            f"{kind}: expected the padding 'SAME', 'VALID', a number, or for each axis a number or (before, after),"
            f" got {padding!r}"
        )


def _is_side(side: PyTree) -> bool:
    """Whether this is how much to pad one axis: a number, or (before, after)."""
    if isinstance(side, tuple):
        return len(side) == 2 and all(isinstance(number, int) for number in side)
    return isinstance(side, int)


def lists_as_tuples(value: PyTree) -> PyTree:
    """Options that are lists as tuples, which have a hash."""
    return tuple(map(lists_as_tuples, value)) if isinstance(value, (list, tuple)) else value


def spatial_rank(layer: Layer, x: PyTree, window: Sizes, per_axis: Mapping[str, Sizes | Padding | None]) -> int:
    """How many axes of space there are: as many as sizes in a tuple, else all between the first and the last.

    Args:
        per_axis: options that need a number for each axis of space where they are tuples.
    """
    axes = len(floats(layer, x).shape)
    rank = len(window) if isinstance(window, tuple) else axes - 2
    if axes < rank + 1 or not 1 <= rank <= 3:
        count = f"{rank} axes" if isinstance(window, tuple) and 1 <= rank <= 3 else "1 to 3 axes"
        raise misfit(layer, f"an input of {count} of space and one of features", describe(x))
    if 0 in x.shape[axes - rank - 1 : -1]:
        raise misfit(layer, "an input with places on each axis of space", describe(x))
    for option, given in per_axis.items():
        if isinstance(given, tuple) and len(given) != rank:
            raise misfit(layer, f"a {option} of {rank} numbers, for the axes of space", f"{given}")
    return rank


def check_not_empty(layer: Layer, x: jax.Array, y: jax.Array) -> None:
    """Raise if the window did not fit into the input even once."""
    if 0 in y.shape and 0 not in x.shape:
        raise misfit(layer, "an input that holds the window at least once", describe(x))


def for_each_axis(sizes: Sizes, rank: int) -> tuple[int, ...]:
    """A size for each axis of space."""
    return sizes if isinstance(sizes, tuple) else (sizes,) * rank


def before_and_after(padding: int | Sequence[int | tuple[int, int]], rank: int) -> list[tuple[int, int]]:
    """How much to pad before and after each axis of space."""
    sides = [padding] * rank if isinstance(padding, int) else padding
    return [(side, side) if isinstance(side, int) else side for side in sides]
