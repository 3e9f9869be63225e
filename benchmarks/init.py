"""Claim: GPT-2 small, from nothing to ready arrays in a fresh process, takes at most 0.6 times the best JAX peer.

124 M parameters in 148 leaves, the first call, compile time included. Run it with `python benchmarks/init.py`.
Each number is a process of its own, the contestants in turn: imports and the start of JAX's backend are not counted,
then the clock runs from before the model is declared until all arrays are ready. There is no compilation cache.
Leaves, numbers and values are checked in each: tables and kernels normal with 0.02, biases 0, scales 1.

What could be in doubt is decided for the peers: Flax linen and Haiku, which need a forward pass, get the bare chain of
layers for one token; Equinox, whose `Linear` takes no initialiser, gets a `Dense` that draws once. "All numbers as one array" draws as
many normals in one array with one compiled call; "by hand" is a dict comprehension of eager calls. The peak is of
resident memory, over what it was when the clock started, in units of the parameters' bytes.

The rows of leaves of ten shapes show that the time grows with the kinds of leaves, and not with the leaves.
"""

import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _command import Given, Option, main
from _results import Aim, Row
from _timing import ratio

Build = Callable[[], Any]  # declares and draws a model, any pytree of arrays; what makes one has done its imports
Shapes = dict[str, tuple[int, ...]]

SHRINK = int(sys.argv[3]) if sys.argv[1:2] == ["--one"] else 1
BLOCKS, WIDTH, TOKEN = max(1, 12 // SHRINK), 768 // SHRINK, np.zeros((1, 1), int)
TABLES = {"wte": (50257 // SHRINK, WIDTH), "wpe": (1024, WIDTH)}
NORMAL = jax.nn.initializers.normal(0.02)  # which is Flax's too
ATTENTION = {"ln_1": (WIDTH,), "attn/qkv": (WIDTH, 3 * WIDTH), "attn/proj": (WIDTH, WIDTH)}
MLP = {"ln_2": (WIDTH,), "mlp/up": (WIDTH, 4 * WIDTH), "mlp/down": (4 * WIDTH, WIDTH)}


def gpt2() -> Shapes:
    """Path -> shape of all 148 leaves."""
    blocks = {f"blocks/{at}/{name}": shape for at in range(BLOCKS) for name, shape in (ATTENTION | MLP).items()}
    shapes: Shapes = dict(TABLES)
    for name, shape in {**blocks, "ln_f": (WIDTH,)}.items():
        shapes |= {f"{name}/{'scale' if len(shape) == 1 else 'kernel'}": shape, f"{name}/bias": shape[-1:]}
    return shapes


NUMBERS = sum(math.prod(shape) for shape in gpt2().values())
assert SHRINK > 1 or NUMBERS == 124_439_808


def ten_kinds(leaves: int) -> Shapes:
    return {f"layer_{at}/kernel": (64, 16 * (at % 10 + 1)) for at in range(leaves)}


def layers(table: Callable[..., Any], norm: Build, dense: Callable[..., Any]) -> list[Any]:
    """GPT-2's layers, for frameworks that draw when a layer is made."""
    shapes = list((ATTENTION | MLP).values()) * BLOCKS
    return [*(table(*s) for s in TABLES.values()), *(norm() if len(s) == 1 else dense(*s) for s in shapes), norm()]


def chain(table: Callable[..., Any], norm: Build, dense: Callable[[int], Any], token: Any) -> Any:
    """A pass through the same layers, for frameworks that draw when a layer is called."""
    x = sum(table(*shape)(token) for shape in TABLES.values())
    for _ in range(BLOCKS):
        x = x + dense(WIDTH)(dense(3 * WIDTH)(norm()(x))[..., :WIDTH])
        x = x + dense(WIDTH)(dense(4 * WIDTH)(norm()(x)))
    return norm()(x)


def ptree(shapes: Callable[[], Shapes]) -> Build:
    import ptree as pt
    from ptree import initializers as I

    def build() -> Any:
        given = {"bias": I.zeros, "scale": I.ones}
        spec = {path: pt.Param(s, init=given.get(path.split("/")[-1], I.normal(0.02))) for path, s in shapes().items()}
        return pt.init(pt.unflatten(spec), jax.random.key(0))

    return build


def linen(jitted: bool) -> Build:
    from flax import linen as nn

    class GPT2(nn.Module):
        @nn.compact
        def __call__(self, token: Any) -> Any:
            table, dense = partial(nn.Embed, embedding_init=NORMAL), partial(nn.Dense, kernel_init=NORMAL)
            return chain(table, nn.LayerNorm, dense, token)

    return lambda: (jax.jit(GPT2().init) if jitted else GPT2().init)(jax.random.key(0), TOKEN)


def nnx(jitted: bool) -> Build:
    from flax import nnx

    def create() -> Any:
        rngs = nnx.Rngs(0)
        table = partial(nnx.Embed, embedding_init=NORMAL, rngs=rngs)
        dense = partial(nnx.Linear, kernel_init=NORMAL, rngs=rngs)
        return nnx.List(layers(table, partial(nnx.LayerNorm, WIDTH, rngs=rngs), dense))

    return lambda: (nnx.jit(create) if jitted else create)()


def equinox(jitted: bool) -> Build:
    import equinox as eqx

    class Dense(eqx.Module):
        weight: jax.Array
        bias: jax.Array

    def create(key: Any) -> Any:
        keys = iter(jax.random.split(key, len(TABLES) + 4 * BLOCKS))

        def table(*shape: int) -> Any:
            return eqx.nn.Embedding(weight=NORMAL(next(keys), shape))

        def dense(*shape: int) -> Any:
            return Dense(NORMAL(next(keys), shape), jnp.zeros(shape[-1]))

        return layers(table, partial(eqx.nn.LayerNorm, WIDTH), dense)

    return lambda: (eqx.filter_jit(create) if jitted else create)(jax.random.key(0))


def haiku(jitted: bool) -> Build:
    import haiku as hk

    normal = hk.initializers.RandomNormal(0.02)

    def forward(token: Any) -> Any:
        table, dense = partial(hk.Embed, w_init=normal), partial(hk.Linear, w_init=normal)
        return chain(table, partial(hk.LayerNorm, -1, True, True), dense, token)

    init = hk.transform(forward).init
    return lambda: (jax.jit(init) if jitted else init)(jax.random.key(0), TOKEN)


def pytorch() -> Build:
    import torch

    def draw(module: Any) -> None:
        if isinstance(module, torch.nn.Linear | torch.nn.Embedding):
            torch.nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.zeros_(module.bias)

    def build() -> Any:
        made = layers(torch.nn.Embedding, partial(torch.nn.LayerNorm, WIDTH), torch.nn.Linear)
        return [p.detach() for p in torch.nn.ModuleList(made).apply(draw).parameters()]

    return build


def by_hand() -> Any:
    given = {"bias": jax.nn.initializers.zeros, "scale": jax.nn.initializers.ones}
    keys = jax.random.split(jax.random.key(0), len(gpt2()))
    return {p: given.get(p.split("/")[-1], NORMAL)(key, shape) for (p, shape), key in zip(gpt2().items(), keys)}


def one_array() -> Any:
    return jax.jit(lambda key: NORMAL(key, (NUMBERS,)))(jax.random.key(0))


ONE_ARRAY = "all numbers as one array"
FRAMEWORKS = {"Flax linen": linen, "Flax nnx": nnx, "Equinox": equinox, "Haiku": haiku}
PEERS = {f"{who}, {how}": partial(made, how == "jit") for who, made in FRAMEWORKS.items() for how in ("eager", "jit")}
REST = {"PyTorch, eager": pytorch, "by hand, eager": lambda: by_hand, ONE_ARRAY: lambda: one_array}
MODELS: dict[str, Callable[[], Build]] = {"ptree": partial(ptree, gpt2), **PEERS, **REST}
KINDS = {f"ptree, {leaves:,} leaves": partial(ptree, partial(ten_kinds, leaves)) for leaves in (10, 100, 1000)}


def resident(field: str) -> int:
    """Bytes, from the kernel's account of this process."""
    return int(re.findall(rf"{field}:\s*(\d+)", Path("/proc/self/status").read_text())[0]) * 1024


def check(who: str, values: list[np.ndarray]) -> None:
    """What is drawn has its standard deviation within 1 % (five standard errors where few vary more), the rest is all 0 or all 1."""
    drawn = [value for value in values if value.ndim == 2 or who == ONE_ARRAY]
    fixed = [value for value in values if value.ndim == 1 and who != ONE_ARRAY]
    assert all(abs(value.std() / 0.02 - 1) < max(0.01, 5 / (2 * value.size) ** 0.5) for value in drawn)
    assert all((value == value[0]).all() for value in fixed)
    assert {value.dtype for value in values} == {np.dtype("float32")}
    assert sum(value.size for value in values) == NUMBERS or who in KINDS
    assert sorted(value[0] for value in fixed) == [0] * (6 * BLOCKS + 1) + [1] * (2 * BLOCKS + 1) or who in [
        *KINDS,
        ONE_ARRAY,
    ]


def measured(who: str) -> dict[str, float]:
    jax.config.update("jax_enable_compilation_cache", False)
    build = (MODELS | KINDS)[who]()
    events: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: events.append(event))
    jax.devices()
    before, start = resident("VmRSS"), time.perf_counter()
    arrays = jax.block_until_ready(jax.tree.leaves(build()))
    seconds, peak = time.perf_counter() - start, resident("VmHWM") - before
    compiled = events.count("/jax/core/compile/backend_compile_duration")
    values = [np.asarray(array) for array in arrays]
    check(who, values)
    numbers, size = sum(value.size for value in values), sum(value.nbytes for value in values)
    return {"seconds": seconds, "leaves": len(values), "numbers": numbers, "compiled": compiled, "peak": peak / size}


Found = dict[str, list[dict[str, float]]]
"""Who -> the numbers of each round."""


def in_processes(who: Sequence[str], given: Given) -> Found:
    """Each number is of a process of its own; all take turns."""
    found: Found = {name: [] for name in who}
    for _ in range(given.rounds):
        for name, taken in found.items():
            command = [sys.executable, __file__, "--one", name, str(given.shrink)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            taken.append(json.loads(done.stdout))
    return found


def middle(taken: list[dict[str, float]], fact: str) -> float:
    return median([one[fact] for one in taken])


def gpt2_part(given: Given) -> Iterator[Row]:
    peers = [*PEERS, "PyTorch, eager"]
    who = [name for name in MODELS if name not in peers or name.startswith(tuple(given.frameworks))]
    found = in_processes(who, given)
    ours = [one["seconds"] for one in found["ptree"]]
    for name, taken in found.items():
        row = Row("GPT-2 small", name, middle(taken, "seconds"), "s")
        if name != "ptree":
            share, spread = ratio(ours, [one["seconds"] for one in taken])
            row = replace(row, ratio=share, spread=spread, aim=Aim(0.6) if name in PEERS else None)
        yield row
    for name, taken in found.items():
        yield Row("GPT-2 small, programs compiled", name, middle(taken, "compiled"), "", in_file_only=True)
    for name, taken in found.items():
        what, is_shown = "GPT-2 small, peak of memory over the bytes of the parameters", name in ("ptree", *PEERS)
        yield Row(what, name, middle(taken, "peak"), "", in_file_only=not is_shown)


def shapes_part(given: Given) -> Iterator[Row]:
    for name, taken in in_processes([*KINDS], given).items():
        yield Row("leaves of ten shapes", "ptree", middle(taken, "seconds"), "s", name.removeprefix("ptree, "))


OPTIONS = [
    Option("--rounds", 3, "how many processes of each"),
    Option("--frameworks", ["Flax", "Equinox", "Haiku", "PyTorch"], "the peers"),
]

if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measured(sys.argv[2])))
    else:
        main({"gpt2": gpt2_part, "shapes": shapes_part}, OPTIONS, ["flax", "equinox", "dm-haiku", "torch"])
