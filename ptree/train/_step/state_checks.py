"""Check a state that comes from elsewhere against a step, and complete it: used up, of another optimiser, without an average."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import optax
from jax.core import Tracer

from ..._edit import Differences, differences, leaves, map_leaves, structure_error
from ..._errors import PtreeError, StructureError
from ..._shardings import deleted
from ..._tree import Leaf, PyTree
from ..._words import describe, lines, listed
from ...look import nonfinite
from .._groups.groups import Cohort, Groups, GroupsState
from .._groups.leaf_groups import part_of
from .._wide_floats import with_wide_floats
from .averaging import averaged_part, started
from .devices_of_state import apart, placed
from .pure_step import PureStep
from .train_state import TrainState
from .trained_part import TrainedPart


class LossError(PtreeError, ArithmeticError):
    """Error for a loss that is NaN or infinite.

    >>> import jax.numpy as jnp, optax
    >>> from ptree import train
    >>> step = train.step(lambda params, x: jnp.log(params["w"] * x).sum(), optax.sgd(0.1))
    >>> step(step.init({"w": jnp.zeros(2)}), jnp.ones(2))
    Traceback (most recent call last):
        ...
    ptree.train.LossError: the loss is -inf at the first step, and nothing was changed:
    ...
    """

    __module__ = "ptree.train"


def refuse_infinite_loss(loss: jax.Array, state: TrainState, batch: PyTree) -> None:
    """Raise if the loss of the first step is not finite, and say what else is not.

    Raises:
        LossError: nothing has changed.
    """
    value = float(np.asarray(loss.addressable_data(0)))
    if np.isfinite(value):
        return
    problems = [f"in the parameters {row}" for row in nonfinite(state.params).rows]
    problems += [f"in the batch {row}" for row in nonfinite({"batch": batch}).rows]
    if not problems:
        problems = ["parameters and batch are finite; ptree.look.first shows the layers one by one"]
    raise LossError(f"the loss is {value} at the first step, and nothing was changed:\n  " + lines(problems, "\n  "))


def refuse_traced(state: object) -> None:
    """Raise inside of `jit`, `vmap` or `scan`: a step compiles and places its state by itself.

    Raises:
        StructureError: arrays of the state are tracers.
    """
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(state)):
        raise StructureError(
            "step(state, batch) is compiled and places its state by itself, and cannot be called inside of jit, vmap, grad or"
            " scan. There use the function that it compiles: step.pure(state, batch)"
        )


def refuse_used(state: object, call: str = "step(state, batch)") -> None:
    """Raise unless this is a state whose arrays are still there.

    Raises:
        TypeError: it is no state.
        StructureError: an earlier step has taken its memory.
    """
    if not isinstance(state, TrainState):
        raise TypeError(f"{call}: expected what step.init(params) makes, got {describe(state)}")
    used = deleted(leaves(state))
    if used:
        raise StructureError(
            f"this state was given to a step before, which has used its memory again: {listed(used)}. Go on from the state"
            " that the step returned: state, metrics = step(state, batch). Or keep it: step(..., donate=False)"
        )


def refuse_used_parameters(params: PyTree) -> None:
    """Raise unless all arrays of parameters are still there.

    Raises:
        StructureError: a step of an earlier state, which was made of them, has taken their memory.
    """
    used = deleted(leaves(params))
    if used:
        raise StructureError(
            f"these parameters were given to step.init before, or share their memory with what was, as a spec's arrays after ptree.init"
            f" and arrays after shard.place, and the first step has used their memory again: {listed(used)}. Give it a copy: step.init(jax.tree.map(jnp.copy, params))"
        )


def refuse_groups_inside(slots: PyTree) -> None:
    """Raise if the state of an optimiser has that of `groups` inside: what is around them would count frozen leaves too.

    Raises:
        StructureError: it has.
    """
    if isinstance(slots, GroupsState):
        return
    nodes = jax.tree.leaves(slots, is_leaf=lambda node: isinstance(node, GroupsState))
    if any(isinstance(node, GroupsState) for node in nodes):
        raise StructureError(
            "the optimiser has groups inside of another transformation, which would see the frozen leaves too. Make groups"
            " the outermost: clip with groups(rules, clip=1.0), write optax.chain and scaled into the rules, and"
            " accumulate with step(..., accumulate=4)"
        )


def completed(pure: PureStep, state: TrainState) -> TrainState:
    """The state with all that the step needs: what it lacks of averages and loss scale starts now.

    Raises:
        StructureError: the state is of another optimiser, or has what the step does not go on with.
        TypeError: the loss takes a key, and the state has none.
    """
    if pure.gradients.loss.takes_key and state.key is None:
        raise TypeError(
            "the loss takes a key, and the state has none: dataclasses.replace(state, key=jax.random.key(0))"
        )
    if pure.ema is None and state.ema is not None:
        raise StructureError(
            "the state has a moving average, and the step none: step(..., ema=0.999) goes on with it,"
            " dataclasses.replace(state, ema=None) drops it"
        )
    if pure.scale is None and state.scale is not None:
        raise StructureError(
            "the state has a loss scale, and the step none: step(..., scale=LossScale()) goes on with it,"
            " dataclasses.replace(state, scale=None) drops it"
        )
    part = TrainedPart.of(pure.optimiser, state.params)
    trained, _ = part.split(state.params)
    _check_slots(pure, state, trained)
    new = state
    if pure.scale is not None and state.scale is None:
        new = replace(new, scale=pure.scale.start())
    if pure.ema is not None:
        new = replace(new, ema=_average(state.ema, averaged_part(state.ema, state.params, part.paths)))
    return apart(placed(new))


def _average(average: PyTree, params: PyTree) -> PyTree:
    """The moving average of these parameters: one that was frozen until now has been its own average.

    Raises:
        StructureError: a leaf has another shape in the average.
    """
    before = {} if average is None else dict(leaves(average))
    fresh = started(params)
    expected = dict(leaves(fresh))
    shared = {path: leaf for path, leaf in before.items() if path in expected}
    found = differences({path: expected[path] for path in shared}, shared)
    if found:
        raise structure_error(
            "the moving average does not fit the parameters",
            found,
            expected,
            before,
            sides=(" from the parameters", " in the average"),
        )
    return map_leaves(fresh, lambda path, leaf: before.get(path, leaf))


# ----------------------------------------------------------------------------- the optimiser


def _check_slots(pure: PureStep, state: TrainState, trained: PyTree) -> None:
    """Raise unless the optimiser's state has the slots that the optimiser makes for the parameters.

    Raises:
        StructureError: it is of another optimiser, or of other parameters.
    """
    expected = _expected_slots(pure, state, trained)
    if expected is None:  # the groups have a message of their own
        return
    wanted, given = dict(leaves(expected)), dict(leaves(state.optimiser))
    found = differences(wanted, given)._replace(mistyped=())
    if found:
        raise _other_optimiser(found, wanted, given)
    if jax.tree.structure(expected) != jax.tree.structure(state.optimiser):
        raise StructureError(
            "the state is of another optimiser: the paths of its slots are the same, but not their containers"
        )


def _expected_slots(pure: PureStep, state: TrainState, trained: PyTree) -> PyTree | None:
    """Shapes of the state that the optimiser makes; None where groups do not fit, which their update refuses."""
    shapes = map_leaves(trained, lambda path, leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))
    if pure.scale is not None:
        shapes = with_wide_floats(shapes)
    if not isinstance(pure.optimiser, Groups):
        return jax.eval_shape(pure.optimiser.init, shapes)
    if not isinstance(state.optimiser, GroupsState):
        return None
    paths = {path for path, _ in leaves(trained)}
    optimisers = {str(rule): optimiser for rule, optimiser in pure.optimiser.rules.items()}
    expected: dict[str, tuple[Cohort, ...]] = {}
    for rule, cohorts in state.optimiser.groups.items():
        if rule not in optimisers or not all(paths.issuperset(cohort.paths) for cohort in cohorts):
            return None
        expected[rule] = tuple(_expected_cohort(optimisers[rule], shapes, cohort.paths) for cohort in cohorts)
    return GroupsState(expected)


def _expected_cohort(optimiser: optax.GradientTransformation, shapes: PyTree, paths: tuple[str, ...]) -> Cohort:
    return Cohort(jax.eval_shape(optimiser.init, part_of(shapes, paths)), paths)


def _other_optimiser(found: Differences, expected: dict[str, Leaf], got: dict[str, Leaf]) -> StructureError:
    return structure_error(
        "the state is of another optimiser, or of other parameters",
        found,
        expected,
        got,
        fix="ptree.train.carry takes over what fits; step.init(params) begins anew.",
        sides=(" in this optimiser", " in the state"),
    )
