"""Pooling layers, MaxPool and AvgPool: the largest value or the mean in each window."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from .._errors import LayerError
from .._tree import PyTree, entries_of
from ._explicit_axes import split_along, splits_output
from ._inputs import floats, floats_or_complex, widened
from ._layer import Layer, Params
from ._window import (
    Padding,
    Sizes,
    before_and_after,
    check_not_empty,
    entries_of_windows,
    for_each_axis,
    padding_for_each_axis,
    spatial_rank,
)


@dataclass(frozen=True, eq=False, repr=False)
class _Pool(Layer):
    """Base of the pooling layers: the options and the reduction of each window."""

    window: Sizes
    stride: Sizes | None = None
    _: KW_ONLY
    padding: Padding = "VALID"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_padding_below_window()

    def _check_padding_below_window(self) -> None:
        # A window of padding only has no largest value, and its mean would be 0 / 0.
        given = [len(option) for option in (self.window, self.padding) if isinstance(option, tuple)]
        rank = min(given, default=1)  # one number for all axes: one comparison is enough
        for padding, size in zip(padding_for_each_axis(self.padding, rank), for_each_axis(self.window, rank)):
            if not isinstance(padding, str) and max(before_and_after(padding, size, size - 1, 1)) >= size:
                raise LayerError(f"{self!r}: expected a padding below the window, which would else hold nothing")

    def _split(self, params: Params, x: PyTree) -> PartitionSpec:
        return split_along(entries_of_windows(self, params, x), entries_of(x)[-1:])

    def _reduced(self, x: jax.Array, start: np.ndarray, function: Callable[..., jax.Array]) -> jax.Array:
        """Reduce each pooling window by a function of two values.

        Args:
            start: the function's neutral element, as a NumPy array: JAX must see its value to have a gradient.
        """
        window = self._window(x)
        rank = len(window)
        stride = for_each_axis(self.stride or window, rank)
        batch = (1,) * (x.ndim - rank - 1)
        padding = self.padding
        if not isinstance(padding, str):  # JAX takes a pair for every axis, batch and features included
            axes = zip(padding_for_each_axis(padding, rank), x.shape[-rank - 1 : -1], window, stride)
            sides = [before_and_after(one, places, size - 1, step) for one, places, size, step in axes]
            padding = [*((0, 0) for _ in batch), *sides, (0, 0)]
        y = jax.lax.reduce_window(x, start, function, (*batch, *window, 1), (*batch, *stride, 1), padding)
        check_not_empty(self, x, y)
        return y

    def _window(self, x: jax.Array) -> tuple[int, ...]:
        per_axis = {"stride": self.stride, "padding": self.padding}
        return for_each_axis(self.window, spatial_rank(self, x, self.window, per_axis))


@dataclass(frozen=True, eq=False, repr=False)
class MaxPool(_Pool):
    """Pool the largest value in each window: f32[batch, space..., features], space divided by the stride.

    >>> MaxPool(2)({}, jnp.arange(16.0).reshape(1, 4, 4, 1))[0, :, :, 0].tolist()
    [[5.0, 7.0], [13.0, 15.0]]

    The stride is by default the window.

    Args:
        window: the size of the window; one number holds for each axis of space.
        stride: by how many places the window moves; by default its size.
        padding: `"VALID"`, `"SAME"`, a number for both sides, or a tuple with one of these or (before, after) for each
            axis.

    Raises:
        LayerError: an input without as many axes of space as the window has.
    """

    @splits_output(_Pool._split)
    def apply(self, params: Params, x: PyTree) -> jax.Array:
        x = jnp.asarray(floats(self, x))
        lowest = np.asarray(-np.inf, x.dtype)
        if np.isnan(lowest):  # an 8-bit float without infinity
            lowest = np.asarray(jnp.finfo(x.dtype).min, x.dtype)
        return self._reduced(x, lowest, jax.lax.max)


@dataclass(frozen=True, eq=False, repr=False)
class AvgPool(_Pool):
    """Pool the mean of each window: f32[batch, space..., features], space divided by the stride.

    >>> AvgPool(2)({}, jnp.arange(16.0).reshape(1, 4, 4, 1))[0, :, :, 0].tolist()
    [[2.5, 4.5], [10.5, 12.5]]

    The stride is by default the window. Padding counts as zeros in the mean; with `count_padding=False` it does not count.

    Args:
        window: the size of the window; one number holds for each axis of space.
        stride: by how many places the window moves; by default its size.
        padding: `"VALID"`, `"SAME"`, a number for both sides, or a tuple with one of these or (before, after) for each
            axis.
        count_padding: whether padding counts in the mean, as zeros.

    Raises:
        LayerError: an input without as many axes of space as the window has.
    """

    _: KW_ONLY
    count_padding: bool = True

    @splits_output(_Pool._split)
    def apply(self, params: Params, x: PyTree) -> jax.Array:
        x = jnp.asarray(floats_or_complex(self, x))
        wide = widened(x)  # in bfloat16 a sum of ones stops growing at 256
        zero = np.zeros((), wide.dtype)
        total = self._reduced(wide, zero, jax.lax.add)
        if self.count_padding:
            count = math.prod(self._window(x))
        else:
            # Windows at the edge hold fewer values: count them as a sum of ones.
            count = self._reduced(jnp.ones_like(wide), zero, jax.lax.add)
        return (total / count).astype(x.dtype)
