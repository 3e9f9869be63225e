"""Rank, what a rule of `lora` says of a kernel: the rank of its change, the scale, and which axes are summed over."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax

from ..._errors import InitError
from ..._numbers import whole_number
from ..._words import describe
from ...initializers import normal


@dataclass(frozen=True)
class Rank:
    """The rank of a kernel's change, and its scale: a rule's value for `lora`.

    >>> Rank(8).scale, Rank(8, alpha=16).scale, Rank(16, alpha=16, stabilized=True).scale
    (1.0, 2.0, 4.0)

    Args:
        rank: how many columns the factor `a` has, and rows the factor `b`.
        alpha: the scale is `alpha / rank` (Hu et al. 2021, section 4.1); by default alpha is the rank.
        stabilized: the scale is `alpha / sqrt(rank)` instead, so that large ranks learn as small ones do
            (rsLoRA, Kalajdzievski 2023).
        inputs: how many axes of one layer's kernel, the first, are summed over: 1 for queries (d, heads, head_dim), 2 for an
            attention's output (heads, head_dim, d), all but the last for a convolution. It need not be said of a kernel
            of two axes, or where a bias is beside it, which has the other axes.
        init: initialiser of `a`, which sees it as (in..., rank); by default Gaussian with the variance 1 / in. `b` starts
            at 0, so that nothing changes at first.

    Raises:
        InitError: numbers out of range, or an initialiser that is no function.
    """

    rank: int
    alpha: float | None = None
    stabilized: bool = False
    inputs: int | None = None
    init: Callable[..., jax.Array] | None = None

    def __post_init__(self) -> None:
        if not _is_count(self.rank):
            raise InitError(f"Rank: expected a rank of at least 1, got {describe(self.rank)}")
        if self.inputs is not None and not _is_count(self.inputs):
            raise InitError(
                f"Rank({self.rank}): expected inputs, a number of axes of at least 1, got {describe(self.inputs)}"
            )
        if self.alpha is not None and not _is_scale(self.alpha):
            raise InitError(f"Rank({self.rank}): expected an alpha above 0, got {describe(self.alpha)}")
        if self.init is not None and not callable(self.init):
            raise InitError(
                f"Rank({self.rank}): expected a function (key, shape, dtype) -> array as init, got {describe(self.init)}"
            )

    @property
    def scale(self) -> float:
        """The factor of `a @ b`."""
        alpha = self.rank if self.alpha is None else self.alpha
        return alpha / math.sqrt(self.rank) if self.stabilized else alpha / self.rank

    def initializer(self, shape: tuple[int, ...]) -> Callable[..., jax.Array]:
        """The initialiser of the factor `a` of one layer, of this shape.

        Args:
            shape: (in..., rank).
        """
        return self.init or normal(math.prod(shape[:-1]) ** -0.5)


def _is_count(value: object) -> bool:
    number = whole_number(value)
    return number is not None and number >= 1


def _is_scale(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
