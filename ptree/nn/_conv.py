"""Layers that slide over space: Conv, ConvTranspose, MaxPool, AvgPool. Features are the last axis."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import initializers
from .._draw import Param
from .._errors import LayerError
from .._tree import Tree
from .._words import describe
from ._call import cast, floating, need, unfit
from ._layer import Layer

Sizes = int | tuple[int, ...]
Padding = str | int | Sequence[int | tuple[int, int]]
"""`"SAME"`, `"VALID"`, or how much on both sides of every axis, of each axis, or (before, after) of each."""


@dataclass(frozen=True, repr=False)
class _Sliding(Layer):
    """What Conv and ConvTranspose have in common: sizes, parameters, checks."""

    features: int
    kernel_size: Sizes
    stride: Sizes = 1
    padding: Padding = "SAME"
    dilation: Sizes = 1
    groups: int = 1
    use_bias: bool = True
    kernel_init: Callable[..., Any] | None = None
    bias_init: Callable[..., Any] = initializers.zeros
    param_dtype: Any = jnp.float32
    dtype: Any = None

    def spec(self, x: Any) -> Tree:
        size = self._size(x)
        features = x.shape[-1]
        if features % self.groups:
            raise unfit(self, f"features that {self.groups} groups divide", f"the input {describe(x)}")
        draw = self.kernel_init or initializers.lecun_normal()
        leaves = {"kernel": Param((*size, features // self.groups, self.features), self.param_dtype, draw)}
        if self.use_bias:
            leaves["bias"] = Param((self.features,), self.param_dtype, self.bias_init)
        return Tree(leaves)

    def __call__(self, params: Any, x: Any) -> Any:
        size = self._size(x)
        kernel = need(params, "kernel", self)
        if len(kernel.shape) == len(size) + 2 and x.shape[-1] != kernel.shape[-2] * self.groups:
            raise unfit(
                self,
                f"{kernel.shape[-2] * self.groups} features for the kernel {describe(kernel)}",
                f"the input {describe(x)}",
            )
        if kernel.shape != (*size, x.shape[-1] // self.groups, self.features):
            raise unfit(
                self, f"a kernel of the shape {(*size, x.shape[-1] // self.groups, self.features)}", describe(kernel)
            )
        bias = [need(params, "bias", self, (self.features,))] if self.use_bias else []
        x, kernel, *bias = cast(self.dtype, x, kernel, *bias)
        lead, rest = x.shape[: -len(size) - 1], x.shape[-len(size) - 1 :]
        examples = x.reshape(math.prod(lead), *rest)
        y = self._slid(examples, kernel, each(self.stride, len(size)), each(self.dilation, len(size)))
        y = y.reshape(*lead, *y.shape[1:])
        return y + bias[0] if bias else y

    def _slid(self, x: Any, kernel: Any, stride: tuple[int, ...], dilation: tuple[int, ...]) -> Any:
        raise NotImplementedError

    def _size(self, x: Any) -> tuple[int, ...]:
        """The kernel's size in each spatial axis of this input."""
        return each(self.kernel_size, rank_of(self, x, self.kernel_size))

    def __post_init__(self) -> None:
        check_sizes(self, "features", "groups", "kernel_size", "stride", "dilation")
        check_padding(self)
        if self.features % self.groups:
            raise LayerError(f"{self!r}: expected features that {self.groups} groups divide, got {self.features}")


@dataclass(frozen=True, repr=False)
class Conv(_Sliding):
    """A kernel slid over one, two or three axes of space: f32[batch, space..., in] -> f32[batch, space..., features].

    >>> layer = Conv(16, (3, 3), stride=2)
    >>> x = jnp.ones((1, 28, 28, 3))
    >>> params = layer.init(jax.random.key(0), x)
    >>> params["kernel"].shape, layer(params, x).shape
    ((3, 3, 3, 16), (1, 14, 14, 16))

    The kernel is (space..., in / groups, features). A kernel size that is one number is that in each axis of space.
    As many groups as features in and out is a depthwise convolution. Any number of axes before those of space,
    also none, is the batch.

    Raises:
        LayerError: an input that does not fit the kernel, or groups that do not divide its features.
    """

    def _slid(self, x: Any, kernel: Any, stride: tuple[int, ...], dilation: tuple[int, ...]) -> Any:
        rank = len(stride)
        padding = self.padding if isinstance(self.padding, str) else pairs(self.padding, rank)
        y = jax.lax.conv_general_dilated(
            x, kernel, stride, padding, rhs_dilation=dilation, feature_group_count=self.groups,
            dimension_numbers=_layout(rank),
        )  # fmt: skip
        return not_empty(self, x, y)


@dataclass(frozen=True, repr=False)
class ConvTranspose(_Sliding):
    """The transpose of a convolution, which makes space larger: what `Conv` does to a gradient.

    >>> layer = ConvTranspose(16, (4, 4), stride=2)
    >>> x = jnp.ones((1, 14, 14, 3))
    >>> layer(layer.init(jax.random.key(0), x), x).shape
    (1, 28, 28, 16)

    The kernel is (space..., in / groups, features). The padding is that of the convolution it is the transpose of:
    with `"SAME"` space grows by the stride, with `"VALID"` the size is `(n - 1) * stride + dilation * (kernel - 1) + 1`
    as in PyTorch, from which a padding in numbers is taken. (Keras and Flax add zeros where a kernel is smaller than
    the stride.)

    Raises:
        LayerError: an input that does not fit the kernel, or groups that do not divide its features.
    """

    def _slid(self, x: Any, kernel: Any, stride: tuple[int, ...], dilation: tuple[int, ...]) -> Any:
        rank = len(stride)
        reach = [d * (k - 1) for d, k in zip(dilation, kernel.shape, strict=False)]
        if self.padding == "VALID":
            taken = [(0, 0)] * rank
        elif self.padding == "SAME":
            totals = [r + 1 - s for r, s in zip(reach, stride, strict=True)]
            taken = [(total // 2, total - total // 2) if total > 0 else (0, total) for total in totals]
        else:
            taken = pairs(self.padding, rank)  # pyright: ignore[reportArgumentType]
        sizes = [
            (n - 1) * s + r + 1 - a - b for n, s, r, (a, b) in zip(x.shape[1:], stride, reach, taken, strict=False)
        ]
        if min(sizes) < 1:
            raise unfit(self, "an output of at least one place on each axis", f"{sizes} for the input {describe(x)}")
        return jax.lax.conv_general_dilated(
            x, jnp.flip(kernel, range(rank)), (1,) * rank, [(r - a, r - b) for r, (a, b) in zip(reach, taken, strict=True)],
            lhs_dilation=stride, rhs_dilation=dilation, feature_group_count=self.groups, dimension_numbers=_layout(rank),
        )  # fmt: skip


@dataclass(frozen=True, repr=False)
class _Pool(Layer):
    """What the two pools have in common: a window over the axes of space."""

    window: Sizes
    stride: Sizes | None = None
    padding: Padding = "VALID"

    def _reduced(self, x: Any, start: Any, function: Any) -> Any:
        window = self._window(x)
        rank = len(window)
        stride = each(self.stride or window, rank)

        def full(sizes: Sequence[Any], rest: Any) -> tuple[Any, ...]:
            return (*(rest,) * (len(x.shape) - rank - 1), *sizes, rest)

        padding = self.padding if isinstance(self.padding, str) else full(pairs(self.padding, rank), (0, 0))
        # the start is NumPy's: of a tracer JAX would not know that it is neutral
        y = jax.lax.reduce_window(x, start, function, full(window, 1), full(stride, 1), padding)
        return not_empty(self, x, y)

    def _window(self, x: Any) -> tuple[int, ...]:
        return each(self.window, rank_of(self, x, self.window))

    def __post_init__(self) -> None:
        check_sizes(self, "window", "stride")
        check_padding(self)
        if not isinstance(self.padding, str):
            for (before, after), size in zip(pairs(self.padding, 1), _all(self.window), strict=False):
                if max(before, after) >= size:
                    raise LayerError(f"{self!r}: expected a padding below the window, which would else hold nothing")


@dataclass(frozen=True, repr=False)
class MaxPool(_Pool):
    """The largest value in each window: f32[batch, space..., features], space divided by the stride.

    >>> MaxPool(2)({}, jnp.arange(16.0).reshape(1, 4, 4, 1))[0, :, :, 0].tolist()
    [[5.0, 7.0], [13.0, 15.0]]

    The stride is by default the window.

    Raises:
        LayerError: an input without as many axes of space as the window has.
    """

    def __call__(self, params: Any, x: Any) -> Any:
        return self._reduced(x, np.asarray(-np.inf, floating(self, x).dtype), jax.lax.max)


@dataclass(frozen=True, repr=False)
class AvgPool(_Pool):
    """The mean of each window: f32[batch, space..., features], space divided by the stride.

    >>> AvgPool(2)({}, jnp.arange(16.0).reshape(1, 4, 4, 1))[0, :, :, 0].tolist()
    [[2.5, 4.5], [10.5, 12.5]]

    The stride is by default the window. What was padded counts as 0, or, without `count_padding`, not at all.

    Raises:
        LayerError: an input without as many axes of space as the window has.
    """

    count_padding: bool = True

    def __call__(self, params: Any, x: Any) -> Any:
        wide = floating(self, x).astype(jnp.promote_types(x.dtype, jnp.float32))  # a sum of many in bfloat16 is wrong
        zero = np.zeros((), wide.dtype)
        total = self._reduced(wide, zero, jax.lax.add)
        count = (
            math.prod(self._window(x)) if self.count_padding else self._reduced(jnp.ones_like(wide), zero, jax.lax.add)
        )
        return (total / count).astype(x.dtype)


def rank_of(layer: Layer, x: Any, sizes: Sizes) -> int:
    """How many axes of space there are: as many as sizes, else all between the first and the last of the input."""
    axes = len(floating(layer, x).shape)
    rank = len(sizes) if isinstance(sizes, tuple) else axes - 2
    if axes < rank + 1 or not 1 <= rank <= 3:
        expected = f"{rank} axes" if isinstance(sizes, tuple) and 1 <= rank <= 3 else "1 to 3 axes"
        raise unfit(layer, f"an input of {expected} of space and one of features", describe(x))
    if 0 in x.shape[axes - rank - 1 : -1]:
        raise unfit(layer, "an input with places on each axis of space", describe(x))
    for option in ("stride", "dilation", "padding"):
        given = getattr(layer, option, None)
        if isinstance(given, tuple) and len(given) != rank:
            raise unfit(layer, f"a {option} of {rank} numbers, for the axes of space", f"{given}")
    return rank


def not_empty(layer: Layer, x: Any, y: Any) -> Any:
    if 0 in y.shape and 0 not in x.shape:
        raise unfit(layer, "an input that holds the window at least once", describe(x))
    return y


def check_sizes(layer: Layer, *options: str) -> None:
    """Sizes are whole numbers from 1 on, or tuples of them; lists become tuples."""
    for option in options:
        if isinstance(sizes := getattr(layer, option), list):
            object.__setattr__(layer, option, sizes := tuple(sizes))
        if sizes is not None and not all(isinstance(size, int) and size >= 1 for size in _all(sizes)):
            raise LayerError(f"{type(layer).__name__}: expected {option} of at least 1, got {sizes!r}")


def check_padding(layer: Any) -> None:
    """`"SAME"`, `"VALID"` or numbers, of which lists become tuples."""
    given = layer.padding
    if isinstance(given, list):
        given = tuple(tuple(side) if isinstance(side, list) else side for side in given)
        object.__setattr__(layer, "padding", given)
    sides = [given] if isinstance(given, int) else given
    fits = given in ("SAME", "VALID") or (not isinstance(given, str) and isinstance(sides, (list, tuple)) and sides)
    if fits and not isinstance(given, str):
        fits = all(
            isinstance(side, int)
            or (isinstance(side, tuple) and len(side) == 2 and all(isinstance(s, int) for s in side))
            for side in sides
        )
    if not fits:
        raise LayerError(
            f"{type(layer).__name__}: expected the padding 'SAME', 'VALID', a number, or for each axis a number or"
            f" (before, after), got {given!r}"
        )


def each(sizes: Sizes, rank: int) -> tuple[int, ...]:
    """A size for each axis."""
    return sizes if isinstance(sizes, tuple) else (sizes,) * rank


def pairs(padding: Any, rank: int) -> list[tuple[int, int]]:
    """How much to pad before and after each axis."""
    sides = [padding] * rank if isinstance(padding, int) else [*padding]
    return [(side, side) if isinstance(side, int) else tuple(side) for side in sides]


def _all(sizes: Any) -> Sequence[int]:
    return sizes if isinstance(sizes, tuple) else (sizes,)


def _layout(rank: int) -> Any:
    space = "DHW"[3 - rank :]
    return jax.lax.conv_dimension_numbers(
        (1,) * (rank + 2), (1,) * (rank + 2), (f"N{space}C", f"{space}IO", f"N{space}C")
    )
