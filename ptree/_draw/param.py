"""Param: declare a parameter by shape, dtype and initialiser, and check that its dtype holds numbers; it is not drawn yet."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from .._errors import InitError
from .._numbers import whole_number
from .._tree import LEAF_TYPES
from .._words import describe, name_of

if TYPE_CHECKING:  # a sixth of the time of `import ptree`, which draws nothing
    from ..initializers import Initializer


@dataclass(frozen=True, repr=False)
class Param:
    """A parameter that is declared but not drawn yet: shape, dtype and initialiser.

    >>> Param((4, 8))
    Param(f32[4,8])
    >>> from ptree import initializers as I
    >>> Param((8,), "bfloat16", init=I.zeros, trainable=False)
    Param(bf16[8], init=zeros, trainable=False)

    A tree of these is a *spec*. One without an initialiser of its own needs a rule of `init`. A Param that is not
    `trainable` is drawn and saved like the rest; `ptree.mask(spec, lambda path, leaf: leaf.trainable)` is the mask.

    Args:
        shape: a tuple of sizes; one number is a shape with one axis.
        dtype: of JAX or NumPy, or its name.
        init: a function `(key, shape, dtype) -> array`, such as those of `ptree.initializers`.
        trainable: False for what no optimiser should change, such as running averages.

    Raises:
        InitError: a shape that is not a tuple of whole numbers of at least 0, an unknown dtype, or an initialiser
            that is no function.
    """

    shape: tuple[int, ...]
    dtype: DTypeLike = jnp.float32
    init: Initializer | None = None
    trainable: bool = True

    __module__ = "ptree"

    def __post_init__(self) -> None:
        # a frozen dataclass can be changed in no other way
        object.__setattr__(self, "shape", _checked_shape(self.shape))
        object.__setattr__(self, "dtype", _checked_dtype(self.dtype))
        if not isinstance(self.trainable, bool):
            raise InitError(f"trainable is True or False, got {describe(self.trainable)}")
        if self.init is not None and not callable(self.init):
            raise InitError(not_an_initializer(self.init))

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    def __repr__(self) -> str:
        init = "" if self.init is None else f", init={name_of(self.init)}"
        trainable = "" if self.trainable else ", trainable=False"
        return f"Param({describe(self)}{init}{trainable})"


def _checked_shape(shape: int | Sequence[int]) -> tuple[int, ...]:
    sizes = tuple(shape) if isinstance(shape, Sequence) else (shape,)
    if not all(map(_is_size, sizes)):
        raise InitError(f"bad shape {shape!r}: a shape is a tuple of whole numbers of at least 0")
    return tuple(map(operator.index, sizes))


def _is_size(size: object) -> bool:
    number = whole_number(size)
    return number is not None and number >= 0


def _checked_dtype(dtype: DTypeLike) -> np.dtype:
    problem = f"bad dtype {dtype!r}: use jnp.float32, 'bfloat16' or another dtype of numbers or bools"
    if dtype is None or not holds_numbers(dtype):  # NumPy reads None as float64
        raise InitError(problem)
    return jnp.dtype(dtype)


def holds_numbers(dtype: DTypeLike) -> bool:
    """Whether this is a dtype of numbers or bools; those of PRNG keys, strings and other libraries are not."""
    try:
        checked = jnp.dtype(dtype)
    except TypeError:
        return False
    return jnp.issubdtype(checked, np.number) or checked.kind == "b"


def not_an_initializer(value: object) -> str:
    """Describe the problem of a declared parameter whose `init` is not an initialiser."""
    problem = f"not an initialiser: {describe(value)}; an initialiser is a function (key, shape, dtype) -> array"
    if isinstance(value, (int, float)):
        return f"{problem}. Use initializers.constant({value!r})"
    return problem


LEAF_TYPES.add(Param)  # it is never registered with JAX: a walk need not ask, which takes half of its time
