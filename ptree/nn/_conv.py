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
from .._errors import LayerError
from .._leaf import describe
from .._params import Param
from .._tree import Tree
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
        if features % self.groups or self.features % self.groups:
            raise unfit(self, f"features that {self.groups} groups divide", f"the input {describe(x)}")
        draw = self.kernel_init or initializers.lecun_normal()
        leaves = {"kernel": Param((*size, features // self.groups, self.features), self.param_dtype, draw)}
        if self.use_bias:
            leaves["bias"] = Param((self.features,), self.param_dtype, self.bias_init)
        return Tree(leaves)

    def __call__(self, params: Any, x: Any) -> Any:
        size = self._size(x)
        kernel = need(params, "kernel", self)
        if len(kernel.shape) != len(size) + 2 or x.shape[-1] != kernel.shape[-2] * self.groups:
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
        examples = x.reshape(-1, *x.shape[-len(size) - 1 :])
        y = self._slid(examples, kernel, each(self.stride, size), each(self.dilation, size))
        y = y.reshape(*x.shape[: -len(size) - 1], *y.shape[1:])
        return y + bias[0] if bias else y

    def _slid(self, x: Any, kernel: Any, stride: tuple[int, ...], dilation: tuple[int, ...]) -> Any:
        raise NotImplementedError

    def _size(self, x: Any) -> tuple[int, ...]:
        """The kernel's size in each spatial axis of this input."""
        rank = len(self.kernel_size) if isinstance(self.kernel_size, tuple) else len(floating(self, x).shape) - 2
        if len(floating(self, x).shape) < rank + 1 or rank < 1:
            raise unfit(self, f"an input of {max(rank, 1)} spatial axes and one of features", describe(x))
        return each(self.kernel_size, (0,) * rank)

    def __post_init__(self) -> None:
        sizes = [self.features, self.groups, *_all(self.kernel_size), *_all(self.stride), *_all(self.dilation)]
        if min(sizes) < 1:
            raise LayerError(f"{self!r}: expected sizes of at least 1")
        if isinstance(self.padding, str) and self.padding not in ("SAME", "VALID"):
            raise LayerError(f"{self!r}: expected the padding 'SAME', 'VALID' or numbers, got {self.padding!r}")
        if isinstance(self.padding, list):
            object.__setattr__(self, "padding", tuple(self.padding))


@dataclass(frozen=True, repr=False)
class Conv(_Sliding):
    """A kernel slid over one, two or three axes of space: f32[batch, space..., in] -> f32[batch, space..., features].

    >>> layer = Conv(16, (3, 3), stride=2)
    >>> x = jnp.ones((1, 28, 28, 3))
    >>> params = layer.init(jax.random.key(0), x)
    >>> params["kernel"].shape, layer(params, x).shape
    ((3, 3, 3, 16), (1, 14, 14, 16))

    The kernel is (space..., in / groups, features). A kernel size that is one number is that in each axis of space.
    As many groups as features in and out is a depthwise convolution.

    Raises:
        LayerError: an input that does not fit the kernel, or groups that do not divide its features.
    """

    def _slid(self, x: Any, kernel: Any, stride: tuple[int, ...], dilation: tuple[int, ...]) -> Any:
        rank = len(stride)
        padding = self.padding if isinstance(self.padding, str) else pairs(self.padding, rank)
        return jax.lax.conv_general_dilated(
            x, kernel, stride, padding, rhs_dilation=dilation, feature_group_count=self.groups,
            dimension_numbers=_layout(rank),
        )  # fmt: skip


@dataclass(frozen=True, repr=False)
class ConvTranspose(_Sliding):
    """The transpose of a convolution, which makes space larger: what `Conv` does to a gradient.

    >>> layer = ConvTranspose(16, (4, 4), stride=2)
    >>> x = jnp.ones((1, 14, 14, 3))
    >>> layer(layer.init(jax.random.key(0), x), x).shape
    (1, 28, 28, 16)

    The kernel is (space..., in / groups, features). The padding is that of the convolution it is the transpose of, as
    in PyTorch and Keras: with `"SAME"` space grows by the stride, with `"VALID"` the size is
    `(n - 1) * stride + dilation * (kernel - 1) + 1`, from which a padding in numbers is taken.

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
        rank = len(self.window) if isinstance(self.window, tuple) else len(floating(self, x).shape) - 2
        if len(floating(self, x).shape) < rank + 1 or rank < 1:
            raise unfit(self, f"an input of {max(rank, 1)} spatial axes and one of features", describe(x))
        window = each(self.window, (0,) * rank)
        stride = each(self.stride or window, window)

        def full(sizes: Sequence[Any], rest: Any) -> tuple[Any, ...]:
            return (*(rest,) * (len(x.shape) - rank - 1), *sizes, rest)

        padding = self.padding if isinstance(self.padding, str) else full(pairs(self.padding, rank), (0, 0))
        # the start is NumPy's: of a tracer JAX would not know that it is neutral
        return jax.lax.reduce_window(x, start, function, full(window, 1), full(stride, 1), padding)


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
        total = self._reduced(x, np.zeros((), floating(self, x).dtype), jax.lax.add)
        if self.count_padding:
            rank = len(self.window) if isinstance(self.window, tuple) else len(x.shape) - 2
            return total / math.prod(each(self.window, (0,) * rank))
        return total / self._reduced(jnp.ones_like(x), np.zeros((), x.dtype), jax.lax.add)


def each(sizes: Sizes, like: Sequence[int]) -> tuple[int, ...]:
    """A size for each axis."""
    return sizes if isinstance(sizes, tuple) else (sizes,) * len(like)


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
