"""What `first` saw, as data: a row for each layer and for each leaf."""

from __future__ import annotations

import math
from dataclasses import dataclass

_STANDARD_ERRORS = 6
"""Between the seen and the declared spread: more are no chance in millions of leaves."""


@dataclass(frozen=True)
class FirstLayer:
    """What flows through one layer: root mean squares and largest sizes, NaN and inf included."""

    path: str
    source: float | None
    """Of the activations that flow in; None of whole numbers, such as tokens."""
    output: float
    """Of what the layer gives, before an activation function."""
    largest: float
    gradient: float
    """Of the loss with respect to the output."""
    largest_gradient: float

    __module__ = "ptree.look"


@dataclass(frozen=True)
class FirstLeaf:
    """The declared and the seen spread of one leaf; declared is None where nothing is declared."""

    path: str
    shape: tuple[int, ...]
    declared_mean: float | None
    declared_std: float | None
    bounds: tuple[float, float] | None
    """Infinite where there is no bound."""
    mean: float
    std: float
    largest: float
    count: int
    """How many numbers are finite."""
    nonfinite: int
    gradient: float | None
    """Root mean square of the gradient; None of leaves of whole numbers."""

    __module__ = "ptree.look"

    @property
    def problem(self) -> str:
        """What is wrong with the leaf: numbers that are not finite, or a spread that is not the declared one; "" if nothing is."""
        if self.nonfinite:
            return f"NaN or inf in {self.nonfinite:,} of {math.prod(self.shape):,} numbers"
        if self.declared_std is None or not self.count:
            return ""
        # of a Gaussian; of other distributions without long tails it is less
        error = self.declared_std * math.sqrt(1 / (2 * self.count))
        if abs(self.std - self.declared_std) > _STANDARD_ERRORS * error + 0.01 * self.declared_std:
            return f"std {self.std:.3g}, declared {self.declared_std:.3g}"
        return ""
