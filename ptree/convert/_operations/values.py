"""Operations on the numbers of an array: constants added, dtypes cast; arrays of zeros made; sums and norms that go one way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from ..._errors import PatternError
from ..._stored.dtypes import dtype_named
from .operation import Described, EachArray, MisfitError, Operation, axis_of
from .parts import Split


@dataclass(frozen=True, repr=False)
class Add(EachArray):
    """A constant added, as of a norm whose scale is stored less 1: `add(1.0)`.

    `part=(1, 4)` adds it to the second of four equal parts of the last axis alone, as of Haiku's forget gate. The way back is
    exact up to the rounding of the dtype.
    """

    constant: float
    part: tuple[int, int] | None = None

    def change(self, array: np.ndarray) -> np.ndarray:
        constant = np.asarray(self.constant, array.dtype)
        if self.part is None:
            return array + constant
        which, count = self.part
        parts = Split(count, -1).apply([array])
        parts[which] = parts[which] + constant
        return np.concatenate(parts, -1)

    def outcome(self, arrays: Sequence[Described]) -> list[Described]:
        if self.part is not None:
            for array in arrays:
                Split(self.part[1], -1).outcome([array])
        return [*arrays]

    @property
    def inverse(self) -> Operation:
        return Add(-self.constant, self.part)


@dataclass(frozen=True, repr=False)
class Cast(EachArray):
    """Another dtype: `cast("bfloat16", "float32")`, from the first to the second. Refuses what the new dtype does not hold."""

    before: str
    after: str

    def change(self, array: np.ndarray) -> np.ndarray:
        self._check(array.dtype)
        with np.errstate(over="ignore"):  # found below, with a message
            changed = array.astype(_dtype(self.after))
        wide = np.result_type(np.float32, array.dtype) if array.dtype.kind != "c" else array.dtype
        lost = np.isinf(changed.astype(wide)) & np.isfinite(array.astype(wide))
        if lost.any():
            raise MisfitError(f"cast to {self.after} would make {int(lost.sum())} numbers infinite")
        return changed

    def _check(self, dtype: np.dtype) -> None:
        if dtype != _dtype(self.before):
            raise MisfitError(f"cast is from {self.before}, and the array is {dtype}")

    def outcome(self, arrays: Sequence[Described]) -> list[Described]:
        for array in arrays:
            self._check(array.dtype)
        return [Described(array.shape, _dtype(self.after)) for array in arrays]

    @property
    def inverse(self) -> Operation:
        return Cast(self.after, self.before)

    @property
    def is_one_way(self) -> bool:
        # A dtype holds all numbers of another if nothing changes in `before -> after -> before`: floats by their digits and range.
        before, after = _dtype(self.before), _dtype(self.after)
        try:
            narrow, wide = ml_dtypes.finfo(before), ml_dtypes.finfo(after)
        except ValueError:
            return not np.can_cast(before, after, "safe")
        return wide.nmant < narrow.nmant or wide.maxexp < narrow.maxexp


def _dtype(name: str) -> np.dtype:
    try:
        return dtype_named(name)
    except TypeError:
        raise PatternError(f"cast: {name!r} is no dtype") from None


@dataclass(frozen=True, repr=False)
class ZeroFill(Operation):
    """An array, and after it `count` arrays of zeros of its shape: one bias for a layer that has two.

    On the way back the others must be zero: `summed` takes any, and goes one way.
    """

    count: int = 1

    def apply(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [arrays[0], *(np.zeros_like(arrays[0]) for _ in range(self.count))]

    def outcome(self, arrays: Sequence[Described]) -> list[Described]:
        return [arrays[0]] * (1 + self.count)

    @property
    def inverse(self) -> Operation:
        return TakeFirst(self.count)

    @property
    def arity(self) -> tuple[int, int]:
        return 1, 1 + self.count


@dataclass(frozen=True, repr=False)
class TakeFirst(Operation):
    """The first array, where all others are zero: the inverse of `zero_fill`."""

    count: int = 1

    def apply(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        self.outcome([Described(array.shape, array.dtype) for array in arrays])
        for position, array in enumerate(arrays[1:], 1):
            if array.any():
                raise MisfitError(
                    f"array {position} of {len(arrays)} is not zero, and the other side has no place for it"
                )
        return [arrays[0]]

    def outcome(self, arrays: Sequence[Described]) -> list[Described]:
        return [_of_one_shape(arrays, "take_first")]

    @property
    def inverse(self) -> Operation:
        return ZeroFill(self.count)

    @property
    def arity(self) -> tuple[int, int]:
        return 1 + self.count, 1


@dataclass(frozen=True, repr=False)
class Summed(Operation):
    """The sum of `count` arrays, as of the two biases of PyTorch's LSTM. One way: back come the sum and zeros."""

    count: int = 2

    def apply(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        self.outcome([Described(array.shape, array.dtype) for array in arrays])
        total = arrays[0]
        for array in arrays[1:]:
            total = total + array
        return [total]

    def outcome(self, arrays: Sequence[Described]) -> list[Described]:
        return [_of_one_shape(arrays, "summed")]

    @property
    def inverse(self) -> Operation:
        return Unsummed(self.count)

    @property
    def is_one_way(self) -> bool:
        return True

    @property
    def arity(self) -> tuple[int, int]:
        return self.count, 1


@dataclass(frozen=True, repr=False)
class Unsummed(Operation):
    """An array, and after it zeros, `count` arrays in all whose sum it is: one bias for a layer that adds two.

    On the way back comes their sum, whatever they are. (`zero_fill` is for arrays that mean other things: it refuses all but zeros.)
    """

    count: int = 2

    def apply(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [arrays[0], *(np.zeros_like(arrays[0]) for _ in range(self.count - 1))]

    def outcome(self, arrays: Sequence[Described]) -> list[Described]:
        return [arrays[0]] * self.count

    @property
    def inverse(self) -> Operation:
        return Summed(self.count)

    @property
    def arity(self) -> tuple[int, int]:
        return 1, self.count


@dataclass(frozen=True, repr=False)
class First(Operation):
    """The first of `count` arrays that hold the same statistic, as of Haiku's averages. One way: back come copies of it."""

    count: int = 2

    def apply(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [arrays[0]]

    def outcome(self, arrays: Sequence[Described]) -> list[Described]:
        return [_of_one_shape(arrays, "first")]

    @property
    def inverse(self) -> Operation:
        return Copies(self.count)

    @property
    def is_one_way(self) -> bool:
        return True

    @property
    def arity(self) -> tuple[int, int]:
        return self.count, 1


@dataclass(frozen=True, repr=False)
class Copies(Operation):
    """An array `count` times: the inverse of `first`."""

    count: int = 2

    def apply(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [arrays[0]] * self.count

    @property
    def inverse(self) -> Operation:
        return First(self.count)

    @property
    def arity(self) -> tuple[int, int]:
        return 1, self.count


@dataclass(frozen=True, repr=False)
class WeightNorm(Operation):
    """The weight `g * v / ||v||` of a magnitude `g` and a direction `v`; norms are taken over all axes but `axis`.

    One way: back come the norms of the weight and the weight itself, which give the same weight
    (Salimans and Kingma 2016, https://arxiv.org/abs/1602.07868, equation 2).
    """

    axis: int = 0

    def apply(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        self.outcome([Described(array.shape, array.dtype) for array in arrays])
        magnitude, direction = arrays
        return [(magnitude * (direction / _norms(direction, self.axis))).astype(direction.dtype)]

    def outcome(self, arrays: Sequence[Described]) -> list[Described]:
        if len(arrays) != 2:
            raise MisfitError(f"weight_norm takes the magnitude and the direction, not {len(arrays)} arrays")
        magnitude, direction = arrays
        axis = axis_of(direction, self.axis, "weight_norm")
        shape = tuple(size if at == axis else 1 for at, size in enumerate(direction.shape))
        if magnitude.shape != shape:
            raise MisfitError(f"weight_norm needs a magnitude of the shape {[*shape]}, not {[*magnitude.shape]}")
        return [direction]

    @property
    def inverse(self) -> Operation:
        return WeightNormBack(self.axis)

    @property
    def is_one_way(self) -> bool:
        return True

    @property
    def arity(self) -> tuple[int, int]:
        return 2, 1


@dataclass(frozen=True, repr=False)
class WeightNormBack(Operation):
    """The norms of a weight, and the weight itself, as a magnitude and a direction."""

    axis: int = 0

    def apply(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        (weight,) = arrays
        return [_norms(weight, self.axis), weight]

    def outcome(self, arrays: Sequence[Described]) -> list[Described]:
        (weight,) = arrays
        axis = axis_of(weight, self.axis, "weight_norm_back")
        shape = tuple(size if at == axis else 1 for at, size in enumerate(weight.shape))
        return [Described(shape, weight.dtype), weight]

    @property
    def inverse(self) -> Operation:
        return WeightNorm(self.axis)

    @property
    def arity(self) -> tuple[int, int]:
        return 1, 2


def _norms(array: np.ndarray, axis: int) -> np.ndarray:
    others = tuple(at for at in range(array.ndim) if at != axis % array.ndim)
    squares = np.square(array.astype(np.float64)).sum(others, keepdims=True)
    return np.sqrt(squares).astype(array.dtype)


def _of_one_shape(arrays: Sequence[Described], name: str) -> Described:
    if any(array != arrays[0] for array in arrays):
        shapes = ", ".join(f"{array.dtype}{[*array.shape]}" for array in arrays)
        raise MisfitError(f"{name} needs arrays of one shape and dtype, and they are {shapes}")
    return arrays[0]


@dataclass(frozen=True, repr=False)
class Carry(Operation):
    """Keeps an array that the other side has no place for, so that it can be written back: `table.carried(source)`."""

    def apply(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return []

    def outcome(self, arrays: Sequence[Described]) -> list[Described]:
        return []

    @property
    def inverse(self) -> Operation:
        return WriteBack()

    @property
    def arity(self) -> tuple[int, int]:
        return 1, 0


@dataclass(frozen=True, repr=False)
class WriteBack(Operation):
    """The inverse of `carry`: the array that was kept."""

    def apply(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return []

    @property
    def inverse(self) -> Operation:
        return Carry()

    @property
    def arity(self) -> tuple[int, int]:
        return 0, 1


@dataclass(frozen=True, repr=False)
class Fill(Operation):
    """Leaves an array out, and writes one of this constant on the way back: PyTorch's `num_batches_tracked`."""

    constant: float = 0
    dtype: str = "float32"
    shape: tuple[int, ...] = ()

    def apply(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return []

    @property
    def inverse(self) -> Operation:
        return Constant(self.constant, self.dtype, self.shape)

    @property
    def is_one_way(self) -> bool:
        return True

    @property
    def arity(self) -> tuple[int, int]:
        return 1, 0


@dataclass(frozen=True, repr=False)
class Constant(Operation):
    """An array of one constant, which no array of the source gives."""

    constant: float = 0
    dtype: str = "float32"
    shape: tuple[int, ...] = ()

    def apply(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [np.full(self.shape, self.constant, _dtype(self.dtype))]

    def outcome(self, arrays: Sequence[Described]) -> list[Described]:
        return [Described(self.shape, _dtype(self.dtype))]

    @property
    def inverse(self) -> Operation:
        return Fill(self.constant, self.dtype, self.shape)

    @property
    def arity(self) -> tuple[int, int]:
        return 0, 1
