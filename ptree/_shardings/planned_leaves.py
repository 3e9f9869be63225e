"""Planned leaves: the sharding of each leaf on a mesh, and what one device holds of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

from jax.sharding import NamedSharding, PartitionSpec, Sharding

from .._tree import Leaves, PyTree
from .array_leaves import itemsize
from .meshes import AnyMesh, difference
from .request import Request
from .request_fit import Fit, Problems, fit
from .spec_fit import Shape
from .undivided_policies import Otherwise, policies

Source: TypeAlias = Literal["given", "parameter", "nothing"]
"""Whence a placement comes: it was given, by a rule or in a tree; it is that of a slot's parameter; the leaf is of no parameter."""
_REASON_OF_SOURCE: dict[Source, str] = {"given": "", "parameter": "as its parameter", "nothing": "of no parameter"}


class PlannedLeaf(NamedTuple):
    """Where a leaf lives on a mesh, and what one device holds of it.

    >>> import jax, ptree as pt
    >>> from jax.sharding import AbstractMesh, PartitionSpec as P
    >>> plan = pt.shard.plan({"w": pt.Param((8, 4))}, {"w": P("data")}, AbstractMesh((2,), ("data",)))
    >>> plan.leaves[0].path, plan.leaves[0].bytes_per_device, plan.leaves[0].reason
    ('w', 64, 'w')
    """

    path: str
    """The path of the leaf."""
    shape: Shape
    """Its shape."""
    dtype: Any
    """Its dtype."""
    sharding: NamedSharding
    """Where it lives."""
    bytes_per_device: int
    """What one device holds of it in its own memory."""
    rule: str
    """The selector of the rule that applies to it; empty where none does."""
    undivided: tuple[str, ...] = ()
    """For each dimension that was to be divided and stays whole, why."""
    source: Source = "given"
    """Where the placement comes from: "given" by a rule or in a tree, "parameter" for a slot that follows its
    parameter, "nothing" for what is of no parameter."""
    host_bytes_per_device: int = 0
    """What is in the memory of the host for each device, of a sharding with such a memory kind; it is not in `bytes_per_device`."""

    @property
    def bytes(self) -> int:
        """The size of the whole leaf."""
        return math.prod(self.shape) * itemsize(self.dtype)

    @property
    def reason(self) -> str:
        """The rule, or in words why a leaf of a state lives there; empty where it was given at the leaf's place in a tree."""
        return self.rule or _REASON_OF_SOURCE[self.source]

    @property
    def is_replicated(self) -> bool:
        """Whether each device holds all of it, in its own memory or in that of the host."""
        return self.bytes_per_device + self.host_bytes_per_device == self.bytes


_HOST_MEMORY = ("pinned_host", "unpinned_host")


def is_on_host(sharding: NamedSharding) -> bool:
    """Whether the parts are in the memory of the host, not in that of the devices."""
    return sharding.memory_kind in _HOST_MEMORY


def in_memory(leaf: PlannedLeaf) -> PlannedLeaf:
    """The leaf with the bytes of its part where its sharding's memory kind puts them."""
    if not is_on_host(leaf.sharding):
        return leaf
    return leaf._replace(bytes_per_device=0, host_bytes_per_device=leaf.bytes_per_device)


def planned_leaves(
    tree: PyTree, pairs: Leaves, requests: Mapping[str, Request], mesh: AnyMesh, otherwise: Otherwise
) -> list[PlannedLeaf]:
    """Plan where each leaf lives; leaves of one request and shape share the work and the sharding.

    Raises:
        ShardingError: a spec that does not fit its leaf, a sharding on another mesh; all of them at once.
        PatternError: rules of `otherwise` that apply to no leaf.
    """
    policy_of = policies(tree, otherwise)
    default = otherwise if isinstance(otherwise, str) else "error"
    fits: dict[tuple[int, Shape, str], Fit] = {}
    problems = Problems()
    planned: list[PlannedLeaf] = []
    for path, leaf in pairs:
        request, policy = requests[path], policy_of.get(path, default)
        shape, dtype = leaf.shape, leaf.dtype
        key = id(request), shape, policy
        if key not in fits:
            fits[key] = _fit_on(mesh, request, shape, policy)
        fitted = fits[key]
        if fitted.sharding is None:
            problems.add(path, leaf, request, fitted.problems)
            continue
        size = math.prod(fitted.part) * itemsize(dtype)
        planned.append(
            in_memory(PlannedLeaf(path, shape, dtype, fitted.sharding, size, request.rule, fitted.undivided))
        )
    problems.raise_if_any()
    return planned


def _fit_on(mesh: AnyMesh, request: Request, shape: Shape, policy: str) -> Fit:
    """`fit` on the one mesh of a plan."""
    why = _not_on(mesh, request.given)
    if why:
        return Fit(None, (), (), (why,))
    return fit(request, shape, mesh, policy)


def _not_on(mesh: AnyMesh, given: Sharding | PartitionSpec) -> str:
    if isinstance(given, PartitionSpec):
        return ""
    if not isinstance(given, NamedSharding):
        return "a plan is of PartitionSpecs and NamedShardings, on one mesh"
    why = difference(mesh, given.mesh)
    return f"it is on another mesh than that of the plan: {why}" if why else ""
