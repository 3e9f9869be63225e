"""Step: one step of a plan, arrays of the source that an operation turns into named arrays of the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .._named_arrays import NamedArray
from .._operations.operation import Described, Operation
from .row import Row


@dataclass(frozen=True)
class Step:
    """One step of a plan: arrays of the source, an operation, and the names that the results get."""

    row: Row
    sources: tuple[NamedArray, ...]
    targets: tuple[str, ...]
    """Names in the target."""
    outcome: tuple[Described, ...]
    """The shapes and dtypes of the results."""
    kept: np.ndarray | None = None
    """The array that is written back, in a step of `carry`'s inverse."""

    @property
    def operation(self) -> Operation:
        return self.row.operation


class NoStepError(Exception):
    """Error for arrays that a row cannot convert; the text is the sentence of the plan."""


class Steps(NamedTuple):
    """The steps that rows give, and a sentence for each that cannot be taken."""

    steps: Sequence[Step]
    problems: Sequence[str]


def folded(steps: Sequence[Step]) -> list[list[Step]]:
    """The steps in groups of one row whose arrays have the same shapes, in the order of their first ones."""
    groups: dict[object, list[Step]] = {}
    for step in steps:
        shapes = tuple(source.described for source in step.sources)
        groups.setdefault((id(step.row), shapes, step.outcome), []).append(step)
    return [*groups.values()]
