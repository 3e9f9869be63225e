"""Operations on the axes of an array: permutations, the layouts of kernels, flips, splits and merges of axes, reshapes."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from ..._errors import PatternError
from .operation import EachArray, MisfitError, Operation, axis_of, require_axes
from .options import require_count, require_sizes


class LayoutOfKernel(EachArray):
    """Base class of the operations that say how the axes of a kernel lie."""

    @property
    def says_layout(self) -> bool:
        return True


@dataclass(frozen=True, repr=False)
class Linear(LayoutOfKernel):
    """A matrix the other way round: `(out, in)` of PyTorch, Equinox and Gluon <-> `(in, out)`. Axes before the last two stay.

    >>> from ptree.convert import linear
    >>> linear.apply([np.ones((8, 4))])[0].shape
    (4, 8)
    """

    def change(self, array: np.ndarray) -> np.ndarray:
        require_axes(array, 2, "linear")
        return np.swapaxes(array, -1, -2)

    @property
    def inverse(self) -> Operation:
        return self


@dataclass(frozen=True, repr=False)
class Conv(LayoutOfKernel):
    """The kernel of a convolution: `(out, in, *window)` -> `(*window, in, out)`.

    >>> from ptree.convert import conv
    >>> conv.apply([np.ones((8, 4, 3, 5))])[0].shape
    (3, 5, 4, 8)
    """

    def change(self, array: np.ndarray) -> np.ndarray:
        require_axes(array, 2, "conv")
        return np.moveaxis(array, (0, 1), (-1, -2))

    @property
    def inverse(self) -> Operation:
        return ConvBack()


@dataclass(frozen=True, repr=False)
class ConvBack(LayoutOfKernel):
    """The inverse of `conv`: `(*window, in, out)` -> `(out, in, *window)`."""

    def change(self, array: np.ndarray) -> np.ndarray:
        require_axes(array, 2, "conv_back")
        return np.moveaxis(array, (-1, -2), (0, 1))

    @property
    def inverse(self) -> Operation:
        return Conv()


@dataclass(frozen=True, repr=False)
class ConvTranspose(LayoutOfKernel):
    """The kernel of a transposed convolution: `(in, out / groups, *window)` -> `(*window, in / groups, out)`.

    >>> from ptree.convert import conv_transpose
    >>> conv_transpose().apply([np.ones((8, 4, 3, 5))])[0].shape
    (3, 5, 8, 4)

    PyTorch numbers the groups along the first axis, ptree along the last one.

    Args:
        groups: in how many groups the channels are convolved.
    """

    groups: int = 1

    def check_options(self) -> None:
        require_count(self.name, "groups", self.groups)

    def change(self, array: np.ndarray) -> np.ndarray:
        require_axes(array, 2, "conv_transpose")
        features_in, out_of_group = array.shape[:2]
        _require_divisor(features_in, self.groups, array.shape)
        by_group = array.reshape(self.groups, features_in // self.groups, out_of_group, *array.shape[2:])
        # (groups, in, out, *window) -> (*window, in, groups, out)
        turned = np.moveaxis(by_group, (1, 0, 2), (-3, -2, -1))
        return turned.reshape(*turned.shape[:-2], self.groups * out_of_group)

    @property
    def inverse(self) -> Operation:
        return ConvTransposeBack(self.groups)


@dataclass(frozen=True, repr=False)
class ConvTransposeBack(LayoutOfKernel):
    """The inverse of `conv_transpose`: `(*window, in / groups, out)` -> `(in, out / groups, *window)`."""

    groups: int = 1

    def check_options(self) -> None:
        require_count(self.name, "groups", self.groups)

    def change(self, array: np.ndarray) -> np.ndarray:
        require_axes(array, 2, "conv_transpose_back")
        in_of_group, features_out = array.shape[-2:]
        _require_divisor(features_out, self.groups, array.shape)
        by_group = array.reshape(*array.shape[:-1], self.groups, features_out // self.groups)
        turned = np.moveaxis(by_group, (-2, -3, -1), (0, 1, 2))
        return turned.reshape(self.groups * in_of_group, *turned.shape[2:])

    @property
    def inverse(self) -> Operation:
        return ConvTranspose(self.groups)


def _require_divisor(size: int, groups: int, shape: tuple[int, ...]) -> None:
    if size % groups:
        raise MisfitError(f"{size} channels are not divided by {groups} groups: the array has the shape {[*shape]}")


@dataclass(frozen=True, repr=False)
class Permute(LayoutOfKernel):
    """The axes in another order, as `numpy.transpose` takes it: `permute((2, 3, 1, 0))`.

    >>> from ptree.convert import permute
    >>> permute((2, 3, 1, 0)).apply([np.ones((8, 4, 3, 5))])[0].shape
    (3, 5, 4, 8)

    Args:
        order: for each axis of the result, which axis it was.
    """

    order: tuple[int, ...]

    def check_options(self) -> None:
        if sorted(self.order) != list(range(len(self.order))):
            raise PatternError(f"permute{self.order}: the order names each axis from 0 to {len(self.order) - 1} once")

    def change(self, array: np.ndarray) -> np.ndarray:
        if array.ndim != len(self.order):
            raise MisfitError(f"permute needs {len(self.order)} axes, and the array has the shape {[*array.shape]}")
        return array.transpose(self.order)

    @property
    def says_layout(self) -> bool:
        return list(self.order) != sorted(self.order)

    @property
    def inverse(self) -> Operation:
        return Permute(tuple(int(axis) for axis in np.argsort(self.order)))


@dataclass(frozen=True, repr=False)
class Swap(LayoutOfKernel):
    """Two axes in each other's place: `swap(-1, -2)`.

    >>> from ptree.convert import swap
    >>> swap(-1, -2).apply([np.ones((3, 8, 4))])[0].shape
    (3, 4, 8)

    Args:
        first: an axis.
        second: the axis that takes its place.
    """

    first: int
    second: int

    def change(self, array: np.ndarray) -> np.ndarray:
        return np.swapaxes(array, axis_of(array, self.first, "swap"), axis_of(array, self.second, "swap"))

    @property
    def says_layout(self) -> bool:
        return self.first != self.second

    @property
    def inverse(self) -> Operation:
        return self


@dataclass(frozen=True, repr=False)
class Flip(EachArray):
    """The numbers along these axes in reverse, as of a kernel that one framework mirrors: `flip((0, 1))`.

    >>> from ptree.convert import flip
    >>> flip((0,)).apply([np.arange(3)])
    [array([2, 1, 0])]

    Args:
        axes: the axes that are reversed.
    """

    axes: tuple[int, ...]

    def change(self, array: np.ndarray) -> np.ndarray:
        axes = {axis_of(array, axis, "flip") for axis in self.axes}
        if len(axes) < len(self.axes):
            raise MisfitError(f"flip{self.axes} names an axis twice: the array has the shape {[*array.shape]}")
        return np.flip(array, tuple(axes))

    @property
    def inverse(self) -> Operation:
        return self


@dataclass(frozen=True, repr=False)
class Squeeze(EachArray):
    """Without an axis of size 1: the kernel of a `Conv2d` whose window is 1 wide, for a 1-D convolution.

    >>> from ptree.convert import squeeze
    >>> squeeze(3).apply([np.ones((8, 4, 3, 1))])[0].shape
    (8, 4, 3)

    Args:
        axis: the axis of size 1 that goes.
    """

    axis: int

    def change(self, array: np.ndarray) -> np.ndarray:
        axis = axis_of(array, self.axis, "squeeze")
        if array.shape[axis] != 1:
            raise MisfitError(f"squeeze needs size 1 at axis {self.axis}, and the array has the shape {[*array.shape]}")
        return array.squeeze(axis)

    @property
    def inverse(self) -> Operation:
        return Expand(self.axis)


@dataclass(frozen=True, repr=False)
class Expand(EachArray):
    """With a further axis of size 1, which is axis `axis` of the result.

    >>> from ptree.convert import expand
    >>> expand(0).apply([np.ones((8, 4))])[0].shape
    (1, 8, 4)

    Args:
        axis: its place in the result.
    """

    axis: int

    def change(self, array: np.ndarray) -> np.ndarray:
        if not -array.ndim - 1 <= self.axis <= array.ndim:
            raise MisfitError(f"expand cannot make axis {self.axis} of an array of the shape {[*array.shape]}")
        return np.expand_dims(array, self.axis)

    @property
    def inverse(self) -> Operation:
        return Squeeze(self.axis)


@dataclass(frozen=True, repr=False)
class SplitAxis(EachArray):
    """One axis as several: `split_axis(-1, (12, 64))` of `(768, 768)` is `(768, 12, 64)`. One size may be -1.

    >>> from ptree.convert import split_axis
    >>> split_axis(-1, (12, 64)).apply([np.ones((768, 768))])[0].shape
    (768, 12, 64)

    Args:
        axis: the axis that is split.
        sizes: of the new axes, whose product is its size; one may be -1.
    """

    axis: int
    sizes: tuple[int, ...]

    def check_options(self) -> None:
        _check_split(self.name, self.sizes)

    def __repr__(self) -> str:
        if len(self.sizes) != 2 or self.sizes[1] != -1:
            return super().__repr__()
        # as it is written where an axis is split into heads
        return f"heads({self.sizes[0]})" if self.axis == -1 else f"heads({self.sizes[0]}, axis={self.axis})"

    def change(self, array: np.ndarray) -> np.ndarray:
        axis = axis_of(array, self.axis, "split_axis")
        sizes = _whole_sizes(array.shape[axis], self.sizes, array.shape)
        return array.reshape(*array.shape[:axis], *sizes, *array.shape[axis + 1 :])

    @property
    def inverse(self) -> Operation:
        # counted from the end, the merged axes begin earlier by the axes that were added
        first = self.axis if self.axis >= 0 else self.axis - len(self.sizes) + 1
        return MergeAxes(first, self.sizes)


@dataclass(frozen=True, repr=False)
class MergeAxes(EachArray):
    """Several axes as one: `merge_axes(1, (12, 64))` of `(768, 12, 64)` is `(768, 768)`. The sizes are those of the axes.

    >>> from ptree.convert import merge_axes
    >>> merge_axes(1, (12, 64)).apply([np.ones((768, 12, 64))])[0].shape
    (768, 768)

    Args:
        first: the first axis that is merged.
        sizes: of the axes that are merged.
    """

    first: int
    sizes: tuple[int, ...]

    def check_options(self) -> None:
        _check_split(self.name, self.sizes)

    def change(self, array: np.ndarray) -> np.ndarray:
        first = axis_of(array, self.first, "merge_axes")
        last = first + len(self.sizes)
        merged = array.shape[first:last]
        if len(merged) < len(self.sizes) or _whole_sizes(prod(merged), self.sizes, array.shape) != merged:
            raise MisfitError(
                f"merge_axes needs {[*self.sizes]} from axis {self.first} on, and the array has the shape {[*array.shape]}"
            )
        return array.reshape(*array.shape[:first], prod(merged), *array.shape[last:])

    @property
    def inverse(self) -> Operation:
        axis = self.first if self.first >= 0 else self.first + len(self.sizes) - 1
        return SplitAxis(axis, self.sizes)


def _check_split(name: str, sizes: tuple[int, ...]) -> None:
    """Refuse sizes of which two are left out as -1, or one is negative."""
    require_sizes(name, tuple(size for size in sizes if size != -1) or (0,))
    if sizes.count(-1) > 1:
        raise PatternError(f"{name}: one size at most may be -1; got {sizes}")


def _whole_sizes(size: int, sizes: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The sizes into which an axis is split, with the one that is left out as -1 filled in."""
    given = [part for part in sizes if part != -1]
    rest = size // prod(given) if prod(given) else 0
    whole = tuple(rest if part == -1 else part for part in sizes)
    if len(sizes) - len(given) > 1 or prod(whole) != size:
        raise MisfitError(f"an axis of size {size} is not {[*sizes]}: the array has the shape {[*shape]}")
    return whole


@dataclass(frozen=True, repr=False)
class Depthwise(LayoutOfKernel):
    """The depthwise kernel of Keras: `(*window, in, multiplier)` -> `(*window, 1, in * multiplier)`.

    >>> from ptree.convert import depthwise
    >>> depthwise(2).apply([np.ones((3, 3, 8, 2))])[0].shape
    (3, 3, 1, 16)

    Args:
        multiplier: how many outputs each channel has.
    """

    multiplier: int = 1

    def check_options(self) -> None:
        require_count(self.name, "multiplier", self.multiplier)

    def change(self, array: np.ndarray) -> np.ndarray:
        require_axes(array, 2, "depthwise")
        if array.shape[-1] != self.multiplier:
            raise MisfitError(
                f"depthwise({self.multiplier}) needs this size at the end, and the shape is {[*array.shape]}"
            )
        return array.reshape(*array.shape[:-2], 1, array.shape[-2] * self.multiplier)

    @property
    def inverse(self) -> Operation:
        return DepthwiseBack(self.multiplier)


@dataclass(frozen=True, repr=False)
class DepthwiseBack(LayoutOfKernel):
    """The inverse of `depthwise`: `(*window, 1, in * multiplier)` -> `(*window, in, multiplier)`."""

    multiplier: int = 1

    def check_options(self) -> None:
        require_count(self.name, "multiplier", self.multiplier)

    def change(self, array: np.ndarray) -> np.ndarray:
        require_axes(array, 2, "depthwise_back")
        if array.shape[-2] != 1 or array.shape[-1] % self.multiplier:
            raise MisfitError(
                f"depthwise_back({self.multiplier}) needs (*window, 1, in * multiplier), not {[*array.shape]}"
            )
        return array.reshape(*array.shape[:-2], array.shape[-1] // self.multiplier, self.multiplier)

    @property
    def inverse(self) -> Operation:
        return Depthwise(self.multiplier)


@dataclass(frozen=True, repr=False)
class FlattenOrder(EachArray):
    """The rows of a matrix that reads flattened features, for another order of their axes.

    >>> from ptree.convert import flatten_order
    >>> flatten_order((2, 3), (1, 0)).apply([np.arange(6)])
    [array([0, 3, 1, 4, 2, 5])]

    `flatten_order((64, 7, 7), (1, 2, 0), axis=0)`: features that one framework flattened as (channels, height, width), and
    the other flattens as (height, width, channels). `axis` is the matrix' axis of features in.

    Args:
        sizes: of the axes before they were flattened, in the order of the source.
        order: for each axis of the target, which axis of the source it is.
        axis: the matrix' axis of features in.
    """

    sizes: tuple[int, ...]
    order: tuple[int, ...]
    axis: int = 0

    def check_options(self) -> None:
        require_sizes(self.name, self.sizes)
        if sorted(self.order) != list(range(len(self.sizes))):
            raise PatternError(
                f"flatten_order: the order {self.order} does not name each of {len(self.sizes)} axes once"
            )

    def change(self, array: np.ndarray) -> np.ndarray:
        axis = axis_of(array, self.axis, "flatten_order")
        apart = SplitAxis(axis, self.sizes).change(array)
        before, after = range(axis), range(axis + len(self.sizes), apart.ndim)
        turned = apart.transpose(*before, *(axis + moved for moved in self.order), *after)
        return turned.reshape(array.shape)

    @property
    def inverse(self) -> Operation:
        sizes = tuple(self.sizes[moved] for moved in self.order)
        back = tuple(int(moved) for moved in np.argsort(self.order))
        return FlattenOrder(sizes, back, self.axis)


@dataclass(frozen=True, repr=False)
class Reshape(EachArray):
    """Another shape of the same numbers in C order. Both shapes are said, so that nothing is reshaped by accident.

    >>> from ptree.convert import reshape
    >>> reshape((4, 2), (8,)).apply([np.ones((4, 2))])[0].shape
    (8,)

    Args:
        before: the shape in the source.
        after: the shape in the target.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]

    def check_options(self) -> None:
        for shape in (self.before, self.after):
            if shape:
                require_sizes(self.name, shape)
        if prod(self.before) != prod(self.after):
            raise PatternError(f"reshape: {[*self.before]} and {[*self.after]} have another number of elements")

    def change(self, array: np.ndarray) -> np.ndarray:
        if array.shape != self.before:
            raise MisfitError(f"reshape needs the shape {[*self.before]}, and the array has {[*array.shape]}")
        return array.reshape(self.after)

    @property
    def inverse(self) -> Operation:
        return Reshape(self.after, self.before)
