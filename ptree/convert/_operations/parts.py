"""Operations on the parts of an array along an axis: split, concatenate, take gates in another order, repeat; and stacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from ..._errors import PatternError
from .operation import Described, EachArray, MisfitError, Operation, axis_of, require_axes, shown
from .options import require_count, require_sizes


@dataclass(frozen=True, repr=False)
class Split(Operation):
    """One array as several along an axis: `split(3)` of a fused `(3 * features, in)`, or with sizes `split((768, 64, 64))`.

    >>> from ptree.convert import split
    >>> [part.shape for part in split(3).apply([np.ones((6, 4))])]
    [(2, 4), (2, 4), (2, 4)]

    Args:
        parts: how many equal parts, or the size of each.
        axis: the axis that is split.
    """

    parts: int | tuple[int, ...]
    axis: int = 0

    def check_options(self) -> None:
        if isinstance(self.parts, tuple):
            require_sizes(self.name, self.parts)
        else:
            require_count(self.name, "parts", self.parts)

    def apply(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        array = _only(arrays, "split")
        axis = axis_of(array, self.axis, "split")
        sizes = self._sizes(array.shape[axis], array.shape)
        return np.split(array, [*accumulate(sizes)][:-1], axis)

    def _sizes(self, size: int, shape: tuple[int, ...]) -> tuple[int, ...]:
        if isinstance(self.parts, tuple):
            if sum(self.parts) != size:
                raise MisfitError(
                    f"split needs {sum(self.parts)} at axis {self.axis}, and the array has the shape {[*shape]}"
                )
            return self.parts
        if size % self.parts:
            raise MisfitError(
                f"axis {self.axis} is not divided into {self.parts} parts: the array has the shape {[*shape]}"
            )
        return (size // self.parts,) * self.parts

    @property
    def says_layout(self) -> bool:
        return self.axis in (1, -1)  # a fused matrix is split along its features

    @property
    def inverse(self) -> Operation:
        return Concatenate(self.parts, self.axis)

    @property
    def arity(self) -> tuple[int, int]:
        return 1, self.parts if isinstance(self.parts, int) else len(self.parts)


@dataclass(frozen=True, repr=False)
class Concatenate(Operation):
    """Several arrays as one along an axis: `concatenate(3)` of arrays of one size, or with their sizes `concatenate((768, 64, 64))`.

    >>> from ptree.convert import concatenate
    >>> concatenate((1, 3)).apply([np.ones((1, 4)), np.ones((3, 4))])[0].shape
    (4, 4)

    Args:
        parts: how many arrays of one size, or the size of each.
        axis: the axis along which they are joined.
    """

    parts: int | tuple[int, ...]
    axis: int = 0

    def check_options(self) -> None:
        if isinstance(self.parts, tuple):
            require_sizes(self.name, self.parts)
        else:
            require_count(self.name, "parts", self.parts)

    def apply(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        self.outcome([Described(array.shape, array.dtype) for array in arrays])
        return [np.concatenate(arrays, self.axis)]

    def outcome(self, arrays: Sequence[Described]) -> list[Described]:
        first, axis = arrays[0], axis_of(arrays[0], self.axis, "concatenate")
        shapes = ", ".join(str([*array.shape]) for array in arrays)
        for array in arrays:
            others = (*array.shape[:axis], *array.shape[axis + 1 :])
            has_same_rank = len(array.shape) == len(first.shape)
            if not has_same_rank or others != (*first.shape[:axis], *first.shape[axis + 1 :]):
                raise MisfitError(
                    f"concatenate needs arrays that differ in axis {self.axis} alone, and they are {shapes}"
                )
            if array.dtype != first.dtype:
                raise MisfitError(
                    f"concatenate needs arrays of one dtype, and they are {first.dtype} and {array.dtype}"
                )
        sizes = tuple(array.shape[axis] for array in arrays)
        is_even = isinstance(self.parts, int) and len({*sizes}) == 1 and len(sizes) == self.parts
        if not is_even and sizes != self.parts:
            raise MisfitError(f"concatenate({self.parts}) does not fit arrays of the shapes {shapes}")
        return [Described((*first.shape[:axis], sum(sizes), *first.shape[axis + 1 :]), first.dtype)]

    @property
    def says_layout(self) -> bool:
        return self.axis in (1, -1)  # a fused matrix is split along its features

    @property
    def inverse(self) -> Operation:
        return Split(self.parts, self.axis)

    @property
    def arity(self) -> tuple[int, int]:
        return self.parts if isinstance(self.parts, int) else len(self.parts), 1


@dataclass(frozen=True, repr=False)
class Gates(EachArray):
    """The equal parts of an axis, each with a letter, in another order: `gates("zrn", "rzn")` of a GRU of Keras.

    >>> from ptree.convert import gates
    >>> gates("zrn", "rzn").apply([np.arange(6)])
    [array([2, 3, 0, 1, 4, 5])]

    Args:
        before: the order in the source, a letter for each part.
        after: the order in the target.
        axis: the axis of the gates.
    """

    before: str
    after: str
    axis: int = -1

    def check_options(self) -> None:
        if sorted(self.before) != sorted(self.after) or len({*self.before}) < len(self.before):
            raise PatternError(f"gates({self.before!r}, {self.after!r}): expected the same letters, each once")

    def change(self, array: np.ndarray) -> np.ndarray:
        parts = Split(len(self.before), self.axis).apply([array])
        return np.concatenate([parts[self.before.index(letter)] for letter in self.after], self.axis)

    def outcome(self, arrays: Sequence[Described]) -> list[Described]:
        for array in arrays:
            Split(len(self.before), self.axis).outcome([array])
        return [*arrays]

    @property
    def inverse(self) -> Operation:
        return Gates(self.after, self.before, self.axis)


@dataclass(frozen=True, repr=False)
class Stack(Operation):
    """Arrays of one shape as one array with a new axis in front, as of layers or experts that lie together: `stack(8)`.

    >>> from ptree.convert import stack
    >>> stack(2).apply([np.ones(4), np.zeros(4)])[0].shape
    (2, 4)

    Args:
        count: how many arrays.
        axis: the place of the new axis.
    """

    count: int
    axis: int = 0

    def check_options(self) -> None:
        require_count(self.name, "count", self.count)

    def apply(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        self.outcome([Described(array.shape, array.dtype) for array in arrays])
        return [np.stack(arrays, self.axis)]

    def outcome(self, arrays: Sequence[Described]) -> list[Described]:
        first = arrays[0]
        if len(arrays) != self.count or any(array != first for array in arrays):
            shapes = ", ".join(map(shown, arrays))
            raise MisfitError(f"stack({self.count}) needs as many arrays of one shape and dtype, and they are {shapes}")
        if not -len(first.shape) - 1 <= self.axis <= len(first.shape):
            raise MisfitError(f"stack cannot make axis {self.axis} of arrays of the shape {[*first.shape]}")
        axis = self.axis % (len(first.shape) + 1)
        return [Described((*first.shape[:axis], self.count, *first.shape[axis:]), first.dtype)]

    @property
    def inverse(self) -> Operation:
        return Unstack(self.count, self.axis)

    @property
    def arity(self) -> tuple[int, int]:
        return self.count, 1


_ONE_BIAS = (
    "; if it is the bias of a GRU of Keras, that has reset_after=False: it resets the state before the product, which nn.GRU"
    " does not, so its weights fit no nn.GRU"
)


@dataclass(frozen=True, repr=False)
class Unstack(Operation):
    """One array as several, an array for each index of an axis: the inverse of `stack`.

    >>> from ptree.convert import unstack
    >>> unstack(2).apply([np.eye(2)])
    [array([1., 0.]), array([0., 1.])]

    Args:
        count: how many arrays.
        axis: the axis that goes.
    """

    count: int
    axis: int = 0

    def check_options(self) -> None:
        require_count(self.name, "count", self.count)

    def apply(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        array = _only(arrays, "unstack")
        axis = axis_of(array, self.axis, "unstack")
        if array.shape[axis] != self.count:
            raise MisfitError(
                f"unstack needs {self.count} at axis {self.axis}, and the array has the shape {[*array.shape]}"
                f"{_ONE_BIAS if array.ndim == 1 and self.count == 2 else ''}"
            )
        return [*np.moveaxis(array, axis, 0)]

    @property
    def inverse(self) -> Operation:
        return Stack(self.count, self.axis)

    @property
    def arity(self) -> tuple[int, int]:
        return 1, self.count


@dataclass(frozen=True, repr=False)
class Repeat(EachArray):
    """Each number of an axis `count` times: one scale for each group of Gluon -> one for each channel.

    >>> from ptree.convert import repeat
    >>> repeat(2).apply([np.arange(3)])
    [array([0, 0, 1, 1, 2, 2])]

    On the way back the repeated numbers must be equal.

    Args:
        count: how often each number stands in the result.
        axis: the axis along which it is repeated.
    """

    count: int
    axis: int = 0

    def check_options(self) -> None:
        require_count(self.name, "count", self.count)

    def change(self, array: np.ndarray) -> np.ndarray:
        return np.repeat(array, self.count, axis_of(array, self.axis, "repeat"))

    def outcome(self, arrays: Sequence[Described]) -> list[Described]:
        repeated: list[Described] = []
        for array in arrays:
            axis = axis_of(array, self.axis, "repeat")
            shape = (*array.shape[:axis], array.shape[axis] * self.count, *array.shape[axis + 1 :])
            repeated.append(Described(shape, array.dtype))
        return repeated

    @property
    def inverse(self) -> Operation:
        return Unrepeat(self.count, self.axis)


@dataclass(frozen=True, repr=False)
class Unrepeat(EachArray):
    """The inverse of `repeat`; refuses numbers that differ within a group."""

    count: int
    axis: int = 0

    def check_options(self) -> None:
        require_count(self.name, "count", self.count)

    def change(self, array: np.ndarray) -> np.ndarray:
        require_axes(array, 1, "unrepeat")
        axis = axis_of(array, self.axis, "unrepeat")
        if array.shape[axis] % self.count:
            raise MisfitError(
                f"axis {self.axis} is not divided by {self.count}: the array has the shape {[*array.shape]}"
            )
        groups = array.reshape(*array.shape[:axis], -1, self.count, *array.shape[axis + 1 :])
        first = np.take(groups, 0, axis + 1)
        if not np.array_equal(groups, np.broadcast_to(np.expand_dims(first, axis + 1), groups.shape), equal_nan=True):
            raise MisfitError(
                f"the numbers of a group of {self.count} differ, and the other side has one number for a group"
            )
        return first

    def outcome(self, arrays: Sequence[Described]) -> list[Described]:
        shrunk: list[Described] = []
        for array in arrays:
            axis = axis_of(array, self.axis, "unrepeat")
            if array.shape[axis] % self.count:
                raise MisfitError(
                    f"axis {self.axis} is not divided by {self.count}: the array has the shape {[*array.shape]}"
                )
            shape = (*array.shape[:axis], array.shape[axis] // self.count, *array.shape[axis + 1 :])
            shrunk.append(Described(shape, array.dtype))
        return shrunk

    @property
    def inverse(self) -> Operation:
        return Repeat(self.count, self.axis)


def _only(arrays: Sequence[np.ndarray], name: str) -> np.ndarray:
    if len(arrays) != 1:
        raise MisfitError(f"{name} takes one array, not {len(arrays)}")
    return arrays[0]
