"""like: where the state of an optimiser, an average or a whole run lives, with the parameters that it is of."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from jax.sharding import NamedSharding, PartitionSpec

from .._errors import StructureError
from .._garbage_collection import collection_paused
from .._shardings import (
    Otherwise,
    Plan,
    PlannedLeaf,
    Source,
    array_leaves,
    check_is_plan,
    following,
    in_memory,
    itemsize,
    parameters_of_slots,
    part_shape,
    planned_leaves,
    requests_by_rules,
    slot_requests,
)
from .._tree import Leaves, PyTree
from .._words import listed


def like(state: PyTree, plan: Plan, rules: Mapping[Any, Any] | None = None, *, otherwise: Otherwise = "error") -> Plan:
    """Plan where the state of an optimiser, an average or a whole run lives: with the parameters that it is of.

    >>> import jax, optax, ptree as pt
    >>> from jax.sharding import PartitionSpec as P
    >>> spec = pt.Tree({"enc": {"kernel": pt.Param((64, 128)), "bias": pt.Param((128,))}})
    >>> mesh = jax.sharding.AbstractMesh((4, 2), ("data", "model"))
    >>> plan = pt.shard.plan(spec, {"**/kernel": P(None, "model"), "**": P()}, mesh)
    >>> state = jax.eval_shape(optax.adam(1e-3).init, pt.abstract(spec))
    >>> print(like(state, plan).table(90))
    path             shape        divided by  per device  rule
    0/count          i32[]        replicated         4 B  of no parameter
    0/mu/enc/kernel  f32[64,128]  -, model      16.0 KiB  as its parameter
    0/mu/enc/bias    f32[128]     replicated       512 B  as its parameter
    0/nu/enc/kernel  f32[64,128]  -, model      16.0 KiB  as its parameter
    0/nu/enc/bias    f32[128]     replicated       512 B  as its parameter
    8 devices: data=4, model=2; 65.0 KiB in 5 leaves; 33.0 KiB per device
    1.0 KiB of it (3.0%) on every device
    >>> zero = like(state, plan, {"**/{mu,nu}/**/kernel": P("data", "model")})     # the moments alone: ZeRO-1
    >>> zero["0/mu/enc/kernel"].spec == P("data", "model"), plan["enc/kernel"].spec == P(None, "model")
    (True, True)

    `jax.jit(tx.init, out_shardings=like(jax.eval_shape(tx.init, params), plan).shardings)(params)` makes each slot where it
    lives; without `out_shardings` JAX puts all of them on one device. A slot is found by the path of its parameter. One with
    more axes in front, a history, is divided along the others; one that has lost axes, such as the rows and columns of
    Adafactor, along those that are left. Where it is unclear which these are, and for what is of no parameter, such as counts
    and keys, each device holds all.

    Args:
        state: any pytree of arrays or shapes in which the paths of parameters come back: the state of any optimiser of
            optax or of `ptree.train.groups`, an average, gradients, a whole `ptree.train.TrainState`.
        plan: that of the parameters, or of those that are trained.
        rules: selector -> PartitionSpec, for leaves of the state that live elsewhere; strict, the first that matches wins. A spec
            has entries for the axes of one layer of the parameter, and for a stack's own axis where the rule spells `:`.
        otherwise: what becomes of dimensions that cannot be divided by these rules, as in `plan`.

    Returns:
        The plan of the state, on the same mesh.

    Raises:
        ShardingError: a spec that does not fit; all problems at once.
        PatternError: a rule that applies to no leaf of the state.
        StructureError: a leaf that is no array; a state of other parameters than those of the plan.
    """
    check_is_plan(plan, "like(state, plan)")
    with collection_paused():  # of the time for 100,000 leaves it would take a third
        pairs = array_leaves(state)
        parameter_of = parameters_of_slots([path for path, _ in pairs], plan.by_path)
        followers = _followers(pairs, parameter_of, plan)
        by_rule = {} if rules is None else requests_by_rules(state, rules)
        _check_some_follow(followers, by_rule, plan)
        if not by_rule:
            return Plan(plan.mesh, followers, state)
        ruled_pairs = [pair for pair in pairs if pair[0] in by_rule]
        request_of = slot_requests(by_rule, ruled_pairs, parameter_of, plan.by_path)
        ruled = planned_leaves(state, ruled_pairs, request_of, plan.mesh, otherwise)
        leaf_at = {leaf.path: leaf for leaf in ruled}
        return Plan(plan.mesh, [leaf_at.get(leaf.path, leaf) for leaf in followers], state)


def _check_some_follow(followers: Sequence[PlannedLeaf], by_rule: Collection[str], plan: Plan) -> None:
    """Raise if there are arrays that may be slots, and none is one of a parameter of the plan.

    Raises:
        StructureError: they are of other parameters.
    """
    alone = [leaf.path for leaf in followers if leaf.source == "nothing" and leaf.shape and leaf.path not in by_rule]
    if alone and plan.leaves and not any(leaf.source == "parameter" for leaf in followers):
        raise StructureError(
            f"the plan is for other parameters than the state: it has {listed(plan.by_path)}, and the state {listed(alone)}."
            " Give rules for what follows no parameter"
        )


def _followers(pairs: Leaves, parameter_of: Mapping[str, str], plan: Plan) -> list[PlannedLeaf]:
    """The leaves of a state where they live with their parameters, or whole on each device."""
    sharding_of = following(pairs, parameter_of, plan.by_path)
    whole = NamedSharding(plan.mesh, PartitionSpec())  # pyright: ignore[reportArgumentType]
    size_of: dict[tuple[int, tuple[int, ...], Any], int] = {}  # bytes of a part; few, which many leaves share
    planned: list[PlannedLeaf] = []
    for path, leaf in pairs:
        shape, dtype = leaf.shape, leaf.dtype
        sharding = sharding_of.get(path)
        source: Source = "nothing" if sharding is None else "parameter"
        sharding = whole if sharding is None else sharding
        key = id(sharding), shape, dtype
        if key not in size_of:
            size_of[key] = math.prod(part_shape(sharding.spec, shape, plan.mesh.shape)) * itemsize(dtype)
        planned.append(in_memory(PlannedLeaf(path, shape, dtype, sharding, size_of[key], "", source=source)))
    return planned
