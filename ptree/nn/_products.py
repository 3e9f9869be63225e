"""Multiply the input of a layer with its kernel: an array as it is, a derived kernel, such as a low-rank one, by its parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self, TypeAlias, TypeVar

import jax
from jax.typing import DTypeLike

from .._errors import LayerError
from .._tree import DerivedLeaf
from .._words import describe
from ._layer import Layer

X = TypeVar("X")
Multiply: TypeAlias = Callable[[X, jax.Array], jax.Array]
"""A layer's product of an input and a kernel, linear in the kernel: a matrix product, a convolution, a lookup of rows.

It takes kernels of any number of features, which are the last axis of what it gives.
"""


class DerivedKernel(DerivedLeaf):
    """Base of kernels that are computed from other arrays, and multiply without computing the kernel itself.

    One stands in the place of a kernel in a layer's parameters. It is a node for JAX, so that `jax.lax.scan` slices the
    arrays inside for each layer of a stack.
    """

    @property
    def inputs(self) -> int:
        """How many axes of one layer's kernel the product sums over; they are the first."""
        raise NotImplementedError(f"{type(self).__name__} has no `inputs`")

    def astype(self, dtype: DTypeLike) -> Self:
        """The same kernel in another dtype."""
        raise NotImplementedError(f"{type(self).__name__} has no `astype`")

    @property
    def T(self) -> Self:  # noqa: N802
        return self.transpose(*reversed(range(self.ndim)))

    def multiplied(self, x: X, multiply: Multiply[X], groups: int) -> jax.Array:
        """The product of an input with this kernel, in terms of products with arrays.

        Args:
            multiply: the layer's product, of which the last axis are all features of the kernel.
            groups: how many groups of features the product keeps apart, as a grouped convolution does.
        """
        raise NotImplementedError(f"{type(self).__name__} has no `multiplied`")


def product(
    layer: Layer,
    x: X,
    kernel: jax.Array | DerivedKernel,
    multiply: Multiply[X],
    *,
    inputs: int = 1,
    groups: int = 1,
) -> jax.Array:
    """The product of a layer's input with its kernel, `multiply(x, kernel)`; a derived kernel is asked how it multiplies.

    Args:
        inputs: how many axes of the kernel the product sums over.
        groups: how many groups of features it keeps apart.

    Raises:
        LayerError: a derived kernel that sums over another number of axes.
    """
    if not isinstance(kernel, DerivedKernel):
        return multiply(x, kernel)
    if kernel.inputs != inputs:
        expected = f"a kernel {describe(kernel)} with inputs={inputs}, the axes that are summed over"
        raise LayerError(f"{layer!r}: expected {expected}, got {kernel!r} with inputs={kernel.inputs}")
    return kernel.multiplied(x, multiply, groups)
