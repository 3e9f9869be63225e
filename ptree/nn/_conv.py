"""Convolution layers over one, two or three axes of space, Conv and ConvTranspose, with features last."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass

import jax
import jax.numpy as jnp
from jax.lax import ConvDimensionNumbers
from jax.typing import DTypeLike

from .. import initializers
from .._draw import Param
from .._errors import LayerError
from .._tree import PyTree
from .._words import describe
from ._inputs import cast, misfit, parameter
from ._layer import Initializer, Layer, Params
from ._window import (
    Padding,
    Sizes,
    before_and_after,
    check_not_empty,
    for_each_axis,
    spatial_rank,
)


@dataclass(frozen=True, eq=False, repr=False)
class _Convolution(Layer):
    """Base of the convolutions Conv and ConvTranspose: options, parameters and checks."""

    features: int
    kernel_size: Sizes
    _: KW_ONLY
    stride: Sizes = 1
    padding: Padding = "SAME"
    dilation: Sizes = 1
    groups: int = 1
    use_bias: bool = True
    kernel_init: Initializer | None = None
    bias_init: Initializer = initializers.zeros
    param_dtype: DTypeLike = jnp.float32
    dtype: DTypeLike | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.features % self.groups:
            raise LayerError(f"{self!r}: expected features that {self.groups} groups divide, got {self.features}")

    def declare(self, x: PyTree) -> dict[str, Param]:
        window = self._window(x)
        if x.shape[-1] % self.groups:
            raise misfit(self, f"features that {self.groups} groups divide", f"the input {describe(x)}")
        shape = (*window, x.shape[-1] // self.groups, self.features)
        leaves = {"kernel": Param(shape, self.param_dtype, self.kernel_init or initializers.lecun_normal())}
        if self.use_bias:
            leaves["bias"] = Param((self.features,), self.param_dtype, self.bias_init)
        return leaves

    def apply(self, params: Params, x: PyTree) -> jax.Array:
        kernel = self._kernel(params, x)
        if self.use_bias:
            bias = parameter(params, "bias", self, (self.features,))
            x, kernel, bias = cast(self, self.dtype, x, kernel, bias)
        else:
            x, kernel = cast(self, self.dtype, x, kernel)
            bias = None
        # JAX's convolution takes exactly one batch axis: the axes before space, also none, are reshaped to one and back.
        batch_axes = x.ndim - (kernel.ndim - 1)
        batch, example = x.shape[:batch_axes], x.shape[batch_axes:]
        y = self._convolved(x.reshape(math.prod(batch), *example), kernel)
        y = y.reshape(*batch, *y.shape[1:])
        return y if bias is None else y + bias

    def _convolved(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """Convolve an input with one batch axis."""
        raise NotImplementedError

    def _kernel(self, params: Params, x: PyTree) -> jax.Array:
        """The convolution's kernel, checked to fit the input."""
        window = self._window(x)
        kernel = parameter(params, "kernel", self)
        # The usual mistake, another number of features in, gets a message that names both numbers.
        if kernel.ndim == len(window) + 2 and x.shape[-1] != kernel.shape[-2] * self.groups:
            expected = f"{kernel.shape[-2] * self.groups} features for the kernel {describe(kernel)}"
            raise misfit(self, expected, f"the input {describe(x)}")
        return parameter(params, "kernel", self, (*window, x.shape[-1] // self.groups, self.features))

    def _window(self, x: PyTree) -> tuple[int, ...]:
        """The kernel's size on each axis of space of this input."""
        per_axis = {"stride": self.stride, "dilation": self.dilation, "padding": self.padding}
        rank = spatial_rank(self, x, self.kernel_size, per_axis)
        return for_each_axis(self.kernel_size, rank)


@dataclass(frozen=True, eq=False, repr=False)
class Conv(_Convolution):
    """A kernel slid over one, two or three axes of space: f32[batch, space..., in] -> f32[batch, space..., features].

    >>> layer = Conv(16, (3, 3), stride=2)
    >>> x = jnp.ones((1, 28, 28, 3))
    >>> params = layer.init(jax.random.key(0), x)
    >>> params["kernel"].shape, layer(params, x).shape
    ((3, 3, 3, 16), (1, 14, 14, 16))

    The kernel is (space..., in / groups, features). A kernel size that is one number holds for each axis of space.
    With as many groups as features in and out it is a depthwise convolution. Any number of axes before those of
    space, also none, is the batch.

    Raises:
        LayerError: an input that does not fit the kernel, or groups that do not divide its features.
    """

    def _convolved(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        rank = kernel.ndim - 2
        padding = self.padding if isinstance(self.padding, str) else before_and_after(self.padding, rank)
        y = jax.lax.conv_general_dilated(
            x,
            kernel,
            window_strides=for_each_axis(self.stride, rank),
            padding=padding,
            rhs_dilation=for_each_axis(self.dilation, rank),
            feature_group_count=self.groups,
            dimension_numbers=_features_last(rank),
        )
        check_not_empty(self, x, y)
        return y


@dataclass(frozen=True, eq=False, repr=False)
class ConvTranspose(_Convolution):
    """The transpose of a convolution, which enlarges space: it computes what the gradient of `Conv` does to its input.

    >>> layer = ConvTranspose(16, (4, 4), stride=2)
    >>> x = jnp.ones((1, 14, 14, 3))
    >>> layer(layer.init(jax.random.key(0), x), x).shape
    (1, 28, 28, 16)

    The kernel is (space..., in / groups, features). The padding is that of the convolution whose transpose it is:
    with `"SAME"` space grows by the stride, with `"VALID"` the size is `(n - 1) * stride + dilation * (kernel - 1) + 1`
    as in PyTorch, from which a padding in numbers is taken. (Keras and Flax add zeros where a kernel is smaller than
    the stride.)

    Raises:
        LayerError: an input that does not fit the kernel, or groups that do not divide its features.
    """

    def _convolved(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        rank = kernel.ndim - 2
        strides, dilations = for_each_axis(self.stride, rank), for_each_axis(self.dilation, rank)
        # Position i of the input is added to `reach + 1` places of the output, from place `i * stride` on.
        reaches = [dilation * (size - 1) for dilation, size in zip(dilations, kernel.shape)]
        cropped = self._cropped(reaches, strides)
        axes = zip(x.shape[1:], strides, reaches, cropped)
        sizes = [(size - 1) * stride + reach + 1 - before - after for size, stride, reach, (before, after) in axes]
        if min(sizes) < 1:  # JAX would return an empty output
            raise misfit(self, "an output of at least one place on each axis", f"{sizes} for the input {describe(x)}")
        return jax.lax.conv_general_dilated(
            x,
            jnp.flip(kernel, range(rank)),  # the transpose slides the kernel backwards
            window_strides=(1,) * rank,
            padding=[(reach - before, reach - after) for reach, (before, after) in zip(reaches, cropped)],
            lhs_dilation=strides,  # zeros between the positions of the input
            rhs_dilation=dilations,
            feature_group_count=self.groups,
            dimension_numbers=_features_last(rank),
        )

    def _cropped(self, reaches: list[int], strides: tuple[int, ...]) -> list[tuple[int, int]]:
        """How many places of the whole output are cropped before and after each axis of space.

        Args:
            reaches: how far the window reaches beyond its first place, on each axis.
        """
        if not isinstance(self.padding, str):
            return before_and_after(self.padding, len(strides))
        if self.padding == "VALID":
            return [(0, 0)] * len(strides)
        cropped: list[tuple[int, int]] = []
        for reach, stride in zip(reaches, strides):
            # The convolution's padding; of an odd number the larger half is at the end, as in `jax.lax.padtype_to_pads`.
            total = reach + 1 - stride
            before = max(total // 2, 0)
            cropped.append((before, total - before))
        return cropped


def _features_last(rank: int) -> ConvDimensionNumbers:
    """The dimension numbers of a convolution with features last: input and output N[D][H]WC, kernel [D][H]WIO."""
    space = "DHW"[3 - rank :]
    shape = (1,) * (rank + 2)  # only the number of axes counts
    return jax.lax.conv_dimension_numbers(shape, shape, (f"N{space}C", f"{space}IO", f"N{space}C"))
