"""Convolution layers over one, two or three axes of space, Conv and ConvTranspose, with features last."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import jax
import jax.numpy as jnp
from jax.lax import ConvDimensionNumbers
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike

from .. import initializers
from .._draw import Param
from .._errors import LayerError
from .._tree import Entry, PyTree, entries_of
from .._words import describe
from ._convolution_primitive import convolution
from ._explicit_axes import computed_by_part_of_batch, entries_at, split_along, splits_output
from ._inputs import cast, misfit, parameter
from ._layer import Initializer, Layer, Params
from ._products import product
from ._size_checks import PADDING_MODES
from ._window import (
    Padding,
    PaddingMode,
    Sizes,
    before_and_after,
    check_not_empty,
    entries_of_windows,
    for_each_axis,
    padding_for_each_axis,
    spatial_rank,
)

_FILLED = frozenset({"CIRCULAR", "REFLECT", "REPLICATE"})
"""Paddings that are filled with values of the input."""
_MOST_FILLED = {"wrap": ("circular", 0), "reflect": ("reflected", 1)}
"""The fillings with a most: its name, and how many places of the axis it leaves out. A reflection leaves out the edge."""


@dataclass(frozen=True, eq=False, repr=False)
class _Convolution(Layer):
    """Base of the convolutions Conv and ConvTranspose: options, parameters and checks."""

    features: int
    kernel_size: Sizes
    _: KW_ONLY
    stride: Sizes = 1
    padding: Padding = "SAME"
    padding_mode: PaddingMode = "zeros"
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
        if self.padding_mode != "zeros" and _FILLED.intersection(padding_for_each_axis(self.padding, 1)):
            raise LayerError(
                f"{self!r}: expected padding 'SAME', 'VALID' or numbers with a padding_mode, got {self.padding!r}"
            )

    def declare(self, x: PyTree) -> dict[str, Param]:
        window = self._window(x)
        if x.shape[-1] % self.groups:
            raise misfit(self, f"features that {self.groups} groups divide", f"the input {describe(x)}")
        shape = (*window, x.shape[-1] // self.groups, self.features)
        leaves = {"kernel": Param(shape, self.param_dtype, self.kernel_init or initializers.lecun_normal())}
        if self.use_bias:
            leaves["bias"] = Param((self.features,), self.param_dtype, self.bias_init)
        return leaves

    def _split(self, params: Params, x: PyTree) -> PartitionSpec:
        return split_along(entries_of_windows(self, params, x), entries_at(params, "kernel")[-1:])

    def _batch_entries(self, params: Params, x: PyTree) -> Sequence[Entry]:
        return entries_of(x)[: len(x.shape) - len(self._window(x)) - 1]

    @computed_by_part_of_batch(_batch_entries, lambda layer: layer.groups > 1)
    @splits_output(_split)
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
        x = x.reshape(math.prod(batch), *example)
        y = product(self, x, kernel, self._convolved, inputs=kernel.ndim - 1, groups=self.groups)
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
        rank = spatial_rank(self, x, self.kernel_size, {**per_axis, "padding_mode": self.padding_mode})
        if self.padding == "CAUSAL" and rank > 1:
            raise misfit(
                self, "one axis of space, or which axis is time, as in padding=('CAUSAL', 'SAME')", describe(x)
            )
        return for_each_axis(self.kernel_size, rank)

    def _fillings(self, rank: int) -> list[str]:
        """What the padding of each axis of space is filled with, in the words of `jnp.pad`."""
        modes = self.padding_mode if isinstance(self.padding_mode, tuple) else (self.padding_mode,) * rank
        fillings: list[str] = []
        for padding, mode in zip(padding_for_each_axis(self.padding, rank), modes):
            name = padding.lower() if isinstance(padding, str) and padding in _FILLED else mode
            fillings.append(PADDING_MODES[name])
        return fillings

    def _check_width(self, axis: int, sides: tuple[int, int], size: int, filling: str) -> None:
        """Check that the values of an axis of space fill its padding: as in PyTorch, no value is copied twice to one side."""
        if filling not in _MOST_FILLED or not isinstance(size, int):  # else a symbol of `jax.export`
            return
        name, missing = _MOST_FILLED[filling]
        most = size - missing
        if max(sides) <= most:
            return
        expected = f"a {name} padding of at most {most} on axis {axis} of space, which has {size} places"
        raise misfit(self, expected, f"a padding of {sides}")


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

    Gradients are right on every mesh, in groups and under `jax.vmap` over kernels too, where those of `jax.lax` are not (JAX 0.9
    to 0.10). XLA does not split such convolutions by the batch: each device computes the whole, but for groups on explicit axes.
    `remat=jax.checkpoint_policies.dots_saveable` of `nn.Repeat` saves convolutions; a `jax.checkpoint` with this policy does not.

    >>> ring = Conv(1, 3, padding="CIRCULAR", use_bias=False)
    >>> ring({"kernel": jnp.ones((3, 1, 1))}, jnp.array([[[1.0], [2.0], [3.0], [4.0]]])).ravel().tolist()
    [7.0, 6.0, 9.0, 8.0]

    On each side a circular padding is at most as wide as the input, and a reflected one is narrower, as in PyTorch; Flax
    wraps or reflects again.

    Args:
        features: how many features out.
        kernel_size: the window; one number holds for each axis of space.
        stride: by how many places the kernel moves, a number or one for each axis.
        padding: `"SAME"` (zeros, so that space is divided by the stride), `"VALID"` (none), a number for both sides, or
            a tuple with one of these or (before, after) for each axis. `"CAUSAL"` is before a time axis only, so that no
            output depends on later inputs. `"CIRCULAR"`, `"REFLECT"` and `"REPLICATE"` pad as Flax does, by half the kernel
            on each side, whatever the stride.
        padding_mode: what the padding is filled with, as in PyTorch: `"zeros"`, `"circular"`, `"reflect"` or
            `"replicate"`, or a tuple with one for each axis.
        dilation: the distance between the places that the kernel reads, a number or one for each axis.
        groups: in how many groups features in and out are divided.
        use_bias: whether there is a bias.
        kernel_init: initialiser of the kernel; by default LeCun's normal.
        bias_init: initialiser of the bias.
        param_dtype: the dtype of the parameters.
        dtype: the dtype it computes in; by default the one that JAX promotes input and parameters to.

    Raises:
        LayerError: an input that does not fit the kernel, groups that do not divide its features, or a circular or
            reflected padding that is wider than the input fills.
    """

    def _convolved(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        x, padding = self._filled(x, kernel)
        rank = kernel.ndim - 2
        y = convolution(
            x,
            kernel,
            stride=for_each_axis(self.stride, rank),
            padding=padding,
            dilation=for_each_axis(self.dilation, rank),
            numbers=_features_last(rank),
            groups=self.groups,
        )
        check_not_empty(self, x, y)
        return y

    def _filled(self, x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, str | tuple[tuple[int, int], ...]]:
        """Pad the axes that are not padded with zeros; the padding with zeros that is left for the convolution."""
        rank = kernel.ndim - 2
        fillings = self._fillings(rank)
        if isinstance(self.padding, str) and self.padding in ("SAME", "VALID") and {*fillings} == {"constant"}:
            return x, self.padding  # left to JAX, which also knows sizes that are symbols
        left: list[tuple[int, int]] = []
        strides, dilations = for_each_axis(self.stride, rank), for_each_axis(self.dilation, rank)
        for axis, padding in enumerate(padding_for_each_axis(self.padding, rank)):
            reach = dilations[axis] * (kernel.shape[axis] - 1)
            sides = before_and_after(padding, x.shape[axis + 1], reach, strides[axis])
            if fillings[axis] == "constant":
                left.append(sides)
                continue
            self._check_width(axis, sides, x.shape[axis + 1], fillings[axis])
            x = _padded(x, axis + 1, sides, fillings[axis])
            left.append((0, 0))
        return x, tuple(left)


@dataclass(frozen=True, eq=False, repr=False)
class ConvTranspose(_Convolution):
    """The transpose of a convolution, which enlarges space: it computes what the gradient of `Conv` does to its input.

    >>> layer = ConvTranspose(16, (4, 4), stride=2)
    >>> x = jnp.ones((1, 14, 14, 3))
    >>> layer(layer.init(jax.random.key(0), x), x).shape
    (1, 28, 28, 16)

    The kernel is (space..., in / groups, features). The padding is that of the convolution whose transpose it is:
    with `"SAME"` space grows by the stride, with `"VALID"` the size is `(n - 1) * stride + dilation * (kernel - 1) + 1`
    as in PyTorch, from which a padding in numbers is taken; a number below 0 adds places, such as PyTorch's
    `output_padding=1` with `padding=1`, which is `(1, 0)` for this layer. (Keras and Flax add zeros where a kernel is smaller than
    the stride.) With a padding that is not of zeros, what a convolution reads there is added to the places that it was
    copied from: with `"CIRCULAR"` the output wraps around. (PyTorch's takes only zeros.)

    >>> circular = ConvTranspose(1, 3, padding="CIRCULAR", use_bias=False)
    >>> circular({"kernel": jnp.array([[[1.0]], [[2.0]], [[3.0]]])}, jnp.array([[[1.0], [0.0], [0.0], [0.0]]])).ravel().tolist()
    [2.0, 3.0, 0.0, 1.0]

    Flax's layer by default does not slide the kernel backwards, as a gradient does: its kernel is flipped along the axes of
    space in ptree, `jnp.flip(kernel, (0, 1))` for two. With `transpose_kernel=True` it is not flipped, and its last two axes
    are swapped in ptree. With `"CIRCULAR"`, Flax's output is for some sizes of kernel and stride one place beside the gradient
    of its own `Conv`, which is what ptree computes.

    Args:
        features: how many features out.
        kernel_size: the window; one number holds for each axis of space.
        stride: by how much space grows, a number or one for each axis.
        padding: that of the convolution whose transpose it is, as for `Conv`.
        padding_mode: what that padding is filled with, as for `Conv`.
        dilation: the distance between the places that the kernel reads, a number or one for each axis.
        groups: in how many groups features in and out are divided.
        use_bias: whether there is a bias.
        kernel_init: initialiser of the kernel; by default LeCun's normal.
        bias_init: initialiser of the bias.
        param_dtype: the dtype of the parameters.
        dtype: the dtype it computes in; by default the one that JAX promotes input and parameters to.

    Raises:
        LayerError: an input that does not fit the kernel, groups that do not divide its features, or a circular or
            reflected padding that is wider than the output fills.
    """

    def _convolved(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        rank = kernel.ndim - 2
        strides, dilations = for_each_axis(self.stride, rank), for_each_axis(self.dilation, rank)
        fillings = self._fillings(rank)
        # Position i of the input is added to `reach + 1` places of the output, from place `i * stride` on.
        reaches = [dilation * (size - 1) for dilation, size in zip(dilations, kernel.shape)]
        cropped = self._cropped(reaches, strides)
        axes = zip(x.shape[1:], strides, reaches, cropped)
        sizes = [(size - 1) * stride + reach + 1 - before - after for size, stride, reach, (before, after) in axes]
        if min(sizes) < 1:  # JAX would return an empty output
            raise misfit(self, "an output of at least one place on each axis", f"{sizes} for the input {describe(x)}")
        by_jax = [sides if filling == "constant" else (0, 0) for sides, filling in zip(cropped, fillings)]
        y = convolution(
            x,
            jnp.flip(kernel, range(rank)),  # the transpose slides the kernel backwards
            stride=(1,) * rank,
            padding=tuple((reach - before, reach - after) for reach, (before, after) in zip(reaches, by_jax)),
            dilation=dilations,
            numbers=_features_last(rank),
            groups=self.groups,
            input_dilation=strides,
        )
        for axis, (filling, size) in enumerate(zip(fillings, sizes)):
            if filling == "constant":
                continue
            sides = self._sides(axis, reaches, cropped)
            self._check_width(axis, sides, size, filling)
            y = _folded(y, axis + 1, size, sides, filling)
        return y

    def _sides(self, axis: int, reaches: list[int], cropped: list[tuple[int, int]]) -> tuple[int, int]:
        """The padding of an axis, which is folded back: what is cropped, or with a name as in `Conv`."""
        padding = padding_for_each_axis(self.padding, len(reaches))[axis]
        if isinstance(padding, str) and padding in _FILLED:
            return before_and_after(padding, 0, reaches[axis], 1)
        before, after = cropped[axis]
        return max(before, 0), max(after, 0)

    def _cropped(self, reaches: list[int], strides: tuple[int, ...]) -> list[tuple[int, int]]:
        """How many places of the whole output are cropped before and after each axis of space.

        Args:
            reaches: how far the window reaches beyond its first place, on each axis.
        """
        cropped: list[tuple[int, int]] = []
        for padding, reach, stride in zip(padding_for_each_axis(self.padding, len(strides)), reaches, strides):
            if padding == "SAME":
                # The convolution's padding; of an odd number the larger half is at the end, as in `jax.lax.padtype_to_pads`.
                total = reach + 1 - stride
                before = max(total // 2, 0)
                cropped.append((before, total - before))
            elif isinstance(padding, str) and padding in _FILLED:
                before, after = before_and_after(padding, 0, reach, stride)
                cropped.append((before, after - (stride - 1)))  # so that space grows by the stride
            else:
                cropped.append(before_and_after(padding, reach + 1, reach, stride))
        return cropped


def _padded(x: jax.Array, axis: int, sides: tuple[int, int], filling: str) -> jax.Array:
    """Pad one axis with values of the array, as `jnp.pad` does in the mode `filling`."""
    size = x.shape[axis]
    if filling == "wrap":  # `jnp.pad` wraps no size that is a symbol of `jax.export`
        before, after = sides
        end = jax.lax.slice_in_dim(x, size - before, size, axis=axis)
        start = jax.lax.slice_in_dim(x, 0, after, axis=axis)
        return jnp.concatenate([end, x, start], axis)
    return jnp.pad(x, [sides if at == axis else (0, 0) for at in range(x.ndim)], filling)


def _folded(y: jax.Array, axis: int, size: int, sides: tuple[int, int], filling: str) -> jax.Array:
    """The transpose of `_padded`: add the padding to the places that it is copied from, which leaves `size` places."""
    before, after = sides
    # A convolution with a stride may not read the last places: nothing comes back from them.
    unread = size + before + after - y.shape[axis]
    y = _padded(y, axis, (0, unread), "constant")
    shape = (*y.shape[:axis], size, *y.shape[axis + 1 :])
    pad = lambda x: _padded(x, axis, sides, filling)  # noqa: E731
    (folded,) = jax.linear_transpose(pad, jax.ShapeDtypeStruct(shape, y.dtype))(y)
    return folded


def _features_last(rank: int) -> ConvDimensionNumbers:
    """The dimension numbers of a convolution with features last: input and output N[D][H]WC, kernel [D][H]WIO."""
    space = "DHW"[3 - rank :]
    shape = (1,) * (rank + 2)  # only the number of axes counts
    return jax.lax.conv_dimension_numbers(shape, shape, (f"N{space}C", f"{space}IO", f"N{space}C"))
