"""Plan where each leaf of a tree lives on many devices, by rules, before anything is allocated; place it, and what follows it.

>>> import jax, ptree as pt
>>> from jax.sharding import PartitionSpec as P
>>> from ptree import shard
>>> spec = pt.Tree({"kernel": pt.Param((64, 128)), "bias": pt.Param((128,))})
>>> mesh = jax.sharding.AbstractMesh((4, 2), ("data", "model"))              # devices that need not exist
>>> plan = shard.plan(spec, {"**/kernel": P("data", "model"), "**": P()}, mesh)
>>> plan.bytes, plan.bytes_per_device
(33280, 4608)

Most used are `plan`, `auto`, which proposes rules, and `like`, which plans an optimiser's state. Guide: `examples/guides/many_devices.md`.
"""

from .._shardings import Plan as Plan  # where each leaf of a tree lives on a mesh
from .._shardings import PlannedLeaf as PlannedLeaf  # one of its leaves, and what each device holds of it
from .._shardings import ShardingError as ShardingError  # what cannot be placed where it should be

# rules proposed
from ._auto.auto import auto as auto  # for a tree and a mesh: by size, and by the roles of layers
from ._auto.rules import Rules as Rules  # what auto gives: a dict that prints as one would write it
from ._check_processes import check_processes as check_processes  # whether all of them have the same plan
from ._like import like as like  # where a state lives: with the parameters that it is of
from ._place import place as place  # a tree onto devices, by a plan
from ._plan import plan as plan  # a plan by rules

__all__ = [
    "plan", "auto", "place", "like", "check_processes", "Plan", "PlannedLeaf", "Rules", "ShardingError",
]  # fmt: skip
