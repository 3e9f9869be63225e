"""Claim: a deep model of ptree's layers traces, compiles and runs ahead of hand-written JAX and of the peers.

A GPT with pre-norm blocks (width 128, 4 heads, MLP 512, 64 places, batch 8, float32), one step of Adam, at 6 to 48
blocks, unrolled and stacked: the same weights for all, and the losses of the first five steps are checked to agree. The
baseline is hand-written JAX over nested dicts, unrolled and with `jax.lax.scan`; peers are Flax linen, Flax nnx, Equinox
and Haiku with their own layers for products and norms, and PyTorch, eager and compiled. Run it with
`python benchmarks/transformer.py` (with the `bench` and `torch` extras). Each runs in a process of its own, in turn.

`--gpt2` is GPT-2 small, 12 blocks of width 768 in bfloat16 over float32 parameters, with tokens per second and the share of
the rate that a product of matrices reaches on this device: that is what runs where there is a GPU.
"""

import sys
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _gpt import MODELS, Config, torch_apply, torch_params
from _results import Aim, Row
from _timing import ratio
from _training import in_jax, in_torch
from _turns import Column, Facts, Made, Runs, numbers, run

GPT2 = "--gpt2" in sys.argv or jax.default_backend() == "gpu"
WHO = [*MODELS, "PyTorch, eager", "PyTorch, compiled"]


def config(blocks: int) -> Config:
    if GPT2:
        return Config(blocks, 768, 12, 1024, 8 if jax.default_backend() == "gpu" else 1, 50257, jnp.bfloat16)
    return Config(blocks)


def make(who: str, blocks: int) -> Made:
    chosen = config(blocks)
    flat = chosen.weights()
    ids = np.random.default_rng(1).integers(chosen.vocabulary, size=(chosen.batch, chosen.time)).astype("int32")
    if who.startswith("PyTorch"):
        facts, turn = with_torch(chosen, flat, ids, who.endswith("compiled"))
    else:
        facts, turn = with_jax(who, chosen, flat, ids)
    return facts, with_rate(turn, chosen, flat) if GPT2 else turn


def with_jax(who: str, chosen: Config, flat: Any, ids: np.ndarray) -> Made:
    params, apply = MODELS[who](chosen, flat)

    def loss(params: Any, none: Any, ids: Any) -> Any:
        used = jax.tree.map(lambda leaf: leaf.astype(chosen.dtype), params) if chosen.dtype != jnp.float32 else params
        logits = apply(used, ids)[0].astype(jnp.float32)
        return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.roll(ids, -1, 1)).mean(), none

    return in_jax(params, loss, ids)


def with_rate(turn: Callable[[], Facts], chosen: Config, flat: Any) -> Callable[[], Facts]:
    """Turns that also say tokens per second, and what share they are of the rate of a product of matrices."""
    count, rate = sum(value.size for value in flat.values()), matrix_rate()
    per_token = 6 * count + 12 * chosen.blocks * chosen.width * chosen.time  # forward and backward (PaLM, appendix B)

    def turned() -> Facts:
        taken = turn()
        tokens = chosen.batch * chosen.time / taken["step"]
        return {**taken, "tokens": tokens, "share": tokens * per_token / rate}

    return turned


def with_torch(chosen: Config, flat: Any, ids: np.ndarray, compiled: bool) -> Made:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    places = torch.tensor(ids).long().to(device)
    params = {path: torch.nn.Parameter(leaf.detach().to(device)) for path, leaf in torch_params(flat).items()}

    def loss(params: Any, ids: Any) -> Any:
        with torch.autocast(device, torch.bfloat16, enabled=GPT2):
            logits = torch_apply(chosen, params, ids)
        return torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), ids.roll(-1, 1).flatten())

    return in_torch(params, loss, places, compiled=compiled)


def matrix_rate() -> float:
    """Operations per second of a product of matrices in bfloat16 on this device."""
    size = 8192 if jax.default_backend() == "gpu" else 1024
    a = jnp.ones((size, size), jnp.bfloat16)
    product = jax.jit(lambda a: a @ a)
    product(a).block_until_ready()
    start = time.perf_counter()
    for _ in range(10):
        last = product(a)
    last.block_until_ready()
    return 10 * 2 * size**3 / (time.perf_counter() - start)


PEERS = ("Flax linen", "Flax nnx", "Equinox", "Haiku")
STACKED = {"ptree": "ptree, stacked", "ptree, stacked": "ptree, stacked", "by hand, scan": "ptree, stacked"}
COLUMNS = [
    Column("trace + lower", ("trace", "lower"), aims=dict.fromkeys(PEERS, 0.5)),
    Column("compile", ("compile",), aims={"Flax linen": 1.0, "Flax nnx": 1.0}),
    Column(
        "trace + lower + compile",
        ("trace", "lower", "compile"),
        aims={"by hand, scan": 1.1},
        only=("ptree, stacked", "by hand, scan"),
    ),
    Column("first step", ("first",), in_file_only=True),
    Column("step of Adam", ("step",), aims={"Flax linen": 1.0, "Flax nnx": 1.0, "by hand": 1.0, "by hand, scan": 1.02}),
    Column("dispatch", ("dispatch",), aims={"ptree": 0.15}),
    Column("peak of memory", ("peak",), "B", in_file_only=True),
]
RATES = [Column("tokens", ("tokens",), "/ s"), Column("share of the rate of a matrix product", ("share",), "")]


def growth(found: dict[int, Runs]) -> Iterator[Row]:
    """What a stack of many blocks takes until it runs, over one of few."""
    few, many = min(found), max(found)
    names = ("trace", "lower", "compile")
    ours, theirs = (numbers(found[size].get("ptree, stacked", []), names) for size in (many, few))
    if few < many and ours:
        share, spread = ratio(ours, theirs)
        over = f"{many} blocks"
        yield Row(
            "trace + lower + compile",
            "ptree, stacked",
            median(theirs),
            "s",
            f"{few} blocks",
            share,
            over,
            spread,
            Aim(1.15),
        )


if __name__ == "__main__":
    if GPT2:
        sys.argv = [argument for argument in sys.argv if argument != "--gpt2"]
        run(__file__, make, WHO, [12], [*COLUMNS, *RATES], over=STACKED, rounds=1, tolerance=2e-2, options=["--gpt2"])
    else:
        run(__file__, make, WHO, [6, 12, 24, 48], COLUMNS, over=STACKED, aims_from=24, shown=(24,), further=growth)
