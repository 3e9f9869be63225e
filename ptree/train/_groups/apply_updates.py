"""apply_updates: add updates to the leaves that have one."""

from __future__ import annotations

from typing import TypeVar

import optax

from ..._errors import StructureError
from ..._shardings import refuse_deleted
from ..._tree import leaves, replace_leaves
from ..._words import describe, lines, listed, quoted

T = TypeVar("T")


def apply_updates(params: T, updates: object) -> T:
    """The parameters with updates added to the leaves that have one; the others are the same objects.

    >>> import jax.numpy as jnp
    >>> params = {"embed": jnp.ones(3), "head": jnp.ones(2)}
    >>> new = apply_updates(params, {"head": jnp.full(2, -0.5)})
    >>> new["head"], new["embed"] is params["embed"]
    (Array([0.5, 0.5], dtype=float32), True)

    Sums have the dtype of the parameters, as by `optax.apply_updates`.

    Args:
        params: any pytree of arrays.
        updates: a tree of some of these leaves, as an optimiser gives it.

    Raises:
        StructureError: an update of no leaf, or one of another shape; arrays that were donated.
    """
    values, changes = dict(leaves(params)), dict(leaves(updates))
    unexpected = [path for path in changes if path not in values]
    problems = [f"updates of no parameter: {listed(unexpected)}"] if unexpected else []
    misshapen: list[str] = []
    for path, change in changes.items():
        if path in values and values[path].shape != change.shape:
            misshapen.append(path)
            problems.append(f"{quoted(path)} is {describe(values[path])}, its update {describe(change)}")
    if problems:
        text = lines(["cannot apply updates:", *problems])
        raise StructureError(text, unexpected=unexpected, misshapen=misshapen)
    try:
        new = {path: optax.apply_updates(values[path], change) for path, change in changes.items()}
    except (RuntimeError, ValueError) as error:
        refuse_deleted(error, "apply_updates", {"the parameters": params, "the updates": updates})
        raise
    return replace_leaves(params, new)
