"""Claim: a Tree costs at most 0.98 times a plain nested dict on its way into a jitted function, 1.05 in and out.

The way in is what `dispatch` times: the function takes every leaf and gives back one number. `in_and_out` gives back the whole
tree, and `train_step` is a step of Adam, which takes and gives back parameters and state; for both the claim is 1.05.
Two shapes of tree: `flat` has a node for every two leaves, as a stack of dense layers; `deep` is nested four
levels, as a transformer, with nearly as many nodes as leaves, which is the worst that a real model has.
Run it with `python benchmarks/dispatch.py`. The baseline is hand-written JAX over nested dicts. Both run in one
process, in turn, in an order that changes at random; the ratio is the median of the ratios of neighbours.
"""

import itertools
import random
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax
from _command import Given, Option, main
from _results import Aim, Row
from _timing import ratio

import ptree as pt


def dense(at: int) -> dict[str, Any]:
    return {"kernel": jnp.full((2, 4), 1.0 + at), "bias": jnp.full((4,), 0.5)}


def flat(leaves: int) -> dict[str, Any]:
    return {f"layer_{at}": dense(at) for at in range(leaves // 2)}


def deep(leaves: int) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for at in range(leaves // 2):
        block = tree.setdefault(f"layer_{at // 4}", {}).setdefault(("attn", "mlp")[at // 2 % 2], {})
        block[("in", "out")[at % 2]] = dense(at)
    return tree


def dispatch(params: Any) -> Callable[[], Any]:
    """Call a jitted function that takes every leaf and does next to nothing: what is left is dispatch."""
    first = jax.jit(lambda p: jax.tree.leaves(p)[0] + 1)
    return lambda: first(params)


def in_and_out(params: Any) -> Callable[[], Any]:
    """Call a jitted function that gives back the tree that it was given."""
    same = jax.jit(lambda p: p)
    return lambda: same(params)


def train_step(params: Any) -> Callable[[], Any]:
    """Do one step of Adam, in and out through jit, with the state of the step before."""
    optimiser = optax.adam(1e-3)

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        loss = lambda p: sum((leaf**2).sum() for leaf in jax.tree.leaves(p))  # noqa: E731
        updates, state = optimiser.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    at = [params, optimiser.init(params)]

    def run() -> Any:
        at[:] = step(*at)
        return at[0]

    return run


def seconds(function: Callable[[], Any], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        result = function()
    jax.block_until_ready(result)
    return (time.perf_counter() - start) / calls


def compare(ours: Callable[[], Any], baseline: Callable[[], Any], rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of each in turns that are neighbours."""
    calls = max(1, int(0.01 / max(seconds(baseline, 5), 1e-9)))
    pairs: list[tuple[float, float]] = []
    for _ in range(rounds):
        if random.random() < 0.5:
            a, b = seconds(ours, calls), seconds(baseline, calls)
        else:
            b, a = seconds(baseline, calls), seconds(ours, calls)
        pairs.append((a, b))
    return [a for a, _ in pairs], [b for _, b in pairs]


WAYS = {"dispatch": (dispatch, 0.98), "in and out": (in_and_out, 1.05), "step of Adam": (train_step, 1.05)}
"""Name -> what is called, and the target."""


def rows(given: Given) -> Iterator[Row]:
    random.seed(0)
    sizes: list[int] = given.leaves
    for what, shape, leaves in itertools.product(WAYS, (flat, deep), sizes):
        way, limit = WAYS[what]
        plain = shape(leaves)
        tree = pt.Tree(plain)
        assert len(jax.tree.leaves(tree)) == leaves
        ours, baseline = way(tree), way(plain)
        a, b = ours(), baseline()
        chex.assert_trees_all_equal(pt.asdict(a) if isinstance(a, pt.Tree) else a, b)
        fast, base = compare(ours, baseline, given.rounds)
        name, size = f"{what}, {shape.__name__}", f"{leaves} leaves"
        share, spread = ratio(fast, base)
        yield Row(name, "ptree", median(fast), "s", size)
        yield Row(name, "nested dicts", median(base), "s", size, share, spread=spread, aim=Aim(limit))


OPTIONS = [
    Option("--rounds", 200, "how often both take their turn"),
    Option("--leaves", [16, 192, 768], "how many leaves the trees have"),
]

if __name__ == "__main__":
    main(rows, OPTIONS, ["optax"])
