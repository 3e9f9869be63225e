"""place: a tree onto the devices of a plan; inside of jit as constraints."""

from __future__ import annotations

from typing import TypeVar

from jax.core import Tracer

from .._shardings import Plan, constrained, put
from .._tree import Leaf, map_leaves

T = TypeVar("T")


def place(tree: T, plan: Plan) -> T:
    """Place each leaf of a tree where a plan says."""
    plan.check_fits(tree)
    plan = plan.with_devices()
    sharding_at = {leaf.path: leaf.sharding for leaf in plan.leaves}

    def placed(path: str, leaf: Leaf) -> Leaf:
        move = constrained if isinstance(leaf, Tracer) else put
        return move(leaf, sharding_at[path])

    return map_leaves(tree, placed)
