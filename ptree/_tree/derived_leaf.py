"""DerivedLeaf, a node that stands in the place of a leaf: an array that is computed from those inside of it."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from .leaf import Leaf


class DerivedLeaf:
    """Base of nodes that stand for one array, such as the sum of a kernel and a product of two factors.

    A subclass is registered with JAX, which sees the arrays inside. It has the shape and dtype of the array that it stands for.
    A tie through a transpose reads it by `transpose`; a transform that is a function of arrays cannot.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        raise NotImplementedError(f"{type(self).__name__} has no `shape`")

    @property
    def dtype(self) -> np.dtype[Any]:
        raise NotImplementedError(f"{type(self).__name__} has no `dtype`")

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def split_like(self) -> Leaf:
        """An array of this shape whose axes a mesh splits as those of the derived one; None where there is none."""
        return None

    def transpose(self, *axes: int) -> Self:
        """The same with all axes in this order.

        Raises:
            TieError: an order in which it cannot be derived.
        """
        raise NotImplementedError(f"{type(self).__name__} has no `transpose`")
