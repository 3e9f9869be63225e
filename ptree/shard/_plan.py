"""plan: where each leaf of a tree lives on a mesh, by rules, checked before anything is allocated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jax.sharding import NamedSharding, PartitionSpec

from .._garbage_collection import collection_paused
from .._shardings import (
    AnyMesh,
    Otherwise,
    Plan,
    Request,
    array_leaves,
    mesh_for_plan,
    planned_leaves,
    requests,
)
from .._tree import PyTree
from ..files._leaf_targets import shapes_of
from ..files._saved_tree import SavedTree


def plan(
    tree: PyTree,
    rules: Mapping[Any, Any] | PartitionSpec | NamedSharding,
    mesh: AnyMesh | None = None,
    *,
    otherwise: Otherwise = "error",
) -> Plan:
    """Plan where each leaf of a tree lives on the devices of a mesh, by rules; nothing is allocated or moved.

    >>> import jax, ptree as pt
    >>> from jax.sharding import PartitionSpec as P
    >>> block = {"up": {"kernel": pt.Param((768, 3072)), "bias": pt.Param((3072,))}, "down": {"kernel": pt.Param((3072, 768))}}
    >>> spec = pt.Tree({"embed": {"table": pt.Param((50257, 768))}, "blocks": [block] * 12})
    >>> mesh = jax.sharding.AbstractMesh((512, 8), ("data", "model"))        # 4,096 devices, of which there need be none
    >>> rules = {"**/up/kernel": P(None, "model"), "**/down/kernel": P("model"), "embed/table": P("model"), "**": P()}
    >>> spread = plan(spec, rules, mesh, otherwise={"embed": "replicate"})
    >>> print(spread.table(90))
    path                            shape           divided by    per device  rule
    embed/table                     f32[50257,768]  replicated *   147.2 MiB  embed/table
    blocks/{0..11}/up/kernel x12    f32[768,3072]   -, model        13.5 MiB  **/up/kernel
    blocks/{0..11}/up/bias x12      f32[3072]       replicated     144.0 KiB  **
    blocks/{0..11}/down/kernel x12  f32[3072,768]   model           13.5 MiB  **/down/kernel
    4,096 devices: data=512, model=8; 363.4 MiB in 37 leaves; 174.4 MiB per device
    147.4 MiB of it (84.5%) on every device
    * embed/table: dimension 0 of size 50257 cannot be divided by model=8: 50256 and 50264 can
    >>> spread["blocks/3/up/kernel"].spec == P(None, "model"), spread.devices
    (True, 4096)
    >>> plan(spec, rules, mesh)
    Traceback (most recent call last):
        ...
    ptree.shard.ShardingError: cannot place 'embed/table', f32[50257,768], as P...('model',): dimension 0 of size 50257 cannot be
    divided by model=8: 50256 and 50264 can

    A spec speaks of one layer, so that a stack and its single layers are divided alike; a rule that spells the stack's axis,
    `{"blocks/:": P("pipe")}`, has an entry for it. A tied leaf is placed once, by its own path and axes; rules
    that name two of its names must agree. `P()` and `P(None)` are one.
    The plan goes wherever shardings go: `ptree.init(spec, key, shardings=plan)`, `ptree.load(path, shardings=plan)`,
    `jax.jit(f, in_shardings=(plan.shardings,))`, and `plan.on(mesh)` is the same on devices.

    Args:
        tree: arrays, a spec, shapes, or an open file, from any pytree.
        rules: selector -> PartitionSpec or NamedSharding; strict, the first that matches wins. Also one for all, or a tree of them.
        mesh: a Mesh or an AbstractMesh; by default that of a NamedSharding in the rules, or that of `jax.set_mesh`.
        otherwise: what becomes of a dimension that cannot be divided into equal parts: "error"; "replicate", so that it stays whole,
            which the table says; or rules selector -> one of these, where "error" is for what no rule matches. A single number,
            which has no dimension, is replicated too.

    Raises:
        ShardingError: axes that the mesh does not have, that are there twice or that do not divide; more entries than
            dimensions; no mesh; what is no sharding, such as `"data"` for `P("data")`. All problems at once, with the sizes that would fit.
        PatternError: a rule that applies to no leaf, a leaf that no rule matches, two rules that name one leaf and do not agree.
        StructureError: a leaf that is no array.
    """
    if isinstance(tree, SavedTree):
        tree = shapes_of(tree.stored_tree())
    with collection_paused():  # of the time for 100,000 leaves it would take a third
        pairs = array_leaves(tree)
        request_of = requests(tree, pairs, rules)
        mesh = mesh_for_plan(_mesh_of_shardings(request_of) if mesh is None else mesh)
        return Plan(mesh, planned_leaves(tree, pairs, request_of, mesh, otherwise), tree)


def _mesh_of_shardings(request_of: Mapping[str, Request]) -> AnyMesh | None:
    """The mesh of the first NamedSharding that is given; None where all are PartitionSpecs."""
    for request in request_of.values():
        if isinstance(request.given, NamedSharding):
            return request.given.mesh
    return None
