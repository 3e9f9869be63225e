"""Shardings of arrays: find and check the sharding of every leaf, as drawing and loading take them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from jax.core import Tracer
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from .._tree import Leaf, PyTree, leaves
from .meshes import AnyMesh, has_devices, mesh_with_devices, no_devices
from .process_agreement import check_plan_in_processes, check_shardings_in_processes
from .request import Request
from .request_fit import Problems, fit
from .requests import requests
from .sharding_plan import Plan

Shardings: TypeAlias = Sharding | PartitionSpec | Plan | Mapping[Any, Any]
"""One for every leaf, a plan, a tree with one at each leaf's path, or rules selector -> one."""


def shardings_for(tree: PyTree, given: Shardings, mesh: Mesh | None = None) -> dict[str, Sharding]:
    """Find the sharding of every leaf, and check it against its shape: path -> sharding.

    >>> import jax
    >>> from ptree import Param, Tree
    >>> mesh = jax.make_mesh((1,), ("data",))
    >>> tree = Tree({"w": Param((4, 8)), "blocks": {":": {"w": Param((12, 4, 8))}}})
    >>> found = shardings_for(tree, {"**": PartitionSpec("data")}, mesh)
    >>> found["w"].spec == PartitionSpec("data"), found["blocks/:/w"].spec == PartitionSpec(None, "data")
    (True, True)

    A `PartitionSpec` speaks of one layer: for a leaf in a stack, the stack's own axis is not split. A rule that spells
    this axis, `"blocks/:/w"`, gives a spec with an entry for it. A `NamedSharding` means what its spec means, except at
    a leaf's own place in a tree of shardings: there it is the sharding of the whole array, as `array.sharding` is.
    Shardings of other kinds are always those of the whole array.

    Args:
        tree: any pytree of arrays, or of leaves with a shape.
        given: one for every leaf, a plan, a tree with one at each leaf's path, or rules selector -> one.
        mesh: the mesh of the PartitionSpecs; by default that of `jax.set_mesh`.

    Raises:
        PatternError: a rule that applies to no leaf, a leaf that has no sharding.
        StructureError: a plan of another tree; a plan or rules that differ from those of another process.
        ShardingError: an axis that the mesh does not have or that does not divide the shape, a mesh without devices, what is no sharding.
    """
    if isinstance(given, Plan):
        plan = given.with_devices(mesh)
        plan.check_fits(tree)
        check_plan_in_processes(plan)
        return {leaf.path: leaf.sharding for leaf in plan.leaves}
    pairs = leaves(tree)
    request_of = requests(tree, pairs, given)
    needs_mesh = any(isinstance(request.given, PartitionSpec) for request in request_of.values())
    mesh_of_specs = mesh_with_devices(mesh) if needs_mesh else None
    shardings: dict[str, Sharding] = {}
    problems = Problems()
    for path, leaf in pairs:
        request = request_of[path]
        found = _sharding(request, leaf, mesh_of_specs)
        if isinstance(found, Sharding):
            shardings[path] = found
        else:
            problems.add(path, leaf, request, found)
    problems.raise_if_any()
    check_shardings_in_processes(pairs, shardings)
    return shardings


def _sharding(request: Request, leaf: Leaf, mesh: AnyMesh | None) -> Sharding | tuple[str, ...]:
    """The sharding of a whole array, or why there is none."""
    given, shape = request.given, tuple(leaf.shape)
    if isinstance(given, NamedSharding) and not has_devices(given) and not isinstance(leaf, Tracer):
        return (f"its mesh is {no_devices(given.mesh)}",)
    if isinstance(given, (PartitionSpec, NamedSharding)):
        found = fit(request, shape, mesh)
        return found.problems if found.sharding is None else found.sharding
    if not isinstance(given, Sharding):
        return ("it is no Sharding and no PartitionSpec",)
    try:
        given.shard_shape(shape)  # raises unless it divides the shape
    except ValueError as error:
        return (str(error),)
    return given
