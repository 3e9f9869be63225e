"""The state of `groups` for a changed model: the leaves of a rule that go by equal counts are a cohort."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import optax

from ..._tree import PyTree
from .._groups.groups import Cohort, Groups, GroupsState
from .._groups.leaf_groups import check_rules_fit, part_of, trained_groups
from .changes import Changes
from .destination import Destination
from .old_states import OldStates
from .report import Carried, report_of
from .slots import Node


def carried_groups(optimiser: Groups, new: PyTree, old_states: OldStates, changes: Changes) -> tuple[PyTree, Carried]:
    """The state of `groups`: the leaves of a rule that go by equal counts are a cohort."""
    check_rules_fit(new, optimiser.rules)
    found: dict[str, tuple[Cohort, ...]] = {}
    destinations: list[Destination] = []
    for rule, group in trained_groups(new, optimiser.rules).items():
        parts = _apart(group.paths, old_states, changes)
        cohorts = _cohorts(rule, group.optimiser, new, parts, old_states, changes)
        kinds_of_counts = len(_together([cohort.counts for cohort in cohorts]))
        if kinds_of_counts < len(cohorts):  # new leaves under the same counts, such as 0
            cohorts = _cohorts(rule, group.optimiser, new, [group.paths], old_states, changes)
        cohorts.sort(key=lambda cohort: _age(cohort, old_states, changes))
        found[rule] = tuple(Cohort(cohort.destination.state_of(cohort.paths), cohort.paths) for cohort in cohorts)
        destinations += dict.fromkeys(cohort.destination for cohort in cohorts)
    return GroupsState(found), report_of(new, destinations, old_states, changes)


class _NewCohort(NamedTuple):
    """Leaves of a rule that can go by the same counts."""

    counts: Mapping[Node, object]
    """What is equal for equal counts, for each node on which the updates depend."""
    paths: tuple[str, ...]
    destination: Destination


def _age(cohort: _NewCohort, old_states: OldStates, changes: Changes) -> int:
    """The number of the old cohort in which the first leaves of a new one were: cohorts stay in their order."""
    numbers = [len(old_states.states)]  # new leaves come last
    for path in cohort.paths:
        if path in changes.origins:
            number = old_states.state_of(changes.origins[path].pieces[0].path)
            numbers.append(numbers[0] if number is None else number)
    return min(numbers)


def _apart(paths: tuple[str, ...], old_states: OldStates, changes: Changes) -> list[tuple[str, ...]]:
    """The leaves of a rule that seem to go on, and those that start anew: the first tracing then gives most of the state."""
    going_on: list[str] = []
    starting: list[str] = []
    for path in paths:
        was_trained = path in changes.origins and old_states.state_of(changes.origins[path].pieces[0].path) is not None
        goes_on = was_trained and not changes.why_new(path)
        (going_on if goes_on else starting).append(path)
    return [tuple(part) for part in (going_on, starting) if part]


def _cohorts(
    rule: str,
    optimiser: optax.GradientTransformation,
    new: PyTree,
    parts: Sequence[tuple[str, ...]],
    old_states: OldStates,
    changes: Changes,
) -> list[_NewCohort]:
    """The leaves of a rule by the counts that they go by."""
    found: list[_NewCohort] = []
    for part in parts:
        params = part_of(new, part)
        destination = Destination(optimiser.init, params, old_states, changes, rule=rule)
        by_counts: dict[tuple[tuple[Node, object], ...], list[str]] = {}
        for path in part:
            by_counts.setdefault(destination.fingerprint(path), []).append(path)
        kinds = [dict(counts) for counts in by_counts]
        for numbers in _together(kinds):
            counts: dict[Node, object] = {}
            chosen: set[str] = set()
            for number in numbers:
                counts |= kinds[number]
                chosen.update(by_counts[tuple(kinds[number].items())])
            found.append(_NewCohort(counts, tuple(path for path in part if path in chosen), destination))
    return found


def _together(kinds: Sequence[Mapping[Node, object]]) -> list[list[int]]:
    """Which of these counts can be those of one state: they agree about all nodes that both have."""
    found: list[tuple[dict[Node, object], list[int]]] = []
    for number, counts in enumerate(kinds):
        for shared, numbers in found:
            if all(shared.get(node, value) == value for node, value in counts.items()):
                shared.update(counts)
                numbers.append(number)
                break
        else:
            found.append((dict(counts), [number]))
    return [numbers for _, numbers in found]
