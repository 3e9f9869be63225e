"""like: where the state of an optimiser, an average or a whole run lives, with the parameters that it is of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jax.sharding import NamedSharding, PartitionSpec

from .._shardings import (
    Followed,
    Otherwise,
    Plan,
    Request,
    check_are_arrays,
    following,
    planned_leaves,
    requests_by_rules,
)
from .._tree import PyTree, leaves, stacked_axes

FOLLOWS = "as its parameter"
"""In the place of a rule, for what lives where its parameter lives."""
WHOLE = "no parameter"
"""In the place of a rule, for what each device holds since it follows no parameter."""


def like(state: PyTree, plan: Plan, rules: Mapping[Any, Any] | None = None, *, otherwise: Otherwise = "error") -> Plan:
    """Plan where the state of an optimiser, an average or a whole run lives: with the parameters that it is of."""
    pairs = leaves(state)
    check_are_arrays(pairs)
    parameters = {leaf.path: Followed(leaf.shape, leaf.sharding) for leaf in plan.leaves}
    found = following(pairs, parameters)
    whole = NamedSharding(plan.mesh, PartitionSpec())  # pyright: ignore[reportArgumentType]
    requests: dict[str, Request] = {}
    for path, _ in pairs:
        rule = FOLLOWS if path in found else WHOLE
        requests[path] = Request(found.get(path, whole), (True,) * stacked_axes(path), rule)
    if rules is not None:
        requests |= requests_by_rules(state, rules)
    return Plan(plan.mesh, planned_leaves(state, pairs, requests, plan.mesh, otherwise), state)
