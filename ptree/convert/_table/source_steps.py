"""The steps of rows that take arrays of the source: an operation on them, and the names that the results get."""

from __future__ import annotations

from ..._words import quoted
from .._operations.operation import Described, MisfitError
from .matches import Match, Matches
from .step import NoStepError, Step, Steps
from .target_names import TargetNames


def steps_of_sources(matches: Matches, names: TargetNames) -> Steps:
    """A step for each match of a row with arrays of the source; or a sentence why there is none."""
    steps: list[Step] = []
    problems: list[str] = []
    for match in matches.complete():
        try:
            steps.append(_step(match, names))
        except NoStepError as error:
            problems.append(str(error))
    return Steps(steps, [*problems, *matches.problems()])


def _step(match: Match, names: TargetNames) -> Step:
    """The step of one match.

    Raises:
        NoStepError: arrays that cannot be read or that the operation does not take, or a name that the row does not give.
    """
    row = match.row
    described = _described(match)
    targets = tuple(_target_names(match, names))
    try:
        outcome = row.operation.outcome(described)
    except MisfitError as misfit:
        raise NoStepError(f"{_shown(match)}, by the row {row.text}: {misfit}") from None
    return Step(row, match.sources, targets, tuple(outcome))


def _described(match: Match) -> list[Described]:
    found: list[Described] = []
    for source in match.sources:
        if source.described is None:
            raise NoStepError(f"{quoted(source.name)} {source.problem}")
        found.append(source.described)
    return found


def _target_names(match: Match, names: TargetNames) -> list[str]:
    row = match.row
    found: list[str] = []
    for pattern in row.targets:
        path = pattern.write(row.sources[0].translate(match.captures, pattern))
        if path is None:
            raise NoStepError(f"{_shown(match)}: the row {row.text} gives no name that {pattern!r} matches")
        found.append(names.name_of(path, pattern))
    return found


def _shown(match: Match) -> str:
    return ", ".join(quoted(source.name) for source in match.sources)
