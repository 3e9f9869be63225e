"""How long planning takes: `plan` for the leaves of LLaMA-70B and of a mixture of experts, `like` for the state of its optimiser.

A part of shard.py. All is abstract: nothing is allocated. Times are of the processor, the least of several.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import optax
from _command import Given
from _results import Aim, Row
from _timing import least_times
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

import ptree as pt
from ptree import shard


def kernel(*shape: int) -> dict[str, pt.Param]:
    """A layer with nothing but a kernel."""
    return {"kernel": pt.Param(shape, "bfloat16")}


def llama_70b() -> pt.Tree:
    """The spec of LLaMA-70B, layers apart: 723 leaves."""
    width, hidden, keys, vocabulary, layers = 8192, 28672, 1024, 32000, 80
    block = {
        "attention": {"q": kernel(width, width), "k": kernel(width, keys), "v": kernel(width, keys), "o": kernel(width, width)},
        "mlp": {"gate": kernel(width, hidden), "up": kernel(width, hidden), "down": kernel(hidden, width)},
        "norm_1": {"scale": pt.Param((width,), "bfloat16")},
        "norm_2": {"scale": pt.Param((width,), "bfloat16")},
    }  # fmt: skip
    return pt.Tree({
        "embed": {"table": pt.Param((vocabulary, width), "bfloat16")},
        "blocks": [block] * layers,
        "norm": {"scale": pt.Param((width,), "bfloat16")},
        "head": kernel(width, vocabulary),
    })  # fmt: skip


LLAMA_RULES = {
    "**/{q,k,v,gate,up}/kernel": P("data", "model"),
    "**/{o,down}/kernel": P("model", "data"),
    "embed/table": P("model", "data"),
    "head/kernel": P("data", "model"),
    "**": P(),
}


def mixture_of_experts(layers: int = 130) -> pt.Tree:
    """The spec of a mixture of 256 experts with three kernels in each layer, apart: 100,000 leaves."""
    expert = {"gate": kernel(4096, 1024), "up": kernel(4096, 1024), "down": kernel(1024, 4096)}
    block = {"attention": {"q": kernel(4096, 4096), "o": kernel(4096, 4096)}, "experts": [expert] * 256}
    return pt.Tree({"embed": {"table": pt.Param((128000, 4096), "bfloat16")}, "blocks": [block] * layers})


MIXTURE_RULES = {
    "**/{gate,up,q}/kernel": P("data", "model"),
    "**/{down,o}/kernel": P("model", "data"),
    "embed/table": P("model", "data"),
}


def abstract_adamw(spec: pt.Tree) -> Any:
    """The state of AdamW for a spec, as shapes: `jax.eval_shape` takes minutes for 100,000 leaves."""
    moments = pt.abstract(spec)
    count: Any = jax.ShapeDtypeStruct((), "int32")
    return (optax.ScaleByAdamState(count, moments, moments), optax.EmptyState(), optax.ScaleByScheduleState(count))


MESH = AbstractMesh((64, 8), ("data", "model"))


ROUNDS = 5


def plan_rows(given: Given) -> Iterator[Row]:
    """What planning takes, in seconds of the processor."""
    llama, mixture = llama_70b(), mixture_of_experts(max(1, 130 // given.shrink))
    plan = shard.plan(mixture, MIXTURE_RULES, MESH)
    state = abstract_adamw(mixture)
    leaves = f"{len(plan.leaves):,} leaves"
    yield _row(
        "plan of LLaMA-70B", f"{len(pt.paths(llama))} leaves", lambda: shard.plan(llama, LLAMA_RULES, MESH), 0.02
    )
    yield _row("plan of a mixture of experts", leaves, lambda: shard.plan(mixture, MIXTURE_RULES, MESH), 1.0)
    yield _row("table of this plan", leaves, lambda: plan.table(100))
    yield _row("`like` of AdamW's state for it", leaves, lambda: shard.like(state, plan), 1.0)
    yield _row("... and the tree of shardings", leaves, lambda: shard.like(state, plan).shardings)


def _row(what: str, size: str, function: Callable[[], Any], limit: float | None = None) -> Row:
    seconds = least_times({what: function}, ROUNDS)[what]
    return Row(what, "ptree", seconds, "s", size, aim=None if limit is None else Aim(limit, "value"))
