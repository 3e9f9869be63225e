"""VerificationData: the comparisons of two functions, which of them fail, and what may differ besides weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from .calls import Failure
from .checklist import CHECKLIST
from .comparison import Comparison


@dataclass(frozen=True, repr=False, eq=False)
class VerificationData:
    """Two functions on the same inputs, value by value."""

    rows: tuple[Comparison, ...]
    """A comparison for each value of each batch, in the order of computation: intermediate values first."""
    failures: tuple[Failure, ...] = ()
    """The exceptions that either function raised."""
    batches: int = 1
    """How many inputs both functions were called on."""
    only_source: tuple[str, ...] = ()
    """Intermediate values that only the source gave; they were compared with nothing."""
    only_ours: tuple[str, ...] = ()
    """Intermediate values that only ours gave."""
    modes: tuple[str, ...] = ()
    """Which of the functions are modules in training mode."""
    precision: str = ""
    """The precision of products in this process."""

    @property
    def ok(self) -> bool:
        """Whether numbers were compared, and all are within their tolerances."""
        has_numbers = any(row.count for row in self.rows)
        return has_numbers and not self.failures and all(row.ok for row in self.rows)

    def __bool__(self) -> bool:
        return self.ok

    @property
    def checklist(self) -> tuple[str, ...]:
        """What may differ besides the weights: of a call that raised only the modes of modules; empty where all agrees."""
        if self.ok:
            return ()
        if all(row.ok for row in self.rows):
            return self.modes
        return (*self.modes, self.precision, *CHECKLIST)

    @cached_property
    def first(self) -> Comparison | None:
        """The first value in the order of computation that differs in any batch, as in its worst batch."""
        return next((row for row in self.worst if not row.ok), None)

    @cached_property
    def worst(self) -> tuple[Comparison, ...]:
        """For each value the batch with the largest error, in the order of computation."""
        found: dict[tuple[str, str], Comparison] = {}
        for row in self.rows:
            key = (row.name, row.name_ours)
            if key not in found or row.badness > found[key].badness:
                found[key] = row
        return tuple(found.values())
