"""carry: the state of an optimiser goes over to a changed model, parameter by parameter, by path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import optax

from ..._edit import Selector
from ..._errors import StructureError
from ..._garbage_collection import collection_paused
from ..._tree import PyTree
from ..._words import describe, lines, listed, quoted
from .._groups.groups import Groups
from .carried_groups import carried_groups
from .changes import Changes, changes_of, resized_paths
from .destination import Destination, Unit
from .old_states import OldStates
from .origins import origins
from .report import Carried, report_of
from .slots import Node
from .states_by_cohort import old_states_of

Optimiser: TypeAlias = "optax.GradientTransformation | optax.MultiSteps"
IfCountsDiffer: TypeAlias = Literal["error", "keep", "restart"]
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
    if_counts_differ: IfCountsDiffer = "error",
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
    an error; `groups({"**": optimiser})` with `before=optimiser` is the way out, or `if_counts_differ`. The counts of schedules
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
        if_counts_differ: where slots start anew under a count that goes on, "keep" the count, or "restart" it with all
            slots that go by it.

    Returns:
        The new state, and the report: kept, fresh and dropped.

    Raises:
        StructureError: a state of another optimiser or of other parameters; or new slots under an old count.
        PatternError: a name to be renamed, or a selector, that matches nothing; rules of `groups` that do not fit.
    """
    check_if_counts_differ(if_counts_differ)
    before = optimiser if before is None else before
    for given in (optimiser, before):
        if not isinstance(given, optax.GradientTransformation | optax.MultiSteps):
            raise StructureError(
                f"carry(state, old, new, optimiser): expected one of optax or groups, got {describe(given)}"
            )
    with collection_paused():  # of the time for 10,000 leaves it would take half
        changes = changes_of(old, new, origins(old, new, renames), resized_paths(new, resized))
        return carried(state, old, new, optimiser, before, changes, if_counts_differ)


def check_if_counts_differ(if_counts_differ: str) -> None:
    """Raise unless it is one of the three ways."""
    if if_counts_differ not in ("error", "keep", "restart"):
        raise StructureError(f"expected if_counts_differ 'error', 'keep' or 'restart', got {quoted(if_counts_differ)}")


def carried(
    state: PyTree,
    old: PyTree,
    new: PyTree,
    optimiser: Optimiser,
    before: Optimiser,
    changes: Changes,
    if_counts_differ: IfCountsDiffer,
) -> tuple[PyTree, Carried]:
    """As `carry`, with what has changed between the parameters."""
    old_states = OldStates(old_states_of(state, old, before))
    if isinstance(optimiser, Groups):
        return carried_groups(optimiser, new, old_states, changes)
    destination = Destination(optimiser.init, new, old_states, changes)
    oldest = _oldest_units(destination, if_counts_differ)
    return destination.state(oldest), report_of(new, [destination], old_states, changes)


# ----------------------------------------------------------------------------- one count for all


def _oldest_units(destination: Destination, if_counts_differ: IfCountsDiffer) -> dict[Node, Unit]:
    """For each node of a state with one count for all leaves, a unit whose count it has.

    Raises:
        StructureError: slots that start anew, or come from elsewhere, would go by the count of others.
    """
    oldest: dict[Node, Unit] = {}
    problems: list[str] = []
    for node in destination.nodes_by_count():
        together = _by_counts(destination, destination.units_at(node))
        if len(together) > 1 and if_counts_differ == "restart":
            destination.restart(node)
            continue
        if len(together) > 1:
            problems.append(_why_apart(node, together))
        oldest[node] = next(unit for unit in together[0].values())
    if problems and if_counts_differ == "error":
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
    " or say if_counts_differ='keep', or 'restart' for all"
)


def _why_apart(node: Node, together: Sequence[Mapping[str, Unit]]) -> str:
    others = together[1:]
    joining = [param for group in others for param in group]
    reasons = [unit.why for group in others for unit in group.values() if unit.why]
    why = f" ({reasons[0]})" if reasons else ""
    return f"{node.role[-1]} has one count for all leaves, and {listed(joining)} must not go by that of the others{why}"
