"""Claim: small layers of ptree's, where dispatch dominates, take at most 1.02 times hand-written JAX over plain dicts.

An MLP of 4 and of 32 layers of width 32 with ReLU, batch 16: a jitted step of Adam, and a jitted forward pass. The same
weights for all, and the losses of the first five steps are checked to agree. The baseline is hand-written JAX over nested
dicts; peers are Flax linen, Flax nnx, Equinox and Haiku with their own layers, and PyTorch, eager and compiled. Run it with
`python benchmarks/mlp.py` (with the `bench` and `torch` extras).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _timing import Clock
from _training import in_jax, in_torch, nested
from _turns import Column, Facts, Made, run

WIDTH, BATCH = 32, 16
Flat = dict[str, np.ndarray]


def weights(layers: int) -> Flat:
    draw = np.random.default_rng(0)
    made: Flat = {}
    for at in range(layers):
        made[f"{at}/kernel"] = draw.standard_normal((WIDTH, WIDTH), "float32") * np.float32((2 / WIDTH) ** 0.5)
        made[f"{at}/bias"] = draw.standard_normal(WIDTH, "float32") / 10
    return made


def by_hand(flat: Flat) -> Any:
    layers = len(flat) // 2

    def apply(p: Any, x: Any) -> Any:
        for at in range(layers):
            x = jax.nn.relu(x @ p[str(at)]["kernel"] + p[str(at)]["bias"])
        return x

    return nested(flat), apply


def ptree(flat: Flat) -> Any:
    import ptree as pt
    from ptree import nn

    parts: dict[str, Any] = {}
    for at in range(len(flat) // 2):
        parts |= {str(at): nn.Dense(WIDTH), f"relu_{at}": jax.nn.relu}
    return jax.tree.map(jnp.asarray, pt.Tree(flat)), nn.Sequential(parts)


def linen(flat: Flat) -> Any:
    from flax import linen as fnn

    parts = [part for _ in range(len(flat) // 2) for part in (fnn.Dense(WIDTH), fnn.relu)]
    own = {f"layers_{2 * int(at)}": part for at, part in nested(flat).items()}
    return own, lambda p, x: fnn.Sequential(parts).apply({"params": p}, x)


def nnx(flat: Flat) -> Any:
    from flax import nnx as x_

    rngs = x_.Rngs(0)
    parts = [part for _ in range(len(flat) // 2) for part in (x_.Linear(WIDTH, WIDTH, rngs=rngs), x_.relu)]
    graph, state = x_.split(x_.Sequential(*parts))
    x_.replace_by_pure_dict(state, {"layers": {2 * int(at): part for at, part in nested(flat).items()}})
    return state, lambda s, x: x_.merge(graph, s)(x)


def equinox(flat: Flat) -> Any:
    import equinox as eqx

    parts: list[Any] = []
    for part in nested(flat).values():
        layer = eqx.nn.Linear(WIDTH, WIDTH, key=jax.random.key(0))
        parts.append(eqx.tree_at(lambda l: (l.weight, l.bias), layer, (part["kernel"].T, part["bias"])))  # noqa: E741
        parts.append(eqx.nn.Lambda(jax.nn.relu))
    arrays, static = eqx.partition(eqx.nn.Sequential(parts), eqx.is_array)
    return arrays, lambda a, x: jax.vmap(eqx.combine(a, static))(x)


def haiku(flat: Flat) -> Any:
    import haiku as hk

    def model(x: Any) -> Any:
        parts = [part for at in range(len(flat) // 2) for part in (hk.Linear(WIDTH, name=f"l{at}"), jax.nn.relu)]
        return hk.Sequential(parts)(x)

    own = {f"l{at}": {"w": part["kernel"], "b": part["bias"]} for at, part in nested(flat).items()}
    return own, hk.without_apply_rng(hk.transform(model)).apply


MODELS: dict[str, Callable[[Flat], Any]] = {
    "ptree": ptree, "by hand": by_hand, "Flax linen": linen, "Flax nnx": nnx, "Equinox": equinox, "Haiku": haiku,
}  # fmt: skip


def make(who: str, layers: int) -> Made:
    flat, x = weights(layers), np.random.default_rng(1).standard_normal((BATCH, WIDTH), "float32")
    if who.startswith("PyTorch"):
        return in_pytorch(flat, x, who.endswith("compiled"))
    params, apply = MODELS[who](flat)
    x = jnp.asarray(x)
    forward = jax.jit(apply)
    kept = jax.tree.map(jnp.array, params)
    first = forward(kept, x)
    facts, train = in_jax(params, lambda p, none, x: (((apply(p, x) - 1) ** 2).mean(), none), x, steps=200)

    def turn() -> Facts:
        taken, clock = train(), Clock()
        for _ in range(500):
            y = forward(kept, x)
        jax.block_until_ready(y)
        return {**taken, "forward": clock.lap() / 500}

    return {**facts, "check": [*facts["check"], float(abs(first).mean())]}, turn


def in_pytorch(flat: Flat, x: np.ndarray, compiled: bool) -> Made:
    import torch

    params = {
        path: torch.nn.Parameter(torch.tensor(value.T if path.endswith("kernel") else value))
        for path, value in flat.items()
    }
    given, linear = torch.tensor(x), torch.nn.functional.linear

    def apply(p: Any, x: Any) -> Any:
        for at in range(len(flat) // 2):
            x = torch.relu(linear(x, p[f"{at}/kernel"], p[f"{at}/bias"]))
        return x

    with torch.no_grad():
        first = apply(params, given).abs().mean().item()
    kept, forward = (
        {path: p.detach().clone() for path, p in params.items()},
        torch.compile(apply) if compiled else apply,
    )
    facts, train = in_torch(params, lambda p, x: ((apply(p, x) - 1) ** 2).mean(), given, compiled=compiled, steps=100)

    def turn() -> Facts:
        taken, clock = train(), Clock()
        with torch.no_grad():
            for _ in range(500):
                forward(kept, given)
        return {**taken, "forward": clock.lap() / 500}

    return {**facts, "check": [*facts["check"], first]}, turn


BY_HAND = {"by hand": 1.02}
COLUMNS = [
    Column("trace + lower", ("trace", "lower"), in_file_only=True),
    Column("compile", ("compile",), in_file_only=True),
    Column("step of Adam", ("step",), aims=BY_HAND),
    Column("forward pass", ("forward",), aims=BY_HAND),
    Column("dispatch", ("dispatch",)),
]

if __name__ == "__main__":
    run(
        __file__,
        make,
        [*MODELS, "PyTorch, eager", "PyTorch, compiled"],
        [4, 32],
        COLUMNS,
        noun="layers",
        shown=(32,),
        turns=15,
    )
