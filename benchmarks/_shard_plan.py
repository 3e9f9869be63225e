"""How long planning takes: `plan` for the leaves of LLaMA-70B and of a mixture of experts, `like` for the state of its optimiser.

`python benchmarks/_shard_plan.py` prints the table; `benchmarks/shard.py` takes the functions. All is abstract: nothing is allocated.
Times are CPU time, the least of several.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

import jax
import optax
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


def least(function: Callable[[], object], repeats: int = 5) -> float:
    """The least CPU time of a call, in seconds."""
    times: list[float] = []
    for _ in range(repeats):
        gc.collect()
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


def measured(repeats: int = 5) -> dict[str, float]:
    """What is planned -> the least CPU time, in seconds."""
    llama, mixture = llama_70b(), mixture_of_experts()
    plan = shard.plan(mixture, MIXTURE_RULES, MESH)
    state = abstract_adamw(mixture)
    return {
        f"plan of LLaMA-70B, {len(pt.paths(llama))} leaves": least(
            lambda: shard.plan(llama, LLAMA_RULES, MESH), 4 * repeats
        ),
        f"plan of a mixture of experts, {len(plan.leaves):,} leaves": least(
            lambda: shard.plan(mixture, MIXTURE_RULES, MESH), repeats
        ),
        f"... and its table, {len(plan.table(100).splitlines())} lines": least(lambda: plan.table(100), repeats),
        "like of AdamW's state for it": least(lambda: shard.like(state, plan), repeats),
        "... and its tree of shardings": least(lambda: shard.like(state, plan).shardings, repeats),
    }


AIMS = {"plan of LLaMA-70B": 0.02, "plan of a mixture": 1.0, "like of AdamW": 1.0}


def main() -> None:
    """Print the table."""
    for what, seconds in measured().items():
        aim = next((f"at most {1e3 * limit:,.0f}" for name, limit in AIMS.items() if what.startswith(name)), "")
        print(f"{what:50} {1e3 * seconds:9.1f} ms  {aim}")


if __name__ == "__main__":
    main()
