"""Claim: the gradient of low-rank factors costs no memory for the kernels that they change, and no time beside a hand-written one.

A GPT of 12 stacked blocks; the gradient of the mean of squares with respect to the factors, all else fixed. `view` is at most
0.75 of the temporary memory of the merged form, which adds `a @ b` to each kernel first, and at most 1.05 times the time of
hand-written JAX. Values and gradients are checked equal first. Memory is what XLA plans: arguments and results not counted.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _command import Given
from _results import Aim, Row
from _timing import least_times, rows_of_times
from jax.stages import Compiled

import ptree as pt
from ptree import nn
from ptree.train import Rank, lora, merged, view

BLOCKS, WIDTH, HEADS, TIME, BATCH, RANK, SCALE = 12, 256, 4, 128, 2, 8, 2.0

RULES = {
    "attention, q and v": {"**/{q,v}/kernel": Rank(RANK, alpha=SCALE * RANK)},
    "all kernels": {"**/kernel": Rank(RANK, alpha=SCALE * RANK)},
}


def model(width: int) -> nn.Layer:
    attention = nn.Residual(nn.Sequential(nn.LayerNorm(), nn.MultiHeadAttention(HEADS, causal=True)))
    up, down = nn.Dense(4 * width), nn.Dense(width)
    mlp = nn.Residual(nn.Sequential(nn.LayerNorm(), up, jax.nn.gelu, down))
    return nn.Repeat(nn.Sequential(attention, mlp), BLOCKS, remat=True)


def by_hand(params: Any, delta: Any, x: jax.Array) -> jax.Array:
    """The same model in plain JAX over nested dicts, with the factors of each product written out."""

    def norm(p: Any, x: jax.Array) -> jax.Array:
        mean = x.mean(-1, keepdims=True)
        return (x - mean) * jax.lax.rsqrt(((x - mean) ** 2).mean(-1, keepdims=True) + 1e-5) * p["scale"] + p["bias"]

    def dense(p: Any, d: Any, x: jax.Array) -> jax.Array:
        kernel = p["kernel"].reshape(x.shape[-1], -1)
        y = x @ kernel + p["bias"].reshape(-1)
        if not d:
            return y
        a, b = d["kernel"]["scale=2"]["a"], d["kernel"]["scale=2"]["b"]
        return y + SCALE * (x @ a.reshape(x.shape[-1], RANK)) @ b.reshape(RANK, -1)

    def block(x: jax.Array, layer: Any) -> tuple[jax.Array, None]:
        p, d = layer
        here, low = p["0"]["inner"]["1"], d.get("0", {"inner": {"1": {}}})["inner"]["1"]
        y = norm(p["0"]["inner"]["0"], x)
        q, k, v = (dense(here[name], low.get(name), y).reshape(*x.shape[:2], HEADS, -1) for name in "qkv")
        scores = jnp.einsum("bthk,bshk->bhts", q, k) * (x.shape[-1] // HEADS) ** -0.5
        seen = jnp.tril(jnp.ones((TIME, TIME), bool))
        weights = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf))
        y = jnp.einsum("bhts,bshk->bthk", weights, v).reshape(*x.shape[:2], -1)
        x = x + dense(here["o"] | {"kernel": here["o"]["kernel"].reshape(x.shape[-1], x.shape[-1])}, low.get("o"), y)
        here, low = p["1"]["inner"], d.get("1", {"inner": {}})["inner"]
        y = jax.nn.gelu(dense(here["1"], low.get("1"), norm(here["0"], x)))
        return x + dense(here["3"], low.get("3"), y), None

    return jax.lax.scan(jax.checkpoint(block, prevent_cse=False), x, (params[":"], delta[":"]))[0]


def run_once(program: Compiled, args: tuple[Any, ...]) -> Any:
    return jax.block_until_ready(program(*args))


def temporary_bytes(program: Compiled) -> int:
    analysis = program.memory_analysis()
    assert analysis is not None
    return analysis.temp_size_in_bytes


def lora_part(given: Given) -> Iterator[Row]:
    width = WIDTH // min(8, given.shrink)
    net, x = model(width), jax.random.normal(jax.random.key(0), (BATCH, TIME, width))
    params = net.init(jax.random.key(1), x)
    # The base is a constant of none of the programs, as it would be for weights of many gigabytes.
    losses: dict[str, Callable[..., jax.Array]] = {
        "by hand": lambda delta, params, x: (by_hand(pt.asdict(params), pt.asdict(delta), x) ** 2).mean(),
        "ptree": lambda delta, params, x: (net(view(params, delta), x) ** 2).mean(),
        "merged": lambda delta, params, x: (net(merged(params, delta), x) ** 2).mean(),
    }
    for what, rules in RULES.items():
        drawn = lora(params, rules, jax.random.key(2))
        delta = jax.tree.map(lambda leaf: leaf + 0.01, drawn)
        gradients = {
            name: jax.jit(jax.value_and_grad(loss)).lower(delta, params, x).compile() for name, loss in losses.items()
        }
        whole = jax.jit(jax.value_and_grad(lambda params, x: (net(params, x) ** 2).mean())).lower(params, x).compile()
        value, first = gradients["by hand"](delta, params, x)
        for gradient in gradients.values():
            other, grads = gradient(delta, params, x)
            np.testing.assert_allclose(other, value, rtol=1e-4)
            for path, grad in pt.items(grads):
                np.testing.assert_allclose(grad, first[path], rtol=2e-2, atol=1e-4, err_msg=path)
        programs: dict[str, tuple[Compiled, tuple[Any, ...]]] = {
            name: (run, (delta, params, x)) for name, run in gradients.items()
        }
        programs["all of the parameters"] = (whole, (params, x))
        runs = {name: partial(run_once, *program) for name, program in programs.items()}
        times = least_times(runs, min(7, given.rounds))
        memory = {name: temporary_bytes(program) for name, (program, _) in programs.items()}
        title = f"gradient of factors of {what}"
        yield from rows_of_times(title, times, ratios={"by hand": 1.05})
        for name, size in memory.items():
            aim = Aim(0.75) if name == "merged" else None
            share = None if name == "ptree" else memory["ptree"] / size
            yield Row(f"{title}, temporary memory", name, size, "B", ratio=share, aim=aim)
