"""The old state of an optimiser, or those of the cohorts of `groups`, each with what its leaves are."""

from __future__ import annotations

from collections.abc import Iterable

import jax
import optax

from ..._errors import StructureError
from ..._tree import PyTree, leaves
from ..._words import describe, listed
from .._groups.groups import Groups, GroupsState
from .._groups.leaf_groups import part_of
from .changes import shapes_of
from .old_states import OldState
from .slots import layout_of_state


def old_states_of(
    state: PyTree, old: PyTree, optimiser: optax.GradientTransformation | optax.MultiSteps
) -> list[OldState]:
    """The old state, or those of the cohorts of `groups`, with what their leaves are."""
    if not isinstance(optimiser, Groups):
        return [_old_state(state, old, optimiser)]
    if not isinstance(state, GroupsState):
        raise StructureError(
            f"the state is of another optimiser: {optimiser!r} makes a GroupsState, got {describe(state)}."
            " Give the optimiser that made it as before="
        )
    optimisers = {str(rule): inner for rule, inner in optimiser.rules.items()}
    _check_rules(state, old, optimisers)
    found: list[OldState] = []
    for rule, cohorts in state.groups.items():
        for cohort in cohorts:
            found.append(_old_state(cohort.state, part_of(old, cohort.paths), optimisers[rule], rule))
    return found


def _old_state(
    state: PyTree, params: PyTree, optimiser: optax.GradientTransformation | optax.MultiSteps, rule: str = ""
) -> OldState:
    layout = layout_of_state(optimiser.init, params, state)
    return OldState(layout, jax.tree.leaves(state), shapes_of(params), rule)


def _check_rules(state: GroupsState, old: PyTree, rules: Iterable[str]) -> None:
    """Raise unless the rules in a state are those of its optimiser, and its paths those of its parameters."""
    rules = list(rules)
    others = [rule for rule in state.groups if rule not in rules]
    if others:
        raise StructureError(
            f"the state is of other groups: it has the rules {listed(others)}, the optimiser has {listed(rules)}."
            " Give the groups that made it as before="
        )
    there = {path for path, _ in leaves(old)}
    trained = [path for cohorts in state.groups.values() for cohort in cohorts for path in cohort.paths]
    missing = [path for path in trained if path not in there]
    if missing:
        raise StructureError(
            f"the state is of other parameters: it has slots of {listed(missing)}, which are not in `old`",
            missing=missing,
        )
