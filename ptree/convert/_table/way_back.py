"""Find the arrays of a plan that the inverse of the table would not write back under the same names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from ..._paths.dotted_names import paths_of_names
from .._named_arrays import NamedArray, NamedArrays
from .matches import Matches
from .row import Row
from .step import Step

Paths: TypeAlias = tuple[str, ...]


def not_written_back(rows: Sequence[Row], steps: Sequence[Step]) -> tuple[str, ...]:
    """The names of the sources whose results the inverse gives another name, or takes by another row.

    A row that stands before may match the name of the target, too: of `{"*.w": "x/*", "special": "x/a"}`, `special` would
    come back as `a.w`.
    """
    converted = [step for step in steps if step.sources and step.targets]
    written = _written_back([row.inverse for row in rows], converted)
    lost: list[str] = []
    for step in converted:
        paths = tuple(source.path for source in step.sources)
        if written.get(step.targets) != paths:
            lost += [source.name for source in step.sources]
    return tuple(lost)


def _written_back(inverse: Sequence[Row], steps: Sequence[Step]) -> dict[Paths, Paths]:
    """The names of the targets that a row of the inverse takes together -> the paths that it gives them."""
    names = [target for step in steps for target in step.targets]
    arrays: dict[str, NamedArray] = {}
    for path, name in paths_of_names(names).items():
        arrays[path] = NamedArray(name, path, None, _no_numbers)
    written: dict[Paths, Paths] = {}
    for match in Matches(inverse, NamedArrays(arrays, "the results")).complete():
        row = match.row
        paths = [pattern.write(row.sources[0].translate(match.captures, pattern)) for pattern in row.targets]
        written[tuple(source.name for source in match.sources)] = tuple(path or "" for path in paths)
    return written


def _no_numbers() -> np.ndarray:
    raise AssertionError("only the names are looked at")
