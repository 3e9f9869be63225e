"""Value: an array of the traced function, as an ONNX tensor that may not be broadcast yet, or as a constant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np

Size: TypeAlias = Any
"""A size of an array: an int, or a symbolic expression of `jax.export.symbolic_shape`."""
Shape: TypeAlias = tuple[Size, ...]
Array: TypeAlias = Any
"""An array of NumPy; of JAX where NumPy has no such dtype, as for PRNG keys."""


class Shaped(Protocol):
    """Anything with the shape and dtype of an array."""

    @property
    def shape(self) -> Shape: ...
    @property
    def dtype(self) -> np.dtype: ...


@dataclass(frozen=True)
class ArrayType:
    """The shape and dtype of an array."""

    shape: Shape
    dtype: np.dtype


@dataclass(frozen=True, eq=False)
class Value:
    """An array of the traced function."""

    shape: Shape
    dtype: np.dtype
    tensor: str
    """The name of the ONNX tensor; empty for a constant that no node reads yet."""
    tensor_shape: Shape
    """The shape of the tensor, which broadcasts to `shape` by NumPy's rules.

    Most ONNX operations broadcast on their own, so that a bias need not be copied for each row of a batch.
    """
    constant: Array | None = None
    """Its numbers, of `tensor_shape`, where they are known at export."""

    @property
    def is_broadcast(self) -> bool:
        """Whether the tensor already has the whole shape."""
        return len(self.tensor_shape) == len(self.shape) and all(map(same_size, self.tensor_shape, self.shape))


def is_static(shape: Sequence[Size]) -> bool:
    """Whether all sizes are numbers."""
    return all(isinstance(size, (int, np.integer)) for size in shape)


def is_one(size: Size) -> bool:
    return isinstance(size, (int, np.integer)) and size == 1


def same_size(a: Size, b: Size) -> bool:
    """Whether two sizes are equal for all values of their symbols."""
    if isinstance(a, (int, np.integer)) and isinstance(b, (int, np.integer)):
        return a == b
    return str(a) == str(b)


def broadcast_shape(shapes: Sequence[Shape]) -> Shape:
    """The shape to which all of these shapes broadcast."""
    rank = max(map(len, shapes))
    sizes: list[Size] = [1] * rank
    for shape in shapes:
        for axis, size in enumerate(shape, rank - len(shape)):
            if not is_one(size):
                sizes[axis] = size
    return tuple(sizes)


def identity_element(operation: str, dtype: np.dtype) -> float:
    """The number that changes nothing in a "sum", a product ("mul"), a "max" or a "min" of numbers of a dtype."""
    if operation == "sum":
        return 0
    if operation == "mul":
        return 1
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return limits.min if operation == "max" else limits.max
    return -np.inf if operation == "max" else np.inf
