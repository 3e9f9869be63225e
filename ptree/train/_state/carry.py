"""carry: the state of an optimiser goes over to a changed model, parameter by parameter, by path."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import optax

from ..._edit import Selector
from ..._edit import paths as selected_paths
from ..._errors import StructureError
from ..._garbage_collection import collection_paused
from ..._tree import PyTree, leaves
from ..._words import describe, lines, listed, quoted
from .._groups.groups import Cohort, Groups, GroupsState
from .._groups.leaf_groups import check_rules_fit, part_of, trained_groups
from .destination import Changes, Destination, Unit
from .old_states import OldState, OldStates
from .origins import Origin, origins, shape_of
from .report import Carried
from .slots import Node, layout_of_state

Optimiser: TypeAlias = "optax.GradientTransformation | optax.MultiSteps"
OneCount: TypeAlias = Literal["error", "keep", "restart"]
"""What to do where new slots would go by an old step count."""


def carry(
    state: PyTree,
    old: PyTree,
    new: PyTree,
    optimiser: Optimiser,
    *,
    renames: Mapping[Any, str] | None = None,
    before: Optimiser | None = None,
    resized: Selector | None = None,
    one_count: OneCount = "error",
) -> tuple[PyTree, Carried]:
    """The state of an optimiser for a changed model: slots follow their parameters by path, what is new starts anew.

    >>> import jax, jax.numpy as jnp
    >>> from ptree import Tree
    >>> from ptree.train import groups
    >>> optimiser = groups({"**": optax.adam(1e-3)})
    >>> old = Tree({"enc": {"kernel": jnp.ones((4, 8))}, "head": jnp.ones((8, 2))})
    >>> _, state = optimiser.update(old, optimiser.init(old), old)           # a step of training
    >>> new = Tree({"encoder": {"kernel": old["enc/kernel"]}, "head": jnp.ones((8, 5))})
    >>> state, report = carry(state, old, new, optimiser, renames={"enc": "encoder"})
    >>> print(report)
    kept 1: ['encoder/kernel']
    fresh 1:
      head: its shape is (8, 5) now, (8, 2) before
    dropped 1: ['head']
    >>> [(cohort.paths, int(cohort.state[0].count)) for cohort in state.groups["**"]]
    [(('encoder/kernel',), 1), (('head',), 0)]

    It works for the state of any optimiser of optax. A slot goes on if its parameter has the same name, after `renames`, and
    the same shape: by its own path or an alias, as one layer of a stack or a stack of single layers. Where leaves are tied
    now, the slots of the source stay; where they were tied, each gets a copy. Nothing is broadcast. 16-bit slots become
    32-bit ones or the other way round, as the optimiser wants them.

    A parameter that joins must not go by the step count of the others: the first steps of Adam would be up to five times
    too long. In the state of `groups` it gets a count of its own. Others have one count for all leaves, so that there it is
    an error; `groups({"**": optimiser})` with `before=optimiser` is the way out, or `one_count`. The counts of schedules
    go on.

    Args:
        state: the state, of `before`. It is not changed, and shares arrays with the new one.
        old: the parameters that the state is of, or their shapes.
        new: the parameters of the changed model.
        optimiser: the one that goes on, which decides the form of the new state.
        renames: old names -> new ones, as in `ptree.rename`.
        before: the optimiser that made the state; by default `optimiser`. Slots of one of its parts, such as the moments
            of Adam, go to the same part of `optimiser`.
        resized: leaves of `new` of which another size means more or fewer rows, as by `resize`: the rows of
            their slots stay, those that are new start anew, under the old count.
        one_count: where slots start anew under a count that goes on, "keep" the count, or "restart" it with all
            slots that go by it.

    Returns:
        The new state, and the report: kept, fresh and dropped.

    Raises:
        StructureError: a state of another optimiser or of other parameters; or new slots under an old count.
        PatternError: a name to be renamed, or a selector, that matches nothing; rules of `groups` that do not fit.
    """
    check_one_count(one_count)
    before = optimiser if before is None else before
    for given in (optimiser, before):
        if not isinstance(given, optax.GradientTransformation | optax.MultiSteps):
            raise StructureError(
                f"carry(state, old, new, optimiser): expected one of optax or groups, got {describe(given)}"
            )
    with collection_paused():  # of the time for 10,000 leaves it would take half
        changes = changes_of(old, new, origins(old, new, renames), resized_paths(new, resized))
        return carried(state, old, new, optimiser, before, changes, one_count)


def check_one_count(one_count: str) -> None:
    """Raise unless it is one of the three ways."""
    if one_count not in ("error", "keep", "restart"):
        raise StructureError(f"expected one_count 'error', 'keep' or 'restart', got {quoted(one_count)}")


def resized_paths(new: PyTree, resized: Selector | None) -> frozenset[str]:
    """The leaves that a selector says to have another size."""
    return frozenset() if resized is None else frozenset(selected_paths(new, resized))


def changes_of(old: PyTree, new: PyTree, found: Mapping[str, Origin], resized: frozenset[str]) -> Changes:
    """What has changed between parameters, or the same parts of them, from the origins of all of them."""
    old_shapes, new_shapes = _shapes(old), _shapes(new)
    there: dict[str, Origin] = {}
    for path, origin in found.items():
        if path in new_shapes and all(piece.path in old_shapes for piece in origin.pieces):
            there[path] = origin
    return Changes(old_shapes, new_shapes, there, resized & new_shapes.keys())


def carried(
    state: PyTree,
    old: PyTree,
    new: PyTree,
    optimiser: Optimiser,
    before: Optimiser,
    changes: Changes,
    one_count: OneCount,
) -> tuple[PyTree, Carried]:
    """As `carry`, with what has changed between the parameters."""
    old_states = OldStates(old_states_of(state, old, before))
    if isinstance(optimiser, Groups):
        return _carried_groups(optimiser, new, old_states, changes)
    destination = Destination(optimiser.init, new, old_states, changes)
    oldest = _oldest_units(destination, one_count)
    return destination.state(oldest), _report(new, [destination], old_states, changes)


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    return {path: shape_of(leaf) for path, leaf in leaves(tree)}


# ------------------------------------------------------------------------------- the old state


def old_states_of(state: PyTree, old: PyTree, optimiser: Optimiser) -> list[OldState]:
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


def _old_state(state: PyTree, params: PyTree, optimiser: Optimiser, rule: str = "") -> OldState:
    layout = layout_of_state(optimiser.init, params, state)
    return OldState(layout, jax.tree.leaves(state), _shapes(params), rule)


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


# ----------------------------------------------------------------------------- one count for all


def _oldest_units(destination: Destination, one_count: OneCount) -> dict[Node, Unit]:
    """For each node of a state with one count for all leaves, a unit whose count it has.

    Raises:
        StructureError: slots that start anew, or come from elsewhere, would go by the count of others.
    """
    oldest: dict[Node, Unit] = {}
    problems: list[str] = []
    for node in destination.nodes_by_count():
        together = _by_counts(destination, destination.units_at(node))
        if len(together) > 1 and one_count == "restart":
            destination.restart(node)
            continue
        if len(together) > 1:
            problems.append(_why_apart(node, together))
        oldest[node] = next(unit for unit in together[0].values())
    if problems and one_count == "error":
        raise StructureError(f"cannot carry the state over: {lines(problems, '; ')}. {_WAYS_OUT}")
    return oldest


def _by_counts(destination: Destination, units: Mapping[str, Unit]) -> list[dict[str, Unit]]:
    """Units by parameter, divided by their counts: those that most go by first, those that start anew last."""
    if len({unit.where for unit in units.values()}) == 1:
        return [dict(units)]
    found: dict[object, dict[str, Unit]] = {}
    for param, unit in units.items():
        found.setdefault(destination.fingerprint_at(unit), {})[param] = unit

    def order(group: Mapping[str, Unit]) -> tuple[bool, int]:
        starts_anew = all(unit.is_fresh for unit in group.values())
        return starts_anew, -len(group)

    return sorted(found.values(), key=order)


_WAYS_OUT = (
    'ptree.train.groups({"**": optimiser}), with before=optimiser, has a count for them;'
    " or say one_count='keep', or 'restart' for all"
)


def _why_apart(node: Node, together: Sequence[Mapping[str, Unit]]) -> str:
    others = together[1:]
    joining = [param for group in others for param in group]
    reasons = [unit.why for group in others for unit in group.values() if unit.why]
    why = f" ({reasons[0]})" if reasons else ""
    return f"{node.role[-1]} has one count for all leaves, and {listed(joining)} must not go by that of the others{why}"


# --------------------------------------------------------------------------------------- groups


def _carried_groups(optimiser: Groups, new: PyTree, old_states: OldStates, changes: Changes) -> tuple[PyTree, Carried]:
    """The state of `groups`: the leaves of a rule that go by equal counts are a cohort."""
    check_rules_fit(new, optimiser.rules)
    found: dict[str, tuple[Cohort, ...]] = {}
    destinations: list[Destination] = []
    for rule, group in trained_groups(new, optimiser.rules).items():
        parts = _apart(group.paths, old_states, changes)
        cohorts = _cohorts(rule, group.optimiser, new, parts, old_states, changes)
        if len(_together([cohort.counts for cohort in cohorts])) < len(
            cohorts
        ):  # new leaves under the same counts, such as 0
            cohorts = _cohorts(rule, group.optimiser, new, [group.paths], old_states, changes)
        cohorts.sort(key=lambda cohort: _age(cohort, old_states, changes))
        found[rule] = tuple(Cohort(cohort.destination.state_of(cohort.paths), cohort.paths) for cohort in cohorts)
        destinations += dict.fromkeys(cohort.destination for cohort in cohorts)
    return GroupsState(found), _report(new, destinations, old_states, changes)


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


# --------------------------------------------------------------------------------------- report


def _report(new: PyTree, destinations: Sequence[Destination], old_states: OldStates, changes: Changes) -> Carried:
    kept: list[str] = []
    fresh: dict[str, str] = {}
    taken: set[str] = set()
    units_of = {param: units for destination in destinations for param, units in destination.units.items()}
    for param, _ in leaves(new):
        units = units_of.get(param, {}).values()
        reasons = [unit.why for unit in units if unit.is_fresh]
        if reasons:
            fresh[param] = reasons[0]
        elif units:
            kept.append(param)
        if len(reasons) < len(units):
            taken.update(piece.path for piece in changes.origins[param].pieces)
    dropped = [path for path in old_states.params_with_slots() if path not in taken]
    return Carried(tuple(kept), fresh, tuple(dropped))
