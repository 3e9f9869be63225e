"""Operation, the base class: a change of arrays and of their shapes, with an inverse; chains of operations."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from typing import NamedTuple

import numpy as np

from ..._errors import PatternError
from ..._words import quoted
from .options import check_kind, plain


class Described(NamedTuple):
    """The shape and dtype of an array."""

    shape: tuple[int, ...]
    dtype: np.dtype


class MisfitError(ValueError):
    """Error for arrays to which an operation cannot be applied; a plan collects them."""


class Operation(ABC):
    """A change of one or several arrays that can be undone: `inverse` is the operation of the way back.

    Operations are frozen: equal when their options are. `a >> b` applies `a`, then `b`. What changes one array is applied to
    each array that it is given.
    """

    def __post_init__(self) -> None:
        for field in fields(self):  # pyright: ignore[reportArgumentType]  # each operation is a dataclass
            value = plain(getattr(self, field.name))
            object.__setattr__(self, field.name, value)
            check_kind(self.name, field.name, str(field.type), value)
        self.check_options()

    def check_options(self) -> None:  # noqa: B027 - most operations have nothing more to check
        """Refuse options that make no sense; their types are checked already.

        Raises:
            PatternError: which option, and what was expected.
        """

    @property
    def name(self) -> str:
        """The public name: `split_axis` of `SplitAxis`."""
        return public_name(type(self))

    @abstractmethod
    def apply(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The changed arrays: views of the given ones where NumPy can, else copies. Nothing is written into an argument.

        Raises:
            MisfitError: the operation cannot be applied to arrays of these shapes, or of these values.
        """

    def outcome(self, arrays: Sequence[Described]) -> list[Described]:
        """The shapes and dtypes that `apply` gives for arrays of these.

        Raises:
            MisfitError: the operation cannot be applied to them.
        """
        # Arrays without memory of their own: one number, repeated with strides of 0. Operations that copy override this.
        stand_ins = [np.broadcast_to(np.zeros((), dtype), shape) for shape, dtype in arrays]
        return [Described(changed.shape, changed.dtype) for changed in self.apply(stand_ins)]

    @property
    @abstractmethod
    def inverse(self) -> Operation:
        """The operation that undoes this one; for a one-way operation the nearest one."""

    @property
    def is_one_way(self) -> bool:
        """Whether the arrays that it is given cannot be got back from those that it gives."""
        return False

    @property
    def says_layout(self) -> bool:
        """Whether it says how a kernel lies in the source, so that a square one is not taken as it is by mistake."""
        return False

    @property
    def is_carried(self) -> bool:
        """Whether it keeps an array to be written back; `is_written_back` is the same of its inverse."""
        return False

    @property
    def is_written_back(self) -> bool:
        """Whether it writes an array that was kept."""
        return False

    @property
    def arity(self) -> tuple[int, int] | None:
        """How many arrays it takes and how many it gives; None if it is applied to each array by itself."""
        return None

    def __rshift__(self, after: Operation) -> Operation:
        if not isinstance(after, Operation):
            raise PatternError(f"{self!r} >> {quoted(after)}: expected an operation after `>>`, such as heads(12)")
        # an `as_is` that is written stays: it says of a square kernel that it is not transposed
        if isinstance(self, AsIs) == isinstance(after, AsIs):
            return chain(self, after)
        return Chain((*steps_of(self), *steps_of(after)))

    def __repr__(self) -> str:
        """The operation as it is written: `linear`, `split(3)`, `split(3, axis=1)`."""
        options: list[str] = []
        for field in fields(self):  # pyright: ignore[reportArgumentType]  # each operation is a dataclass
            value = getattr(self, field.name)
            if field.default is MISSING:
                options.append(repr(value))
            elif value != field.default:
                options.append(f"{field.name}={value!r}")
        return f"{self.name}({', '.join(options)})" if fields(self) else self.name  # pyright: ignore[reportArgumentType]


def public_name(operation: type[Operation]) -> str:
    """The public name of a class of operations: `split_axis` of `SplitAxis`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", operation.__name__).lower()


class EachArray(Operation):
    """Base class of the operations that change one array at a time."""

    @abstractmethod
    def change(self, array: np.ndarray) -> np.ndarray:
        """The changed array."""

    def apply(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [self.change(array) for array in arrays]


@dataclass(frozen=True, repr=False)
class AsIs(EachArray):
    """No change: says of a square kernel that it is not to be transposed.

    >>> from ptree.convert import as_is
    >>> as_is.apply([np.ones((8, 4))])[0].shape
    (8, 4)
    """

    def change(self, array: np.ndarray) -> np.ndarray:
        return array

    @property
    def says_layout(self) -> bool:
        return True

    @property
    def inverse(self) -> Operation:
        return self


@dataclass(frozen=True, repr=False)
class Chain(Operation):
    """Operations one after the other: `linear >> heads(12)`."""

    steps: tuple[Operation, ...]

    def check_options(self) -> None:
        alone = [step for step in self.steps if step.arity is not None and 0 in step.arity]
        if alone:
            raise PatternError(f"{self!r}: {alone[0]!r} takes or gives no array, so it stands alone in its row")

    def apply(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        changed = [*arrays]
        for step in self.steps:
            changed = step.apply(changed)
        return changed

    def outcome(self, arrays: Sequence[Described]) -> list[Described]:
        changed = [*arrays]
        for step in self.steps:
            changed = step.outcome(changed)
        return changed

    @property
    def inverse(self) -> Operation:
        return Chain(tuple(step.inverse for step in reversed(self.steps)))

    @property
    def is_one_way(self) -> bool:
        return any(step.is_one_way for step in self.steps)

    @property
    def says_layout(self) -> bool:
        return any(step.says_layout for step in self.steps)

    @property
    def arity(self) -> tuple[int, int] | None:
        counts = [step.arity for step in self.steps]
        counted = [arity for arity in counts if arity is not None]
        if not counted:
            return None
        return counted[0][0], counted[-1][1]

    def __repr__(self) -> str:
        return " >> ".join(map(repr, self.steps))


def steps_of(operation: Operation) -> tuple[Operation, ...]:
    """The operations of a chain; any other operation alone."""
    return operation.steps if isinstance(operation, Chain) else (operation,)


def chain(*operations: Operation) -> Operation:
    """Operations one after the other, as one; `as_is` is left out."""
    steps: list[Operation] = []
    for operation in operations:
        if isinstance(operation, Chain):
            steps += operation.steps
        elif not isinstance(operation, AsIs):
            steps.append(operation)
    if not steps:
        return AsIs()
    return steps[0] if len(steps) == 1 else Chain(tuple(steps))


def shown(array: Described) -> str:
    """A shape and dtype for a message: `float32[3, 4]`."""
    return f"{array.dtype}{[*array.shape]}"


def require_axes(array: np.ndarray, least: int, name: str) -> None:
    """Refuse an array of fewer axes than an operation needs."""
    if array.ndim < least:
        raise MisfitError(f"{name} needs {least} axes or more, and the array has the shape {[*array.shape]}")


def axis_of(array: np.ndarray | Described, axis: int, name: str) -> int:
    """An axis counted from the front; refuses one that the array does not have."""
    rank = len(array.shape)
    if not -rank <= axis < rank:
        raise MisfitError(f"{name} needs axis {axis}, and the array has the shape {[*array.shape]}")
    return axis % rank


def of_one_shape(arrays: Sequence[Described], name: str) -> Described:
    """The one shape and dtype of several arrays; refuses arrays that differ in them."""
    if any(array != arrays[0] for array in arrays):
        raise MisfitError(f"{name} needs arrays of one shape and dtype, and they are {', '.join(map(shown, arrays))}")
    return arrays[0]
