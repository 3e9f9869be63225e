"""The steps of rows that take no array of the source: constants, and arrays that were kept and are written back."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from ..._words import listed, quoted
from ...files._foreign_tree import ForeignLeaf
from ...files._kinds import dtype_of, unsaved
from ...files._open_leaf import OpenAlias, OpenLeaf
from .._operations.operation import Described
from .row import Row
from .step import NoStepError, Step, Steps
from .target_names import TargetNames


def steps_of_constants(rows: Sequence[Row], names: TargetNames, given: Collection[str]) -> list[Step]:
    """A step for each constant; none for the names that other steps give already.

    Args:
        rows: the rows of the table.
        names: the names of the target.
        given: the names that arrays of the source get.
    """
    steps: dict[str, Step] = {}
    for row in rows:
        if row.sources or row.operation.is_written_back:
            continue
        (pattern,) = row.targets
        for name in names.required(pattern):
            if name not in given and name not in steps:
                steps[name] = Step(row, (), (name,), tuple(row.operation.outcome(())))
    return [*steps.values()]


def idle_constants(rows: Sequence[Row], names: TargetNames) -> tuple[str, ...]:
    """The rows of constants that have no name to be written to, as text."""
    constants = [row for row in rows if not row.sources and not row.operation.is_written_back]
    return tuple(row.text for row in constants if not names.required(row.targets[0]))


def steps_of_carried(rows: Sequence[Row], names: TargetNames, carried: Mapping[str, np.ndarray]) -> Steps:
    """A step for each array that is written back, by the first row that matches its name; or a sentence why there is none."""
    steps: list[Step] = []
    problems: list[str] = []
    seen: set[str] = set()
    for row in _rows_of_carried(rows):
        (pattern,) = row.targets
        matching = names.matching(pattern, carried)
        for given, (name, array) in matching.items():
            if given in seen:
                continue
            try:
                steps.append(_step(row, given, name, array))
            except NoStepError as error:
                problems.append(str(error))
        seen.update(matching)
    return Steps(steps, problems)


def _step(row: Row, given: str, name: str, array: np.ndarray) -> Step:
    """The step that writes one array back.

    Raises:
        NoStepError: it is no array that can be written.
    """
    if isinstance(array, (OpenLeaf, OpenAlias, ForeignLeaf)):
        array = np.asarray(array)
    saved = unsaved(name, array)
    if isinstance(saved, str):
        raise NoStepError(f"carried {quoted(given)} is {saved}")
    host = saved.host_array()
    return Step(row, (), (name,), (Described(host.shape, dtype_of(host)),), host)


def problems_of_carried(rows: Sequence[Row], names: TargetNames, carried: Mapping[str, np.ndarray] | None) -> list[str]:
    """A sentence for arrays that are to be written back and are not given, and for given ones that no row writes back."""
    waiting = _rows_of_carried(rows)
    if carried is None:
        if not waiting:
            return []
        shown = listed([row.targets[0].text for row in waiting])
        return [
            f"the arrays that `carry` kept are not given: {shown}. carried=table.carried(source) writes them back,"
            " carried={} leaves them out"
        ]
    found: set[str] = set()
    problems: list[str] = []
    for row in waiting:
        (pattern,) = row.targets
        matching = names.matching(pattern, carried)
        found |= matching.keys()
        if carried and not matching and pattern.compiled.literal is not None:
            problems.append(f"carried has no {quoted(pattern.text)}, which the row {row.text} writes back")
    left = [name for name in carried if name not in found]
    if left:
        problems.append(f"no row writes back what carried has: {listed(left)}")
    return problems


def idle_rows_of_carried(
    rows: Sequence[Row], names: TargetNames, carried: Mapping[str, np.ndarray] | None
) -> tuple[str, ...]:
    """The rows for which `carried` has no array, as text."""
    waiting = _rows_of_carried(rows)
    return tuple(row.text for row in waiting if not names.matching(row.targets[0], carried or {}))


def _rows_of_carried(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.operation.is_written_back]
