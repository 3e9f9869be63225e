"""Statistics as data: a row for each leaf or layer, and totals."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from ..._errors import PathError
from ..._words import quoted, suggestion


@dataclass(frozen=True)
class LeafStats:
    """Statistics of one leaf, or of one layer of a stack.

    >>> import numpy as np
    >>> from ptree import look
    >>> row = look.stats({"w": np.array([3.0, -4.0])})["w"]
    >>> row.count, row.mean, row.norm, row.largest
    (2, -0.5, 5.0, 4.0)

    Mean, std, norm, largest and quantiles are those of the finite numbers, and NaN where there is none. The mean of a
    complex leaf is complex; its other statistics are those of the sizes.
    """

    path: str
    """The path of the leaf, or of one layer of a stack."""
    shape: tuple[int, ...]
    """Its shape."""
    dtype: str
    """In short, such as f32."""
    count: int
    """How many numbers it has."""
    mean: complex
    """The mean of its finite numbers."""
    std: float
    """Of all numbers, not of a sample of them: divided by the count."""
    norm: float
    """The square root of the sum of squares."""
    largest: float
    """The largest size of a number."""
    zeros: int
    """How many numbers are 0."""
    nonfinite: int
    """How many numbers are NaN or infinite."""
    first: tuple[int, ...] | None
    """The index of the first number that is not finite; None if there is none."""
    quantiles: dict[float, float] = field(default_factory=dict)
    """Share -> quantile, for the shares that were given."""
    relative: float | None = None
    """|a - b| / |b|, where b is the leaf in `relative_to`; None where there is none of this path and shape."""
    problem: str = ""
    """Why its numbers could not be read; "" where they could."""

    __module__ = "ptree.look"


@dataclass(frozen=True, repr=False)
class StatsData:
    """Statistics of each leaf, a row each, and totals."""

    title: str
    """What the table is headed by, such as the name of a file."""
    rows: tuple[LeafStats, ...]
    """A row for each leaf, and for each layer of a stack."""
    unmatched: int | None = None
    """How many leaves have no counterpart in `relative_to`; None where there was none to compare with."""

    def __getitem__(self, path: str) -> LeafStats:
        """The statistics of the leaf, or the layer of a stack, at this path.

        Raises:
            PathError: there is no such row.
        """
        if path not in self._by_path:
            near = suggestion(path, self._by_path) if isinstance(path, str) else ""
            raise PathError(f"no statistics of {quoted(path)}.{near}".removesuffix("."))
        return self._by_path[path]

    @cached_property
    def _by_path(self) -> dict[str, LeafStats]:
        return {row.path: row for row in self.rows}

    @property
    def count(self) -> int:
        """How many numbers all leaves have."""
        return sum(row.count for row in self.rows)

    @property
    def nonfinite(self) -> int:
        """How many of them are not finite."""
        return sum(row.nonfinite for row in self.rows)
