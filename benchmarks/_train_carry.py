"""carry of 10,000 leaves: beside the tracing of the optimiser's `init`, which it needs for the form of the new state."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax
from _command import Given
from _results import Aim, Row
from _timing import least_times

import ptree as pt
from ptree import train

LEAVES = 10_000


def parameters(layers: int) -> pt.Tree:
    """Layers of ten small leaves each."""
    layer = {f"w{at}": jnp.ones((4, 4)) for at in range(10)}
    return pt.Tree({f"layer{at}": layer for at in range(layers)})


def carry_part(given: Given) -> Iterator[Row]:
    """Times of the processor for the state of AdamW; kept slots are the same arrays, so their size does not matter."""
    optimiser = optax.adamw(1e-3)
    divided = train.groups({"**": optimiser})
    layers = max(10, LEAVES // 10 // given.shrink)
    params, size = parameters(layers), f"{10 * layers:,} leaves"
    renames: Any = {"layer*/**": "block*/**"}
    renamed = pt.rename(params, renames)
    larger = pt.put(params, "head", jnp.ones(3))
    start: Any = optimiser.init(params)
    state: Any = (start[0]._replace(count=jnp.array(1000)), *start[1:])
    in_groups, _ = train.carry(state, params, params, divided, before=optimiser)

    moved: Any
    moved, report = train.carry(state, params, renamed, optimiser, renames=renames)
    assert len(report.kept) == 10 * layers
    assert moved[0].mu["block7/w3"] is state[0].mu["layer7/w3"]
    joined: Any
    joined, report = train.carry(in_groups, params, larger, divided)
    assert [*report.fresh] == ["head"]
    assert [int(optax.tree.get(cohort.state, "count")) for cohort in joined.groups["**"]] == [1000, 0]

    ways = {
        "nothing changes": lambda: train.carry(state, params, params, optimiser),
        "all are renamed": lambda: train.carry(state, params, renamed, optimiser, renames=renames),
        "groups, a leaf joins": lambda: train.carry(in_groups, params, larger, divided),
    }
    for form, seconds in least_times(ways, min(3, given.rounds)).items():
        yield Row(f"carry of the state of AdamW, {form}", "ptree", seconds, "s", size, aim=Aim(1.0, "value"))
    tracing = least_times({"tracing": lambda: jax.eval_shape(optimiser.init, params)}, min(3, given.rounds))["tracing"]
    yield Row("... of it, `jax.eval_shape(optimiser.init, params)`", "optax", tracing, "s", size)
