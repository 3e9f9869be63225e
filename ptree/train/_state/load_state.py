"""load_state: the state of a training run from a checkpoint, for a changed model or another step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import jax
import jax.numpy as jnp

from ..._edit import Selector
from ..._errors import StructureError
from ..._garbage_collection import collection_paused
from ..._tree import PyTree, Tree, leaves, replace_leaves
from ..._words import describe, lines, quoted
from ...files import Checkpoints
from .._step.step import Step
from .._step.train_state import TrainState
from .carry import IfCountsDiffer, check_if_counts_differ
from .changes import resized_paths
from .file_places import file_places
from .file_slots import slots_in_file
from .origins import origins
from .report import Carried
from .runs import Movement, carried_parameters, carried_state, slot_params


def load_state(
    checkpoints: Checkpoints,
    like: PyTree,
    step: Step,
    *,
    at: int | Literal["best"] | None = None,
    renames: Mapping[Any, str] | None = None,
    before: Step | None = None,
    resized: Selector | None = None,
    if_counts_differ: IfCountsDiffer = "error",
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
    >>> params = pt.Tree({"encoder": jnp.zeros(3), "head": jnp.zeros(5)})
    >>> state, report = train.load_state(checkpoints, params, step, renames={"enc": "encoder"}, missing="keep")
    >>> print(report)
    kept 1: ['encoder']
    fresh 1:
      head: its shape is (5,) now, (2,) before
    dropped 1: ['head']
    >>> int(state.step), state.params["encoder"], state.params["head"]
    (1, Array([0.999, 0.999, 0.999], dtype=float32), Array([0., 0., 0., 0., 0.], dtype=float32))

    Where nothing has changed `checkpoints.load(like=state)` is enough, which needs a state to load into; this needs shapes. Each
    parameter, with its slots and its average, is read to where that of `like` is: of one that is divided over devices or
    processes each reads its own part.

    Args:
        checkpoints: where states of `step`, or of `before`, were saved.
        like: the parameters of the changed model, in whose containers and places those of the file are put. Shapes are
            enough, `jax.eval_shape(init, key)` with shardings or without, for all that the file has.
        step: what goes on.
        at: which step to load: the newest by default.
        renames: names of parameters in the file -> those in `like`, as in `ptree.rename`.
        before: the step that made the state, if its optimiser kept other slots. Rules of `groups` may differ as long as
            the file has no others than `before`.
        resized: as in `carry`; of the parameters too, the rows that both have are the file's.
        if_counts_differ: as in `carry`.
        missing: "keep" leaves a parameter as it is in `like` where the file has none of this name and shape.
        cast: whether parameters may have another dtype in the file.

    Returns:
        The state, and what became of the slots; a parameter that is kept from `like` is fresh there.

    Raises:
        StructureError: parameters that the file does not have, or in another shape or dtype; a state of another optimiser,
            or of other groups; or as `carry`.
        PatternError: as `carry`.
        FileError: no step is there, or each is damaged.
    """
    before = step if before is None else before
    check_if_counts_differ(if_counts_differ)
    if missing not in ("error", "keep"):
        raise StructureError(f"load_state: expected missing 'error' or 'keep', got {quoted(missing)}")
    if isinstance(like, TrainState):
        raise StructureError(
            "load_state takes parameters, or their shapes, as `like`, got a TrainState: give state.params"
        )
    _, file = checkpoints.load(step=at, shardings=lambda shapes: file_places(shapes, like, renames))
    old = _state_in_file(file, like, before)
    with collection_paused():
        movement = Movement(origins(old.params, like, renames), resized_paths(like, resized))
        absent = _absent(old.params, like, movement)
        _check_parameters(old.params, like, movement, absent, missing, cast)
        params = carried_parameters(old.params, like, movement)
        state, report = carried_state(old, params, step, before, movement, if_counts_differ)
    return state, replace(report, fresh={**absent, **report.fresh})


def _absent(old: PyTree, like: PyTree, movement: Movement) -> dict[str, str]:
    """The parameters that are not in the file -> why."""
    changes = movement.between(old, like)
    found: dict[str, str] = {}
    for path, _ in leaves(like):
        why = changes.why_new(path)
        if why:
            found[path] = why
    return found


def _check_parameters(
    old: PyTree,
    like: PyTree,
    movement: Movement,
    absent: Mapping[str, str],
    missing: Literal["error", "keep"],
    cast: bool,
) -> None:
    """
    Raises:
        StructureError: it lists the parameters that are not in the file as they are in `like`, unless they may be.
    """
    problems: list[str] = []
    if missing == "error":
        problems += [f"{quoted(path)}: {why}" for path, why in absent.items()]
    else:
        problems += _without_values(like, [*absent, *movement.resized])
    if not cast:
        problems += _other_dtypes(old, like, movement)
    if problems:
        fix = (
            'Say renames={"old": "new"}, resized=[...] for leaves that `resize` has changed, missing="keep" to leave parameters'
            " as they are in `like`, or cast=True"
        )
        raise StructureError(lines(["cannot load the parameters:", *problems, fix]))


def _without_values(like: PyTree, paths: list[str]) -> list[str]:
    """A sentence for each of these parameters that is a shape alone."""
    found = dict(leaves(like))
    shapes = [path for path in paths if isinstance(found[path], jax.ShapeDtypeStruct)]
    return [f"{quoted(path)} is not in the file, or not all of it, and a shape alone in `like`" for path in shapes]


def _other_dtypes(old: PyTree, like: PyTree, movement: Movement) -> list[str]:
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


def _state_in_file(file: PyTree, like: PyTree, before: Step) -> TrainState:
    """The state in a file, which has names alone, as the step has made it."""
    if not isinstance(file, Tree) or "params" not in file or "optimiser" not in file:
        raise StructureError(
            f"the checkpoint is no TrainState: expected 'params' and 'optimiser' in it, got {describe(file)}"
        )
    params = _in_containers(file["params"], like)
    slots = slots_in_file(file["optimiser"], slot_params(before, params), before.pure.optimiser)
    scale = None
    if "scale" in file and before.pure.scale is not None:
        scale = replace_leaves(before.pure.scale.start(), dict(leaves(file["scale"])))
    return TrainState(params, slots, jnp.asarray(file["step"]), file.get("key"), file.get("ema"), scale)


def _in_containers(params: PyTree, like: PyTree) -> PyTree:
    """Parameters of a file in the containers of `like`, if these have the same paths, so that a mask as a tree fits."""
    found = dict(leaves(params))
    if found.keys() == dict(leaves(like)).keys() and not isinstance(like, Tree):
        return replace_leaves(like, found)
    return params
