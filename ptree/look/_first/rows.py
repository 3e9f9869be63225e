"""What `first` saw, as data: a row for each layer and for each leaf."""

from __future__ import annotations

import math
from dataclasses import dataclass

_STANDARD_ERRORS = 6
"""Between the seen and the declared standard deviation: more are no chance in millions of leaves."""


@dataclass(frozen=True)
class FirstLayer:
    """What flows through one layer: root mean squares and largest sizes, NaN and inf included.

    >>> import jax, jax.numpy as jnp
    >>> from ptree import look, nn
    >>> net, x = nn.Sequential(nn.Dense(8), nn.Dense(4)), jnp.ones((2, 4))
    >>> seen = look.first(net, x, jax.random.key(0))
    >>> seen.layers[0].path, seen.layers[0].source
    ('0', 1.0)
    """

    path: str
    """The path of the layer's parameters."""
    source: float | None
    """Root mean square of the activations that flow in; None of whole numbers, such as tokens."""
    output: float
    """Root mean square of what the layer gives, before an activation function."""
    largest: float
    """The largest size of a number in the output."""
    gradient: float
    """Root mean square of the gradient of the loss with respect to the output."""
    largest_gradient: float
    """The largest size of a number in that gradient."""

    __module__ = "ptree.look"


@dataclass(frozen=True)
class FirstLeaf:
    """Mean and standard deviation of one leaf, as declared and as seen; declared is None where nothing is declared.

    >>> import jax, jax.numpy as jnp
    >>> from ptree import look, nn
    >>> net, x = nn.Sequential(nn.Dense(8), nn.Dense(4)), jnp.ones((2, 4))
    >>> seen = look.first(net, x, jax.random.key(0))
    >>> seen.leaves[0].path, seen.leaves[0].shape, seen.leaves[0].problem
    ('0/kernel', (4, 8), '')
    """

    path: str
    """The path of the leaf."""
    shape: tuple[int, ...]
    """Its shape."""
    declared_mean: float | None
    """The mean that its initialiser declares."""
    declared_std: float | None
    """The standard deviation that its initialiser declares."""
    bounds: tuple[float, float] | None
    """The least and the largest number that its initialiser declares; infinite where there is no bound."""
    mean: float
    """The mean of its finite numbers."""
    std: float
    """Their standard deviation."""
    largest: float
    """The largest size of one of them."""
    count: int
    """How many numbers are finite."""
    nonfinite: int
    """How many numbers are NaN or infinite."""
    gradient: float | None
    """Root mean square of the gradient; None of leaves of whole numbers."""

    __module__ = "ptree.look"

    @property
    def problem(self) -> str:
        """What is wrong with the leaf: numbers that are not finite, or a standard deviation that is not the declared one; "" if nothing is."""
        if self.nonfinite:
            return f"NaN or inf in {self.nonfinite:,} of {math.prod(self.shape):,} numbers"
        if self.declared_std is None or not self.count:
            return ""
        # of a Gaussian; of other distributions without long tails it is less
        error = self.declared_std * math.sqrt(1 / (2 * self.count))
        if abs(self.std - self.declared_std) > _STANDARD_ERRORS * error + 0.01 * self.declared_std:
            return f"std {self.std:.3g}, declared {self.declared_std:.3g}"
        return ""
