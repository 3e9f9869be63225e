"""The whole state of a training run, of `step`, for a changed model: carried over in memory, or loaded from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ..._edit import Selector, differences, structure_error
from ..._errors import StructureError
from ..._garbage_collection import collection_paused
from ..._tree import Leaf, PyTree, Tree, leaves, map_leaves, replace_leaves
from ..._words import describe, lines, listed, quoted
from ...files import Checkpoints
from .._groups.frozen import FROZEN
from .._groups.groups import Cohort, Groups, GroupsState
from .._groups.leaf_groups import has_gradient, part_of, trained_groups
from .._step.averaging import started, wide
from .._step.step import Step
from .._step.train_state import TrainState
from .._step.trained_part import TrainedPart
from .carry import OneCount, carried, changes_of, check_one_count, resized_paths
from .destination import Changes
from .initial_state import InitialState
from .origins import Origin, origins
from .report import Carried
from .slots import abstract


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
    one_count: OneCount = "error",
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
        params: the parameters from here on, which are taken as they are.
        step: what goes on.
        renames: names in `state.params` -> those in `params`, as in `ptree.rename`.
        before: the step that made the state; by default `step`.
        resized: as in `carry`.
        one_count: as in `carry`.

    Returns:
        The state, and what became of the slots.

    Raises:
        StructureError, PatternError: as `carry`.
    """
    before = step if before is None else before
    check_one_count(one_count)
    with collection_paused():
        found = origins(state.params, params, renames)
        return _carried(state, params, step, before, _Movement(found, resized_paths(params, resized)), one_count)


class _Movement(NamedTuple):
    """Where the leaves of all new parameters come from, and those that have another size."""

    origins: Mapping[str, Origin]
    resized: frozenset[str]

    def between(self, old: PyTree, new: PyTree) -> Changes:
        """What has changed between parts of the parameters."""
        return changes_of(old, new, self.origins, self.resized)


def _carried(
    state: TrainState, params: PyTree, step: Step, before: Step, movement: _Movement, one_count: OneCount
) -> tuple[TrainState, Carried]:
    old, new = _slot_params(before, state.params), _slot_params(step, params)
    optimisers = step.pure.optimiser, before.pure.optimiser
    slots, report = carried(state.optimiser, old, new, *optimisers, movement.between(old, new), one_count)
    average = None if step.pure.ema is None else _carried_average(state, params, step, movement)
    scale = None
    if step.pure.scale is not None:
        scale = step.pure.scale.start() if state.scale is None else state.scale
    return TrainState(params, slots, state.step, state.key, average, scale), report


def _slot_params(step: Step, params: PyTree) -> PyTree:
    """The parameters as the optimiser of a step sees them: those that are trained, in the dtypes of their gradients."""
    if not isinstance(step.pure.optimiser, Groups):
        params = _trained(step, params)
    if step.pure.scale is None:
        return params
    return map_leaves(params, lambda path, leaf: _wide(leaf))


def _trained(step: Step, params: PyTree) -> PyTree:
    trained, _ = TrainedPart.of(step.pure.optimiser, params).split(params)
    return trained


def _wide(leaf: Leaf) -> Leaf:
    if not has_gradient(leaf):
        return leaf
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(leaf.shape, wide(leaf.dtype))
    return leaf.astype(wide(leaf.dtype))


def _carried_average(state: TrainState, params: PyTree, step: Step, movement: _Movement) -> PyTree:
    """The moving average for other parameters: it starts from the new ones where they join."""
    trained = _trained(step, params)
    return started(trained) if state.ema is None else _carried_values(_AVERAGE, state.ema, trained, movement)


def _carried_values(kind: optax.GradientTransformation, old: PyTree, new: PyTree, movement: _Movement) -> PyTree:
    """Values of parameters as another model has them; those of `new` where it has others."""
    values, _ = _values_and_report(kind, old, new, movement)
    return values


def _values_and_report(
    kind: optax.GradientTransformation, old: PyTree, new: PyTree, movement: _Movement
) -> tuple[PyTree, Carried]:
    state, report = carried(_Values(old), old, new, kind, kind, movement.between(old, new), "error")
    return state.values, report


# ------------------------------------------------------------------------------- from a checkpoint


def load_state(
    checkpoints: Checkpoints,
    like: TrainState,
    step: Step,
    *,
    at: int | Literal["best"] | None = None,
    renames: Mapping[Any, str] | None = None,
    before: Step | None = None,
    resized: Selector | None = None,
    one_count: OneCount = "error",
    missing: Literal["error", "keep"] = "error",
    cast: bool = False,
) -> tuple[TrainState, Carried]:
    """Load the state of a training run into a changed model, or another step: parameters and all that belongs to them, by path.

    >>> import tempfile, jax, jax.numpy as jnp, optax, ptree as pt
    >>> from ptree import train
    >>> loss = lambda params, x: sum(jnp.square(leaf * x).sum() for leaf in jax.tree.leaves(params))
    >>> step = train.step(loss, train.groups({"**": optax.adam(1e-3)}))
    >>> state, _ = step(step.init(pt.Tree({"enc": jnp.ones(3), "head": jnp.ones(2)})), 1.0)
    >>> with pt.Checkpoints(tempfile.mkdtemp()) as checkpoints:
    ...     _ = checkpoints.save(1, state)
    >>> like = step.init(pt.Tree({"encoder": jnp.zeros(3), "head": jnp.zeros(5)}))
    >>> state, report = train.load_state(checkpoints, like, step, renames={"enc": "encoder"}, missing="keep")
    >>> print(report)
    kept 1: ['encoder']
    fresh 1:
      head: its shape is (5,) now, (2,) before
    dropped 1: ['head']
    >>> int(state.step), state.params["encoder"], state.params["head"]
    (1, Array([0.999, 0.999, 0.999], dtype=float32), Array([0., 0., 0., 0., 0.], dtype=float32))

    Where nothing has changed `checkpoints.load(like=state)` is enough.

    Args:
        checkpoints: where states of `step`, or of `before`, were saved.
        like: the state of the changed model, `step.init(params)`: the file's parameters go into its containers and places.
        step: what goes on.
        at: which step to load: the newest by default.
        renames: names of parameters in the file -> those in `like`, as in `ptree.rename`.
        before: the step that made the state, if its optimiser kept other slots. Rules of `groups` may differ as long as
            the file has no others than `before`.
        resized: as in `carry`; of the parameters too, the rows that both have are the file's.
        one_count: as in `carry`.
        missing: "keep" leaves a parameter as it is in `like` where the file has none of this name and shape.
        cast: whether parameters may have another dtype in the file.

    Returns:
        The state, and what became of the slots.

    Raises:
        StructureError: parameters that the file does not have, or in another shape or dtype; a state of another optimiser,
            or of other groups; or as `carry`.
        PatternError: as `carry`.
        FileError: no step is there, or each is damaged.
    """
    before = step if before is None else before
    check_one_count(one_count)
    _, file = checkpoints.load(step=at)
    old = _state_in_file(file, like, before)
    with collection_paused():
        found = origins(old.params, like.params, renames)
        movement = _Movement(found, resized_paths(like.params, resized))
        params = _loaded_parameters(old.params, like.params, movement, missing, cast)
        return _carried(old, params, step, before, movement, one_count)


def _loaded_parameters(
    old: PyTree, like: PyTree, movement: _Movement, missing: Literal["error", "keep"], cast: bool
) -> PyTree:
    """The parameters of a file in the places of `like`.

    Raises:
        StructureError: it lists the parameters that are not in the file as they are in `like`.
    """
    if missing not in ("error", "keep"):
        raise StructureError(f"load_state: expected missing 'error' or 'keep', got {quoted(missing)}")
    params, report = _values_and_report(_PARAMETERS, old, like, movement)
    problems: list[str] = []
    if missing == "error":
        absent = {path: why for path, why in report.fresh.items() if path not in movement.resized}
        problems += [f"{quoted(path)}: {why}" for path, why in absent.items()]
    if not cast:
        problems += _other_dtypes(old, like, movement)
    if problems:
        fix = 'Say renames={"old": "new"}, missing="keep" to leave parameters as they are in `like`, or cast=True'
        raise StructureError(lines(["cannot load the parameters:", *problems, fix]))
    return params


def _other_dtypes(old: PyTree, like: PyTree, movement: _Movement) -> list[str]:
    """A sentence for each parameter that has another dtype in the file."""
    in_file = dict(leaves(old))
    problems: list[str] = []
    for path, leaf in leaves(like):
        origin = movement.origins.get(path)
        if origin is None:
            continue
        before = in_file[origin.pieces[0].path]
        if before.dtype != leaf.dtype:
            problems.append(f"{quoted(path)} is {describe(before)} in the file, and {describe(leaf)} in `like`")
    return problems


def _state_in_file(file: PyTree, like: TrainState, before: Step) -> TrainState:
    """The state in a file, which has names alone, as the step has made it."""
    if not isinstance(file, Tree) or "params" not in file or "optimiser" not in file:
        raise StructureError(
            f"the checkpoint is no TrainState: expected 'params' and 'optimiser' in it, got {describe(file)}"
        )
    params = _in_containers(file["params"], like.params)
    slots = _slots_in_file(file["optimiser"], _slot_params(before, params), before.pure.optimiser)
    scale = None
    if "scale" in file and before.pure.scale is not None:
        scale = replace_leaves(before.pure.scale.start(), dict(leaves(file["scale"])))
    average = file.get("ema")
    key = file.get("key", like.key)
    return TrainState(params, slots, jnp.asarray(file["step"]), key, average, scale)


def _in_containers(params: PyTree, like: PyTree) -> PyTree:
    """Parameters of a file in the containers of `like`, if these have the same paths, so that a mask as a tree fits."""
    found = dict(leaves(params))
    if found.keys() == dict(leaves(like)).keys() and not isinstance(like, Tree):
        return replace_leaves(like, found)
    return params


def _slots_in_file(file: PyTree, params: PyTree, optimiser: optax.GradientTransformation) -> PyTree:
    """The state of an optimiser in a file, in its own containers."""
    named = dict(leaves(file))
    if not isinstance(optimiser, Groups):
        return _filled(optimiser, params, named, "")
    found: dict[str, tuple[Cohort, ...]] = {}
    taken: set[str] = set()
    labelled = trained_groups(params, optimiser.rules)
    for rule, inner in optimiser.rules.items():
        cohorts: list[Cohort] = []
        while True:
            prefix = f"groups/{rule}/{len(cohorts)}/state/"
            paths = _paths_of_cohort(inner, params, named, prefix)
            if not paths:
                break
            cohorts.append(Cohort(_filled(inner, part_of(params, paths), named, prefix), paths))
            taken.update(name for name in named if name.startswith(prefix))
        if not cohorts and str(rule) in labelled and not _has_slots(inner, params):
            paths = labelled[str(rule)].paths
            cohorts.append(Cohort(_filled(inner, part_of(params, paths), named, f"groups/{rule}/0/state/"), paths))
            taken.update(name for name in named if name.startswith(f"groups/{rule}/0/state/"))
        if cohorts:
            found[str(rule)] = tuple(cohorts)
    others = [name for name in named if name not in taken]
    if others:
        raise StructureError(
            f"the checkpoint is of other groups: of {listed(others)} the rules {listed(map(str, optimiser.rules))} know"
            " nothing. Give the step that made it as before=",
            unexpected=others,
        )
    return GroupsState(found)


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


def _has_slots(optimiser: optax.GradientTransformation, params: PyTree) -> bool:
    return optimiser is not FROZEN and bool(_slot_names(optimiser, params))


def _paths_of_cohort(
    optimiser: optax.GradientTransformation, params: PyTree, named: Mapping[str, Leaf], prefix: str
) -> tuple[str, ...]:
    """The parameters that a cohort in a file has slots of."""
    if optimiser is FROZEN or not any(name.startswith(prefix) for name in named):
        return ()
    found: list[str] = []
    for param, names in _slot_names(optimiser, params).items():
        if all(prefix + name in named for name in names):
            found.append(param)
    chosen = {*found}
    return tuple(path for path, _ in leaves(params) if path in chosen)


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
