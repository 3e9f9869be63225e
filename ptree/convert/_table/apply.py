"""Carry out a plan: read the arrays of the source, apply the operations, and fill the tree; or raise one error for all problems."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from ..._edit import leaves, replace_leaves
from ..._errors import FileError, StructureError
from ..._tree import Leaf, PyTree
from ..._words import lines, listed, quoted
from ...files._kinds import JAX_ARRAY, adopted, kind_of, refuse_cut
from ...files._leaf_targets import all_placed, targets_of_like
from ...files._template import Allowed, Fit, fit
from .._named_arrays import NamedArrays
from .._operations.constants import Constant
from .._operations.operation import MisfitError
from .conversion_plan import Plan, planned, tree_of_results
from .row import Row
from .step import Step

_FRAMES = 4
"""Of the functions that warn, of `applied` and of `Table.apply`, and then the caller's."""


def applied(
    rows: Sequence[Row], arrays: NamedArrays, like: PyTree, *, cast: bool, carried: Mapping[str, np.ndarray] | None
) -> PyTree:
    """Convert a source: `like` filled with its arrays, or a flat dict of them."""
    plan = planned(rows, arrays, like, carried, cast=cast)
    error = plan.error()
    if error is not None:
        raise error
    _warn_of_layers(plan)
    if like is None:
        _warn_of_constants(plan)
    results = _results(plan)
    if like is None:
        return results
    return _filled(plan, like, results, cast)


def _warn_of_layers(plan: Plan) -> None:
    """Warn of arrays that are written back for some layers only: without them a file lacks what it had."""
    for partial in plan.partial_layers:
        if partial.row.operation.is_written_back:
            warnings.warn(
                f"carried={{...}}: {partial.text}. If that is right, let the row of `carry` name these layers alone, such as"
                " h.0.mask or h.[02].mask; else give the others too: table.carried(source) has all",
                stacklevel=_FRAMES,
            )


def _warn_of_constants(plan: Plan) -> None:
    """Warn of constants with a `*` in their name, which nothing says what it stands for."""
    idle = [row.text for row in plan.rows if row.text in plan.idle_rows and isinstance(row.operation, Constant)]
    if idle:
        warnings.warn(
            f"constants that are not written, as nothing says for which names: {listed(idle)}. Give like=, which has them, or"
            " let the row say the numbers, such as h.{0..11}.mask",
            stacklevel=_FRAMES,
        )


def _results(plan: Plan) -> dict[str, np.ndarray]:
    """The arrays that a plan gives, by name.

    Raises:
        StructureError: values to which an operation cannot be applied.
        FileError: arrays that cannot be read.
    """
    results: dict[str, np.ndarray] = {}
    problems: list[str] = []
    unreadable: list[str] = []
    for step in plan.steps:
        try:
            arrays = _computed(step)
        except MisfitError as misfit:
            shown = ", ".join(quoted(source.name) for source in step.sources)
            problems.append(f"{shown}, by the row {step.row.text}: {misfit}")
            continue
        except FileError as error:
            unreadable.append(str(error))
            continue
        results.update(zip(step.targets, arrays, strict=True))
    if unreadable:
        raise FileError(f"cannot convert {plan.title}: {lines([*dict.fromkeys(unreadable), *problems])}")
    if problems:
        raise StructureError(f"cannot convert {plan.title}: {lines(problems)}")
    return results


def _computed(step: Step) -> list[np.ndarray]:
    """The arrays of one step."""
    unreadable = [source for source in step.sources if source.problem]
    if unreadable:
        raise FileError(f"{quoted(unreadable[0].name)} {unreadable[0].problem}")
    if step.kept is not None:
        return [step.kept]
    return step.operation.apply([source.fetch() for source in step.sources])


def _filled(plan: Plan, like: PyTree, results: Mapping[str, np.ndarray], cast: bool) -> PyTree:
    """`like` with the results, which are placed where its leaves are."""
    fitted: Fit = fit(tree_of_results(results), like, Allowed(cast=cast), origin="the source")
    error = fitted.error(f"cannot convert {plan.title}", ())
    if error is not None:
        raise StructureError(str(error))
    template = dict(leaves(like))
    filled = {path: _adopted(value, template[path], path) for path, value in fitted.values.items()}
    kept = {path: template[path] for path in fitted.report.kept}
    return replace_leaves(like, all_placed({**filled, **kept}, targets_of_like(like)))


def _adopted(value: Leaf, like: Leaf, path: str) -> Leaf:
    """A result as a leaf of the kind of `like`, in memory of its own: the source's may be changed, or be a mapped file."""
    if not isinstance(value, np.ndarray):
        return adopted(value, like, path)
    if isinstance(like, np.ndarray):
        return value.copy()
    if kind_of(like) in (None, JAX_ARRAY):
        refuse_cut({path: value.dtype}.items())
        return jnp.array(value)  # `device_put` would use NumPy's memory, also with may_alias=False
    return adopted(value, like, path)
