"""Claim: one-token decoding with a cache through ptree's attention is as fast as hand-written JAX.

The GPT of `transformer.py` at 6 and 24 blocks, one sequence, a cache of 256 places: a prompt of 16 letters, then a
jitted step for each token (the likeliest), caches donated. The baseline is hand-written JAX, unrolled and scanned; peers are
Flax linen, Flax nnx, Equinox and Haiku with their own layers for products and norms and the cache by hand, and PyTorch,
eager, with a cache that is changed in place. All are checked to say the same. Run it with `python
benchmarks/decode.py` (with the `bench` and `torch` extras).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _gpt import MODELS, Config, torch_apply, torch_params
from _timing import Clock
from _turns import Column, Facts, Made, run

PROMPT, TOKENS = 16, 40
WHO = [*MODELS, "PyTorch, eager"]
Start = Callable[[], tuple[Any, Any]]
Step = Callable[[Any, Any, int], tuple[Any, Any]]


def make(who: str, blocks: int) -> Made:
    config = Config(blocks, time=256)
    flat = config.weights()
    prompt = np.random.default_rng(1).integers(config.vocabulary, size=(1, PROMPT)).astype("int32")
    clock, facts = Clock(), Facts()
    start, step = in_pytorch(config, flat, prompt) if who.startswith("PyTorch") else in_jax(who, config, flat, prompt)
    start()
    facts["compile"] = clock.lap()

    def said(count: int) -> list[int]:
        tokens: list[Any] = []
        token, caches = start()
        clock.lap()
        for at in range(PROMPT, PROMPT + count):
            tokens.append(token)
            token, caches = step(token, caches, at)
        return [int(np.asarray(token).ravel()[0]) for token in tokens]

    def turn() -> Facts:
        said(TOKENS)
        return {"token": clock.lap() / TOKENS}

    return {**facts, "check": said(TOKENS)}, turn


def in_jax(who: str, config: Config, flat: Any, prompt: np.ndarray) -> tuple[Start, Step]:
    params, apply = MODELS[who](config, flat)
    stacked = who.endswith(("stacked", "scan"))

    def caches() -> Any:
        made = config.caches(stacked)
        if not who.startswith("ptree"):
            return made
        if stacked:
            return {"k": made[0], "v": made[1], "length": jnp.zeros(config.blocks, "int32")}
        return [{"k": k, "v": v, "length": jnp.zeros((), "int32")} for k, v in made]

    def likeliest(params: Any, ids: Any, caches: Any, start: Any) -> Any:
        logits, caches = apply(params, ids, caches, start)
        return logits[:, -1:].argmax(-1), caches

    step = jax.jit(likeliest, donate_argnums=2)
    first = jnp.asarray(prompt)
    jax.block_until_ready(step(params, first[:, :1], caches(), 0))
    return lambda: step(params, first, caches(), 0), lambda token, caches, at: step(params, token, caches, at)


def in_pytorch(config: Config, flat: Any, prompt: np.ndarray) -> tuple[Start, Step]:
    import torch

    params, ids = torch_params(flat), torch.tensor(prompt).long()

    def step(token: Any, caches: Any, at: int) -> Any:
        with torch.no_grad():
            logits = torch_apply(config, params, token, caches, at)
        return logits[:, -1:].argmax(-1), caches

    def start() -> Any:
        shape = (1, config.heads, config.time, config.width // config.heads)
        return step(ids, [(torch.zeros(shape), torch.zeros(shape)) for _ in range(config.blocks)], 0)

    return start, step


COLUMNS = [
    Column("first token, compiled", ("compile",)),
    Column("token", ("token",), aims={"by hand": 1.02, "by hand, scan": 1.02}),
    Column("peak of memory", ("peak",), "B", in_file_only=True),
]
STACKED = {"ptree, stacked": "ptree, stacked", "by hand, scan": "ptree, stacked"}

if __name__ == "__main__":
    run(__file__, make, WHO, [6, 24], COLUMNS, over=STACKED, shown=(24,), rounds=2, turns=15, tolerance=0)
