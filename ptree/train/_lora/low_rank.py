"""LowRank, the kernel that low-rank adaptation puts in the place of another: `base + scale * a @ b`, which is never computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from operator import matmul
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from ..._errors import TieError
from ..._words import describe
from ...nn._products import DerivedKernel, Multiply, X


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False, repr=False)
class LowRank(DerivedKernel):
    """A kernel plus a product of two factors, `base + scale * a @ b`, that stands in the kernel's place.

    `base` is (layers..., in..., out...), `a` (layers..., in..., rank) and `b` (layers..., rank, out...). A product with it is
    `x @ base + scale * (x @ a) @ b`. In a function that is written by hand `x @ kernel` works, and `table[ids]`;
    `kernel.array()` is the sum, for all else.
    """

    base: jax.Array
    a: jax.Array
    b: jax.Array
    scale: float = field(default=1.0, metadata={"static": True})
    inputs: int = field(default=1, metadata={"static": True})  # pyright: ignore[reportIncompatibleMethodOverride]

    __array_ufunc__ = None  # NumPy's arrays leave `x @ kernel` to this class

    @property
    def shape(self) -> tuple[int, ...]:
        return self.base.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the base, as JAX has it: of NumPy's 64 bits 32, unless these are enabled."""
        return jax.dtypes.canonicalize_dtype(self.base.dtype)

    @property
    def split_like(self) -> jax.Array:
        return self.base

    @property
    def size(self) -> int:
        """The number of elements of the kernel that it stands for."""
        return math.prod(self.shape)

    @property
    def rank(self) -> int:
        """The rank of the product of the factors."""
        return self.a.shape[-1]

    def astype(self, dtype: DTypeLike) -> Self:
        return replace(self, base=self.base.astype(dtype), a=self.a.astype(dtype), b=self.b.astype(dtype))

    def array(self) -> jax.Array:
        """The kernel itself as one array, of the dtype of the base. The sum is taken in the dtype of the factors."""
        layers = self.base.shape[: self._layer_axes]
        features_in = math.prod(self.a.shape[self._layer_axes : -1])
        a = self.a.reshape(*layers, features_in, self.rank)
        b = self.b.reshape(*layers, self.rank, -1)
        # Computed once, so with all digits that a GPU has: kernels are merged to be kept.
        change = jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST).reshape(self.shape)
        # By name, as JAX promotes no floats of 8 bits.
        return (self.base.astype(change.dtype) + self.scale * change).astype(self.dtype)

    def multiplied(self, x: X, multiply: Multiply[X], groups: int) -> jax.Array:
        if groups == 1:
            narrow = multiply(x, self.a)
            return multiply(x, self.base) + self._scaled(narrow) @ self.b.reshape(self.rank, -1)
        # A group sees its own features alone, so each has a product of its own with the one factor `a`.
        narrow = multiply(x, jnp.concatenate([self.a] * groups, axis=-1))
        narrow = narrow.reshape(*narrow.shape[:-1], groups, self.rank)
        b = self.b.reshape(self.rank, groups, -1)
        change = jnp.einsum("...gr,rgo->...go", self._scaled(narrow), b)
        return multiply(x, self.base) + change.reshape(*change.shape[:-2], -1)

    def transpose(self, *axes: int) -> Self:
        """The kernel with all axes in this order, in which the axes that it sums over stay side by side, first or last.

        Raises:
            TieError: another order.
        """
        before, inputs = self._layer_axes, self.inputs
        layers = tuple(range(before))
        axes_in = tuple(range(before, before + inputs))
        axes_out = tuple(range(before + inputs, self.ndim))
        order = axes[before:]
        if axes[:before] == layers and set(order[:inputs]) == {*axes_in}:
            a = self.a.transpose(*layers, *order[:inputs], before + inputs)
            outputs = [axis - inputs + 1 for axis in order[inputs:]]
            return replace(self, base=self.base.transpose(axes), a=a, b=self.b.transpose(*layers, before, *outputs))
        count = len(axes_out)
        if axes[:before] == layers and set(order[:count]) == {*axes_out}:
            outputs = [axis - inputs + 1 for axis in order[:count]]
            a = self.b.transpose(*layers, *outputs, before)
            b = self.a.transpose(*layers, before + inputs, *order[count:])
            return replace(self, base=self.base.transpose(axes), a=a, b=b, inputs=count)
        raise TieError(
            f"{self!r} cannot be seen with its axes in the order {axes}: the {inputs} that are summed over stay side by side"
        )

    def __rmatmul__(self, x: jax.Array) -> jax.Array:
        self._check_is_one_matrix("x @ kernel")
        # As with an array, the factors add no digits to the result: they may be of a wider dtype than the base.
        kernel = self.astype(jnp.result_type(x, self.dtype))
        return kernel.multiplied(jnp.asarray(x, kernel.dtype), matmul, 1)

    def __getitem__(self, rows: jax.Array | Sequence[int] | int) -> jax.Array:
        self._check_is_one_matrix("kernel[rows]")
        if rows is None or rows is Ellipsis or isinstance(rows, tuple | slice):
            raise TypeError(
                f"a low-rank table takes the numbers of rows, table[ids], got [{rows}]; take table.array()[...]"
            )
        return self.astype(self.dtype).multiplied(jnp.asarray(rows), lambda rows, table: table[rows], 1)

    def _check_is_one_matrix(self, what: str) -> None:
        if self.ndim != 2:
            raise TypeError(
                f"{what} is defined for a low-rank kernel of two axes, and this is {self!r}; take kernel.array()"
            )

    def _scaled(self, narrow: jax.Array) -> jax.Array:
        return narrow if self.scale == 1 else narrow * self.scale

    @property
    def _layer_axes(self) -> int:
        """How many axes count the layers of stacks; they are the first."""
        return self.a.ndim - 1 - self.inputs

    def __repr__(self) -> str:
        return f"LowRank({describe(self)}, rank={self.rank}, scale={self.scale:g})"
