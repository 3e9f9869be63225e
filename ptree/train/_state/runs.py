"""carry_state: the whole state of a training run, of `step`, for a changed model or another step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import optax

from ..._edit import Selector
from ..._garbage_collection import collection_paused
from ..._tree import PyTree, leaves
from .._groups.groups import Groups
from .._step.averaging import averaged_part, started
from .._step.state_checks import refuse_used
from .._step.step import Step
from .._step.train_state import TrainState
from .._step.trained_part import TrainedPart
from .._wide_floats import with_wide_floats
from .carry import IfCountsDiffer, carried, check_if_counts_differ
from .changes import Changes, changes_of, resized_paths
from .origins import Origin, origins
from .report import Carried


class _Values(NamedTuple):
    """Parameters, or their moving average, as a state that `carry` takes."""

    values: PyTree


def _as_they_are(params: PyTree) -> PyTree:
    return _Values(params)


def _average(params: PyTree) -> PyTree:
    return _Values(started(params))


_PARAMETERS = optax.GradientTransformation(_as_they_are, optax.identity().update)
_AVERAGE = optax.GradientTransformation(_average, optax.identity().update)


def carry_state(
    state: TrainState,
    params: PyTree,
    step: Step,
    *,
    renames: Mapping[Any, str] | None = None,
    before: Step | None = None,
    resized: Selector | None = None,
    if_counts_differ: IfCountsDiffer = "error",
) -> tuple[TrainState, Carried]:
    """The state of a training run that goes on with other parameters, or another step.

    >>> import jax, jax.numpy as jnp, optax
    >>> from ptree import Tree, put, train
    >>> loss = lambda params, x: sum(jnp.square(leaf * x).sum() for leaf in jax.tree.leaves(params))
    >>> frozen = train.step(loss, train.groups({"enc": train.FROZEN, "**": optax.adam(1e-3)}))
    >>> state, _ = frozen(frozen.init(Tree({"enc": jnp.ones(3), "head": jnp.ones(2)})), 1.0)
    >>> both = train.step(loss, train.groups({"**": optax.adam(1e-3)}))
    >>> state, report = train.carry_state(state, state.params, both, before=frozen)
    >>> print(report)
    kept 1: ['head']
    fresh 1:
      enc: was not trained before
    >>> state, _ = both(state, 1.0)
    >>> int(state.step), [int(cohort.state[0].count) for cohort in state.optimiser.groups["**"]]
    (2, [2, 1])

    The slots of the optimiser go over as by `carry`, and so does the moving average, which starts from the new value where a
    parameter joins. The number of the step, the key and the loss scale stay.

    Args:
        state: of `before`. It is not changed.
        params: the parameters from now on, which are taken as they are.
        step: what goes on.
        renames: names in `state.params` -> those in `params`, as in `ptree.rename`.
        before: the step that made the state; by default `step`.
        resized: as in `carry`.
        if_counts_differ: as in `carry`.

    Returns:
        The state, and what became of the slots.

    Raises:
        TypeError: `state` is no state of a step.
        StructureError: a step has used the memory of the state again.
        StructureError, PatternError: as `carry`.
    """
    before = step if before is None else before
    check_if_counts_differ(if_counts_differ)
    refuse_used(state, "carry_state(state, params, step)")
    with collection_paused():
        found = origins(state.params, params, renames)
        return carried_state(
            state, params, step, before, Movement(found, resized_paths(params, resized)), if_counts_differ
        )


class Movement(NamedTuple):
    """Where the leaves of all new parameters come from, and those that have another size."""

    origins: Mapping[str, Origin]
    resized: frozenset[str]

    def between(self, old: PyTree, new: PyTree) -> Changes:
        """What has changed between parts of the parameters."""
        return changes_of(old, new, self.origins, self.resized)


def carried_state(
    state: TrainState, params: PyTree, step: Step, before: Step, movement: Movement, if_counts_differ: IfCountsDiffer
) -> tuple[TrainState, Carried]:
    """As `carry_state`, with the origins of the parameters."""
    old, new = slot_params(before, state.params), slot_params(step, params)
    optimisers = step.pure.optimiser, before.pure.optimiser
    slots, report = carried(state.optimiser, old, new, *optimisers, movement.between(old, new), if_counts_differ)
    average = None if step.pure.ema is None else _carried_average(state, params, step, movement)
    scale = None
    if step.pure.scale is not None:
        scale = step.pure.scale.start() if state.scale is None else state.scale
    return TrainState(params, slots, state.step, state.key, average, scale), report


def slot_params(step: Step, params: PyTree) -> PyTree:
    """The parameters as the optimiser of a step sees them: those that are trained, in the dtypes of their gradients."""
    if not isinstance(step.pure.optimiser, Groups):
        params, _ = TrainedPart.of(step.pure.optimiser, params).split(params)
    if step.pure.scale is None:
        return params
    return with_wide_floats(params)


def _carried_average(state: TrainState, params: PyTree, step: Step, movement: Movement) -> PyTree:
    """The moving average for other parameters: it starts from the new ones where they join, and goes on where they are frozen."""
    trained = TrainedPart.of(step.pure.optimiser, params).paths
    if state.ema is None:
        return started(averaged_part(None, params, trained))
    averages = {path for path, _ in leaves(state.ema)}
    going_on = [
        path for path, origin in movement.origins.items() if all(piece.path in averages for piece in origin.pieces)
    ]
    chosen = averaged_part(None, params, trained.union(going_on))
    return _carried_values(_AVERAGE, state.ema, chosen, movement)


def carried_parameters(old: PyTree, new: PyTree, movement: Movement) -> PyTree:
    """The old parameters in the places of the new ones, which stay where there are no old ones."""
    return _carried_values(_PARAMETERS, old, new, movement)


def _carried_values(kind: optax.GradientTransformation, old: PyTree, new: PyTree, movement: Movement) -> PyTree:
    """Values of parameters as another model has them; those of `new` where it has others."""
    state, _ = carried(_Values(old), old, new, kind, kind, movement.between(old, new), "error")
    return state.values
