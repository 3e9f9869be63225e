"""The state of an optimiser in a checkpoint, which has names alone, in the containers of optax; the cohorts of groups from their slots."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import optax

from ..._edit import differences, structure_error
from ..._errors import StructureError
from ..._tree import Leaf, PyTree, leaves, replace_leaves
from ..._words import listed
from .._groups.frozen import FROZEN
from .._groups.groups import Cohort, Groups, GroupsState
from .._groups.leaf_groups import LeafGroup, part_of, trained_groups
from .initial_state import InitialState
from .slots import abstract


def slots_in_file(file: PyTree, params: PyTree, optimiser: optax.GradientTransformation) -> PyTree:
    """The state of an optimiser in a file, in its own containers.

    Args:
        file: what the file has of the optimiser.
        params: the parameters in the file, or their shapes.

    Raises:
        StructureError: it is of another optimiser, or of other groups.
    """
    named = dict(leaves(file))
    if isinstance(optimiser, Groups):
        return _slots_of_groups(named, params, optimiser)
    return _filled(optimiser, params, named, "")


def _slots_of_groups(named: Mapping[str, Leaf], params: PyTree, optimiser: Groups) -> GroupsState:
    labelled = trained_groups(params, optimiser.rules)
    found: dict[str, tuple[Cohort, ...]] = {}
    prefixes: list[str] = []
    for rule, inner in optimiser.rules.items():
        name = str(rule)
        cohorts: list[Cohort] = []
        for number, paths in enumerate(_cohorts_in_file(name, inner, params, named, labelled.get(name))):
            prefix = _prefix(name, number)
            prefixes.append(prefix)
            cohorts.append(Cohort(_filled(inner, part_of(params, paths), named, prefix), paths))
        if cohorts:
            found[name] = tuple(cohorts)
    others = [name for name in named if not name.startswith(tuple(prefixes))]
    if others:
        raise StructureError(
            f"the checkpoint is of other groups: of {listed(others)} the rules {listed(map(str, optimiser.rules))} know"
            " nothing. Give the step that made it as before=",
            unexpected=others,
        )
    return GroupsState(found)


def _prefix(rule: str, number: int) -> str:
    """What the names of the leaves of a cohort begin with."""
    return f"groups/{rule}/{number}/state/"


def _cohorts_in_file(
    rule: str,
    optimiser: optax.GradientTransformation,
    params: PyTree,
    named: Mapping[str, Leaf],
    group: LeafGroup | None,
) -> list[tuple[str, ...]]:
    """The parameters of each cohort of a rule: those whose slots are there; without slots those that the rule applies to now."""
    if optimiser is FROZEN:
        return []
    slots = _slot_names(optimiser, params)
    if not slots:
        return [] if group is None else [group.paths]
    cohorts: list[tuple[str, ...]] = []
    for number in range(_cohort_count(rule, named)):
        prefix = _prefix(rule, number)
        paths = [path for path, names in slots.items() if all(prefix + name in named for name in names)]
        if not paths:
            break
        chosen = {*paths}
        cohorts.append(tuple(path for path, _ in leaves(params) if path in chosen))
    return cohorts


def _cohort_count(rule: str, named: Mapping[str, Leaf]) -> int:
    count = 0
    while any(name.startswith(_prefix(rule, count)) for name in named):
        count += 1
    return count


def _slot_names(optimiser: optax.GradientTransformation, params: PyTree) -> dict[str, list[str]]:
    """The paths of the slots of each parameter in the state that an optimiser makes of all."""
    initial = InitialState(optimiser.init, params)
    numbers = jax.tree.unflatten(initial.layout.structure, list(range(len(initial.layout.about))))
    names: dict[str, list[str]] = {}
    for path, number in leaves(numbers):
        param = initial.layout.about[number].param
        if param is not None:
            names.setdefault(param, []).append(path)
    return names


def _filled(optimiser: optax.GradientTransformation, params: PyTree, named: Mapping[str, Leaf], prefix: str) -> PyTree:
    """The state that an optimiser makes of parameters, with the values of a file.

    Raises:
        StructureError: the file has other leaves.
    """
    expected = jax.eval_shape(optimiser.init, abstract(params))
    there = dict(leaves(expected))
    here = {name.removeprefix(prefix): value for name, value in named.items() if name.startswith(prefix)}
    found = differences(there, here)._replace(mistyped=())
    if found:
        raise structure_error(
            "the state in the checkpoint is of another optimiser",
            found,
            there,
            here,
            prefix=f"optimiser/{prefix}",
            sides=(" by the optimiser", " in the file"),
            fix="Give the step that made it as before=.",
        )
    return replace_leaves(expected, here)
