"""plan: where each leaf of a tree lives on a mesh, by rules, checked before anything is allocated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jax.sharding import PartitionSpec

from .._shardings import (
    AnyMesh,
    Otherwise,
    Plan,
    ShardingError,
    check_are_arrays,
    mesh_for_plan,
    planned_leaves,
    requests,
)
from .._tree import PyTree, leaves
from .._words import describe


def plan(
    tree: PyTree,
    rules: Mapping[Any, Any] | PartitionSpec,
    mesh: AnyMesh | None = None,
    *,
    otherwise: Otherwise = "error",
) -> Plan:
    """Plan where each leaf of a tree lives on a mesh, by rules."""
    pairs = leaves(tree)
    check_are_arrays(pairs)
    if isinstance(rules, Plan):
        raise ShardingError(f"plan(tree, rules, mesh): expected rules selector -> PartitionSpec, got {describe(rules)}")
    mesh = mesh_for_plan(mesh)
    request_of = requests(tree, pairs, rules)
    return Plan(mesh, planned_leaves(tree, pairs, request_of, mesh, otherwise), tree)
