"""Claim: a deep model of ptree's layers traces, compiles and runs ahead of hand-written JAX and of the peers.

A GPT with pre-norm blocks (width 128, 4 heads, MLP 512, 64 places, batch 8, float32), one step of Adam, at 6 to 48
blocks, unrolled and stacked: the same weights for all, and the losses of the first five steps are checked to agree. The
floor is hand-written JAX over nested dicts, unrolled and with `jax.lax.scan`; peers are Flax linen, Flax nnx, Equinox
and Haiku with their own layers for products and norms, and PyTorch, eager. Run it with `python benchmarks/transformer.py`
(with the `bench` and `torch` extras); `--json FILE` keeps the numbers. Each runs in a process of its own, in turn, in an
order that changes at random; shown are medians over the rounds.
"""

import argparse
import json
import platform
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

WIDTH, HEADS, TIME, BATCH, VOCABULARY, RATE, STEPS = 128, 4, 64, 8, 256, 1e-3, 20
Weights = dict[str, np.ndarray]


def weights(blocks: int) -> Weights:
    """Path -> values, kernels (in, out): the one model that all are made of."""
    draw = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return (draw.normal(size=shape) / shape[0] ** 0.5).astype("float32")

    made = {"embed": normal(VOCABULARY, WIDTH) * 16, "positions": normal(TIME, WIDTH)}
    for at in range(blocks):
        for name, (i, o) in {"q": (1, 1), "k": (1, 1), "v": (1, 1), "o": (1, 1), "up": (1, 4), "down": (4, 1)}.items():
            made[f"blocks/{at}/{name}/kernel"] = normal(i * WIDTH, o * WIDTH)
            made[f"blocks/{at}/{name}/bias"] = normal(o * WIDTH)
    for norm in (*(f"blocks/{at}/{name}" for at in range(blocks) for name in ("ln1", "ln2")), "ln"):
        made[f"{norm}/scale"], made[f"{norm}/bias"] = np.ones(WIDTH, "float32"), np.zeros(WIDTH, "float32")
    return {**made, "head": normal(WIDTH, VOCABULARY)}


def nested(flat: Weights) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *above, name = path.split("/")
        node = tree
        for segment in above:
            node = node.setdefault(segment, {})
        node[name] = jnp.asarray(value)
    return tree


def attention(q: Any, k: Any, v: Any) -> Any:
    """f32[batch, time, width] each."""
    split = lambda z: z.reshape(*z.shape[:2], HEADS, -1)  # noqa: E731
    return jax.nn.dot_product_attention(split(q), split(k), split(v), is_causal=True).reshape(q.shape)


# ------------------------------------------------------------------------- by hand


def dense(p: Any, x: Any) -> Any:
    return x @ p["kernel"] + p["bias"]


def norm(p: Any, x: Any) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + 1e-5) * p["scale"] + p["bias"]


def block_by_hand(p: Any, x: Any) -> Any:
    y = norm(p["ln1"], x)
    x = x + dense(p["o"], attention(dense(p["q"], y), dense(p["k"], y), dense(p["v"], y)))
    return x + dense(p["down"], jax.nn.gelu(dense(p["up"], norm(p["ln2"], x))))


def by_hand(flat: Weights, blocks: int) -> Any:
    def logits(p: Any, ids: Any) -> Any:
        x = p["embed"][ids] + p["positions"]
        for at in range(blocks):
            x = block_by_hand(p["blocks"][str(at)], x)
        return norm(p["ln"], x) @ p["head"]

    return nested(flat), logits


def by_hand_scan(flat: Weights, blocks: int) -> Any:
    tree = nested(flat)
    tree["blocks"] = jax.tree.map(lambda *leaves: jnp.stack(leaves), *tree["blocks"].values())

    def logits(p: Any, ids: Any) -> Any:
        x = p["embed"][ids] + p["positions"]
        x, _ = jax.lax.scan(lambda x, own: (block_by_hand(own, x), None), x, p["blocks"])
        return norm(p["ln"], x) @ p["head"]

    return tree, logits


# ------------------------------------------------------------------------- ptree


def ptree(flat: Weights, blocks: int, stacked: bool = False) -> Any:
    import ptree as pt
    from ptree import nn

    attend = nn.Residual(nn.Sequential({"ln1": nn.LayerNorm(), "attn": nn.MultiHeadAttention(HEADS, causal=True)}))
    mlp = {"ln2": nn.LayerNorm(), "up": nn.Dense(4 * WIDTH), "gelu": jax.nn.gelu, "down": nn.Dense(WIDTH)}
    net = nn.Repeat(nn.Sequential({"a": attend, "m": nn.Residual(nn.Sequential(mlp))}), blocks, scan=stacked)
    last = nn.LayerNorm()
    tree = pt.Tree(flat)
    tree = pt.rename(tree, {
        "blocks/*/ln1": "blocks/*/a/inner/ln1", "blocks/*/{q,k,v,o}": "blocks/*/a/inner/attn/?",
        "blocks/*/{ln2,up,down}": "blocks/*/m/inner/?",
    })  # fmt: skip
    size = WIDTH // HEADS
    shapes = {
        "q": (WIDTH, HEADS, size),
        "k": (WIDTH, HEADS, size),
        "v": (WIDTH, HEADS, size),
        "o": (HEADS, size, WIDTH),
    }
    for path, leaf in pt.items(tree, "blocks/*/a/inner/attn/**"):
        *_, name, kind = path.split("/")
        shape = shapes[name] if kind == "kernel" else leaf.shape if name == "o" else (HEADS, size)
        tree = pt.put(tree, path, leaf.reshape(shape))
    tree = jax.tree.map(jnp.asarray, pt.stack(tree, "blocks") if stacked else tree)

    def logits(p: Any, ids: Any) -> Any:
        x = p["embed"][ids] + p["positions"]
        return last(p["ln"], net(p["blocks"], x)) @ p["head"]

    return tree, logits


# ------------------------------------------------------------------------- peers


def linen(flat: Weights, blocks: int) -> Any:
    from flax import linen as fnn

    class Block(fnn.Module):
        @fnn.compact
        def __call__(self, x: Any) -> Any:
            y = fnn.LayerNorm(epsilon=1e-5, name="ln1")(x)
            q, k, v = (fnn.Dense(WIDTH, name=name)(y) for name in "qkv")
            x = x + fnn.Dense(WIDTH, name="o")(attention(q, k, v))
            y = fnn.LayerNorm(epsilon=1e-5, name="ln2")(x)
            return x + fnn.Dense(WIDTH, name="down")(fnn.gelu(fnn.Dense(4 * WIDTH, name="up")(y)))

    class Model(fnn.Module):
        @fnn.compact
        def __call__(self, ids: Any) -> Any:
            positions = self.param("positions", fnn.initializers.zeros, (TIME, WIDTH))
            x = fnn.Embed(VOCABULARY, WIDTH, name="embed")(ids) + positions
            for at in range(blocks):
                x = Block(name=f"blocks_{at}")(x)
            x = fnn.LayerNorm(epsilon=1e-5, name="ln")(x)
            return fnn.Dense(VOCABULARY, use_bias=False, name="head")(x)

    tree = nested(flat)
    own = {f"blocks_{at}": block for at, block in tree.pop("blocks").items()}
    own |= {
        "embed": {"embedding": tree["embed"]},
        "head": {"kernel": tree["head"]},
        "positions": tree["positions"],
        "ln": tree["ln"],
    }
    return own, lambda p, ids: Model().apply({"params": p}, ids)


def nnx(flat: Weights, blocks: int) -> Any:
    from flax import nnx as x_

    class Block(x_.Module):
        def __init__(self, rngs: Any):
            self.ln1, self.ln2 = (x_.LayerNorm(WIDTH, epsilon=1e-5, rngs=rngs) for _ in range(2))
            self.q, self.k, self.v, self.o = (x_.Linear(WIDTH, WIDTH, rngs=rngs) for _ in range(4))
            self.up, self.down = x_.Linear(WIDTH, 4 * WIDTH, rngs=rngs), x_.Linear(4 * WIDTH, WIDTH, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            y = self.ln1(x)
            x = x + self.o(attention(self.q(y), self.k(y), self.v(y)))
            return x + self.down(x_.gelu(self.up(self.ln2(x))))

    class Model(x_.Module):
        def __init__(self, rngs: Any):
            self.embed = x_.Embed(VOCABULARY, WIDTH, rngs=rngs)
            self.positions = x_.Param(jnp.zeros((TIME, WIDTH)))
            self.blocks = x_.List([Block(rngs) for _ in range(blocks)])
            self.ln = x_.LayerNorm(WIDTH, epsilon=1e-5, rngs=rngs)
            self.head = x_.Linear(WIDTH, VOCABULARY, use_bias=False, rngs=rngs)

        def __call__(self, ids: Any) -> Any:
            x = self.embed(ids) + self.positions[...]
            for block in self.blocks:
                x = block(x)
            return self.head(self.ln(x))

    graph, state = x_.split(Model(x_.Rngs(0)))
    own = nested(flat)
    own["blocks"] = {int(at): block for at, block in own["blocks"].items()}
    own["embed"], own["head"] = {"embedding": own["embed"]}, {"kernel": own["head"]}
    x_.replace_by_pure_dict(state, own)
    return state, lambda s, ids: x_.merge(graph, s)(ids)


def equinox(flat: Weights, blocks: int) -> Any:
    import equinox as eqx

    key = jax.random.key(0)
    tree = nested(flat)

    def linear(p: Any) -> Any:
        i, o = p["kernel"].shape
        layer = eqx.nn.Linear(i, o, use_bias="bias" in p, key=key)
        layer = eqx.tree_at(lambda l: l.weight, layer, p["kernel"].T)  # noqa: E741
        return eqx.tree_at(lambda l: l.bias, layer, p["bias"]) if "bias" in p else layer  # noqa: E741

    def normed(p: Any) -> Any:
        return eqx.tree_at(lambda l: (l.weight, l.bias), eqx.nn.LayerNorm(WIDTH), (p["scale"], p["bias"]))  # noqa: E741

    def each(layer: Any, x: Any) -> Any:
        return jax.vmap(jax.vmap(layer))(x)

    class Block(eqx.Module):
        parts: dict[str, Any]

        def __call__(self, x: Any) -> Any:
            p = self.parts
            y = each(p["ln1"], x)
            x = x + each(p["o"], attention(each(p["q"], y), each(p["k"], y), each(p["v"], y)))
            return x + each(p["down"], jax.nn.gelu(each(p["up"], each(p["ln2"], x))))

    class Model(eqx.Module):
        embed: Any
        positions: Any
        blocks: list[Any]
        ln: Any
        head: Any

        def __call__(self, ids: Any) -> Any:
            x = each(self.embed, ids) + self.positions
            for block in self.blocks:
                x = block(x)
            return each(self.head, each(self.ln, x))

    made = [
        Block({name: (normed if name[0:2] == "ln" else linear)(part) for name, part in tree["blocks"][str(at)].items()})
        for at in range(blocks)
    ]
    model = Model(
        eqx.nn.Embedding(weight=tree["embed"]),
        tree["positions"],
        made,
        normed(tree["ln"]),
        linear({"kernel": tree["head"]}),
    )
    arrays, static = eqx.partition(model, eqx.is_array)
    return arrays, lambda a, ids: eqx.combine(a, static)(ids)


def haiku(flat: Weights, blocks: int) -> Any:
    import haiku as hk

    def model(ids: Any) -> Any:
        normed = lambda name, x: hk.LayerNorm(-1, True, True, eps=1e-5, name=name)(x)  # noqa: E731
        x = hk.Embed(VOCABULARY, WIDTH, name="embed")(ids) + hk.get_parameter(
            "positions", (TIME, WIDTH), init=jnp.zeros
        )
        for at in range(blocks):
            y = normed(f"blocks_{at}_ln1", x)
            q, k, v = (hk.Linear(WIDTH, name=f"blocks_{at}_{name}")(y) for name in "qkv")
            x = x + hk.Linear(WIDTH, name=f"blocks_{at}_o")(attention(q, k, v))
            y = jax.nn.gelu(hk.Linear(4 * WIDTH, name=f"blocks_{at}_up")(normed(f"blocks_{at}_ln2", x)))
            x = x + hk.Linear(WIDTH, name=f"blocks_{at}_down")(y)
        return hk.Linear(VOCABULARY, with_bias=False, name="head")(normed("ln", x))

    own: dict[str, Any] = {
        "~": {"positions": flat["positions"]},
        "embed": {"embeddings": flat["embed"]},
        "head": {"w": flat["head"]},
    }
    for path, value in flat.items():
        *above, name = path.split("/")
        if above:
            names = {"kernel": "w", "bias": "offset" if above[-1][:2] == "ln" else "b", "scale": "scale"}
            own.setdefault("_".join(above), {})[names[name]] = value
    return jax.tree.map(jnp.asarray, own), lambda p, ids: hk.without_apply_rng(hk.transform(model)).apply(p, ids)


MODELS: dict[str, Callable[[Weights, int], Any]] = {
    "ptree": ptree, "by hand": by_hand, "Flax linen": linen, "Flax nnx": nnx, "Equinox": equinox, "Haiku": haiku,
    "ptree, stacked": partial(ptree, stacked=True), "by hand, scan": by_hand_scan,
}  # fmt: skip


# ------------------------------------------------------------------------- one process


def measured(name: str, blocks: int) -> dict[str, Any]:
    flat = weights(blocks)
    ids = np.random.default_rng(1).integers(VOCABULARY, size=(BATCH, TIME)).astype("int32")
    if name == "PyTorch":
        return measured_torch(flat, blocks, ids)
    params, logits = MODELS[name](flat, blocks)
    optimiser = optax.adam(RATE)

    def step(params: Any, state: Any, ids: Any) -> Any:
        loss = lambda p: optax.softmax_cross_entropy_with_integer_labels(logits(p, ids), jnp.roll(ids, -1, 1)).mean()  # noqa: E731
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = optimiser.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    state = optimiser.init(params)
    jax.block_until_ready(jax.jit(lambda p: jax.tree.map(lambda leaf: leaf.sum(), p))(params))  # JAX itself is warm
    clock = [time.perf_counter()]

    def lap() -> float:
        clock.append(time.perf_counter())
        return clock[-1] - clock[-2]

    traced = jax.jit(step, donate_argnums=(0, 1)).trace(params, state, ids)
    trace = lap()
    lowered = traced.lower()
    lower = lap()
    compiled = lowered.compile()
    compile_ = lap()
    params, state, value = compiled(params, state, ids)
    losses, first = [float(value)], lap()
    steps: list[float] = []
    for _ in range(STEPS):
        lap()
        params, state, value = compiled(params, state, ids)
        losses.append(float(value))
        steps.append(lap())
    nothing = jax.jit(lambda p: jax.tree.leaves(p)[0].ravel()[0] + 1)
    nothing(params)
    lap()
    for _ in range(200):
        result = nothing(params)
    jax.block_until_ready(result)
    dispatch = lap() / 200
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"trace": trace, "lower": lower, "compile": compile_, "first": first, "step": statistics.median(steps),
            "dispatch": dispatch, "peak": peak, "losses": losses[:5], "leaves": len(jax.tree.leaves(params))}  # fmt: skip


def measured_torch(flat: Weights, blocks: int, ids: np.ndarray) -> dict[str, Any]:
    import torch

    F = torch.nn.functional
    p = {
        path: torch.nn.Parameter(torch.tensor(value.T if path.endswith("kernel") else value))
        for path, value in flat.items()
    }
    optimiser = torch.optim.Adam(p.values(), RATE)
    places = torch.tensor(ids).long()

    def loss() -> Any:
        x = p["embed"][places] + p["positions"]
        for at in range(blocks):
            own = {
                name: p[f"blocks/{at}/{name}"]
                for name in (f"{a}/{b}" for a in ("q", "k", "v", "o", "up", "down") for b in ("kernel", "bias"))
            }

            def normed(name: str, x: Any, at: int = at) -> Any:
                return F.layer_norm(x, (WIDTH,), p[f"blocks/{at}/{name}/scale"], p[f"blocks/{at}/{name}/bias"])

            linear = lambda name, x, own=own: F.linear(x, own[f"{name}/kernel"], own[f"{name}/bias"])  # noqa: E731
            y = normed("ln1", x)
            q, k, v = (linear(name, y).unflatten(-1, (HEADS, -1)).transpose(1, 2) for name in "qkv")
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
            x = x + linear("o", y)
            x = x + linear("down", F.gelu(linear("up", normed("ln2", x)), approximate="tanh"))
        logits = F.layer_norm(x, (WIDTH,), p["ln/scale"], p["ln/bias"]) @ p["head"]
        return F.cross_entropy(logits.flatten(0, 1), places.roll(-1, 1).flatten())

    losses: list[float] = []
    steps: list[float] = []
    for _ in range(STEPS + 1):
        start = time.perf_counter()
        optimiser.zero_grad()
        value = loss()
        value.backward()
        optimiser.step()
        losses.append(value.item())
        steps.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "first": steps[0],
        "step": statistics.median(steps[1:]),
        "peak": peak,
        "losses": losses[:5],
        "leaves": len(p),
    }


# ------------------------------------------------------------------------- all of them


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--blocks", type=int, nargs="+", default=[6, 12, 24, 48])
    arguments.add_argument("--who", nargs="+", default=[*MODELS, "PyTorch"])
    arguments.add_argument("--json", help="a file for all the numbers")
    arguments.add_argument("--child", nargs=2, metavar=("WHO", "BLOCKS"), help="measure one, print JSON")
    given = arguments.parse_args()
    if given.child:
        print(json.dumps(measured(given.child[0], int(given.child[1]))))
        return
    random.seed(0)
    names = ("jax", "jaxlib", "flax", "equinox", "dm-haiku", "torch")
    machine = f"{platform.machine()}, {jax.devices()[0].device_kind}, Python {platform.python_version()}, " + ", ".join(
        f"{name} {version(name)}" for name in names
    )
    print(machine)
    found: dict[str, list[dict[str, Any]]] = {}
    for blocks in given.blocks:
        for _ in range(given.rounds):
            for who in random.sample(given.who, len(given.who)):
                command = [sys.executable, __file__, "--child", who, str(blocks)]
                told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                found.setdefault(f"{blocks}/{who}", []).append(json.loads(told.splitlines()[-1]))
        for who in given.who:  # the same model
            first = found[f"{blocks}/{given.who[0]}"][0]["losses"]
            np.testing.assert_allclose(found[f"{blocks}/{who}"][0]["losses"], first, rtol=2e-3, err_msg=who)
        table(blocks, given.who, found)
    if given.json:
        with open(given.json, "w") as file:
            json.dump({"machine": machine, "runs": found}, file, indent=1)


def table(blocks: int, names: list[str], found: dict[str, list[dict[str, Any]]]) -> None:
    print(
        f"\n{blocks} blocks{'':14} {'trace+lower':>11} {'compile':>9} {'first':>8} {'step':>9} {'dispatch':>9} {'peak':>8} leaves"
    )
    for who in names:
        runs = found[f"{blocks}/{who}"]

        def middle(*what: str, runs: Any = runs) -> float:
            return statistics.median(sum(run.get(name, float("nan")) for name in what) for run in runs)

        print(
            f"{who:24} {middle('trace', 'lower') * 1e3:8.0f} ms {middle('compile'):7.2f} s {middle('first') * 1e3:5.0f} ms"
            f" {middle('step') * 1e3:6.1f} ms {middle('dispatch') * 1e6:6.1f} us {middle('peak'):4.0f} MiB {runs[0]['leaves']:6}"
        )


if __name__ == "__main__":
    main()
