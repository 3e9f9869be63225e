"""One GPT of pre-norm blocks, written with each framework's layers for products and norms.

Each is `model(config, weights) -> (params, apply)` with `apply(params, ids, caches=None, start=0) -> (logits, caches)`;
caches are those of `Config.caches`, stacked where the blocks are.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from _training import nested

Weights = dict[str, np.ndarray]


class Config(NamedTuple):
    blocks: int
    width: int = 128
    heads: int = 4
    time: int = 64
    batch: int = 8
    vocabulary: int = 256
    dtype: Any = jnp.float32

    def weights(self) -> Weights:
        """Path -> values, kernels (in, out)."""
        draw, width = np.random.default_rng(0), self.width

        def normal(*shape: int) -> np.ndarray:
            return draw.standard_normal(shape, "float32") / np.float32(shape[0] ** 0.5)

        made = {"embed": normal(self.vocabulary, width) * 16, "positions": normal(self.time, width)}
        sizes = {"q": (1, 1), "k": (1, 1), "v": (1, 1), "o": (1, 1), "up": (1, 4), "down": (4, 1)}
        for at in range(self.blocks):
            for name, (i, o) in sizes.items():
                made[f"blocks/{at}/{name}/kernel"] = normal(i * width, o * width)
                made[f"blocks/{at}/{name}/bias"] = normal(o * width)
        for norm in (*(f"blocks/{at}/{name}" for at in range(self.blocks) for name in ("ln1", "ln2")), "ln"):
            made[f"{norm}/scale"], made[f"{norm}/bias"] = np.ones(width, "float32"), np.zeros(width, "float32")
        return {**made, "head": normal(width, self.vocabulary)}

    def caches(self, stacked: bool) -> Any:
        """Keys and values of all places so far, of one sequence."""
        shape = (1, self.time, self.heads, self.width // self.heads)
        if stacked:
            return jnp.zeros((self.blocks, *shape)), jnp.zeros((self.blocks, *shape))
        return [(jnp.zeros(shape), jnp.zeros(shape)) for _ in range(self.blocks)]

    def attention(self, q: Any, k: Any, v: Any, cache: Any, start: Any) -> Any:
        """f32[batch, time, width] each."""
        q, k, v = (z.reshape(*z.shape[:2], self.heads, -1) for z in (q, k, v))
        if cache is None:
            return jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(*q.shape[:2], -1), None
        k, v = (jax.lax.dynamic_update_slice_in_dim(old, z, start, 1) for old, z in zip(cache, (k, v), strict=True))
        seen = jnp.arange(self.time)[None] <= (start + jnp.arange(q.shape[1]))[:, None]
        return jax.nn.dot_product_attention(q, k, v, mask=seen[None, None]).reshape(*q.shape[:2], -1), (k, v)

    def embedded(self, table: Any, positions: Any, ids: Any, start: Any) -> Any:
        return table[ids] + jax.lax.dynamic_slice_in_dim(positions, start, ids.shape[1])

    def run(self, block: Callable[..., Any], blocks: Any, x: Any, caches: Any, start: Any) -> Any:
        """All blocks, one after the other: `block(own, x, cache, start) -> (x, cache)`."""
        new: list[Any] = []
        for own, cache in zip(blocks, caches or [None] * self.blocks, strict=True):
            x, cache = block(own, x, cache, start)
            new.append(cache)
        return x, caches and new


# ------------------------------------------------------------------------- by hand


def dense(p: Any, x: Any) -> Any:
    return x @ p["kernel"] + p["bias"]


def norm(p: Any, x: Any) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + 1e-5) * p["scale"] + p["bias"]


def block_by_hand(config: Config, p: Any, x: Any, cache: Any, start: Any) -> Any:
    y = norm(p["ln1"], x)
    y, cache = config.attention(dense(p["q"], y), dense(p["k"], y), dense(p["v"], y), cache, start)
    x = x + dense(p["o"], y)
    return x + dense(p["down"], jax.nn.gelu(dense(p["up"], norm(p["ln2"], x)))), cache


def by_hand(config: Config, flat: Weights) -> Any:
    def apply(p: Any, ids: Any, caches: Any = None, start: Any = 0) -> Any:
        x = config.embedded(p["embed"], p["positions"], ids, start)
        blocks = [p["blocks"][str(at)] for at in range(config.blocks)]
        x, caches = config.run(partial(block_by_hand, config), blocks, x, caches, start)
        return norm(p["ln"], x) @ p["head"], caches

    return nested(flat), apply


def by_hand_scan(config: Config, flat: Weights) -> Any:
    tree = nested(flat)
    tree["blocks"] = jax.tree.map(lambda *leaves: jnp.stack(leaves), *tree["blocks"].values())

    def apply(p: Any, ids: Any, caches: Any = None, start: Any = 0) -> Any:
        x = config.embedded(p["embed"], p["positions"], ids, start)
        x, caches = jax.lax.scan(
            lambda x, own: block_by_hand(config, own[0], x, own[1], start), x, (p["blocks"], caches)
        )
        return norm(p["ln"], x) @ p["head"], caches

    return tree, apply


# ------------------------------------------------------------------------- ptree


def ptree(config: Config, flat: Weights, stacked: bool = False) -> Any:
    import ptree as pt
    from ptree import nn

    heads, width = config.heads, config.width
    ln, attend = nn.LayerNorm(), nn.MultiHeadAttention(heads, causal=True)
    up, down = nn.Dense(4 * width), nn.Dense(width)

    class Block(nn.Layer):
        def apply(self, p: Any, x: Any, *, cache: Any = None) -> Any:
            y = attend(p["attn"], ln(p["ln1"], x), cache=cache)
            y, cache = (y, None) if cache is None else y
            x = x + y
            return x + down(p["down"], jax.nn.gelu(up(p["up"], ln(p["ln2"], x)))), cache

    block = Block()
    tree = pt.rename(pt.Tree(flat), {"blocks/*/{q,k,v,o}": "blocks/*/attn/?"})
    for path, leaf in pt.items(tree, "blocks/*/attn/**"):
        *_, name, kind = path.split("/")
        split = (heads, width // heads)
        shapes = {("o", "kernel"): (*split, width), ("o", "bias"): (width,)}
        own = shapes.get((name, kind), (width, *split) if kind == "kernel" else split)
        tree = pt.put(tree, path, leaf.reshape(own))
    tree = jax.tree.map(jnp.asarray, pt.stacks.stack(tree, "blocks") if stacked else tree)

    def apply(p: Any, ids: Any, caches: Any = None, start: Any = 0) -> Any:
        x = config.embedded(p["embed"], p["positions"], ids, start)
        if stacked:
            x, caches = pt.stacks.scan(lambda x, own, cache=None: block(own, x, cache=cache), x, p["blocks"], caches)
        else:
            blocks = [p["blocks"][str(at)] for at in range(config.blocks)]
            x, caches = config.run(lambda own, x, cache, _: block(own, x, cache=cache), blocks, x, caches, start)
        return ln(p["ln"], x) @ p["head"], caches

    return tree, apply


# ------------------------------------------------------------------------- peers


def linen(config: Config, flat: Weights) -> Any:
    from flax import linen as fnn

    width = config.width

    class Block(fnn.Module):
        @fnn.compact
        def __call__(self, x: Any, cache: Any, start: Any) -> Any:
            y = fnn.LayerNorm(epsilon=1e-5, name="ln1")(x)
            q, k, v = (fnn.Dense(width, name=name)(y) for name in "qkv")
            y, cache = config.attention(q, k, v, cache, start)
            x = x + fnn.Dense(width, name="o")(y)
            y = fnn.LayerNorm(epsilon=1e-5, name="ln2")(x)
            return x + fnn.Dense(width, name="down")(fnn.gelu(fnn.Dense(4 * width, name="up")(y))), cache

    class Model(fnn.Module):
        @fnn.compact
        def __call__(self, ids: Any, caches: Any, start: Any) -> Any:
            positions = self.param("positions", fnn.initializers.zeros, (config.time, width))
            table = fnn.Embed(config.vocabulary, width, name="embed")
            x = table(ids) + jax.lax.dynamic_slice_in_dim(positions, start, ids.shape[1])
            blocks = [Block(name=f"blocks_{at}") for at in range(config.blocks)]
            x, caches = config.run(lambda block, *given: block(*given), blocks, x, caches, start)
            x = fnn.LayerNorm(epsilon=1e-5, name="ln")(x)
            return fnn.Dense(config.vocabulary, use_bias=False, name="head")(x), caches

    tree = nested(flat)
    own = {f"blocks_{at}": block for at, block in tree.pop("blocks").items()}
    own |= {**tree, "embed": {"embedding": tree["embed"]}, "head": {"kernel": tree["head"]}}
    return own, lambda p, ids, caches=None, start=0: Model().apply({"params": p}, ids, caches, start)


def nnx(config: Config, flat: Weights) -> Any:
    from flax import nnx as x_

    width = config.width

    class Block(x_.Module):
        def __init__(self, rngs: Any):
            self.ln1, self.ln2 = (x_.LayerNorm(width, epsilon=1e-5, rngs=rngs) for _ in range(2))
            self.q, self.k, self.v, self.o = (x_.Linear(width, width, rngs=rngs) for _ in range(4))
            self.up, self.down = x_.Linear(width, 4 * width, rngs=rngs), x_.Linear(4 * width, width, rngs=rngs)

        def __call__(self, x: Any, cache: Any, start: Any) -> Any:
            y = self.ln1(x)
            y, cache = config.attention(self.q(y), self.k(y), self.v(y), cache, start)
            x = x + self.o(y)
            return x + self.down(x_.gelu(self.up(self.ln2(x)))), cache

    class Model(x_.Module):
        def __init__(self, rngs: Any):
            self.embed = x_.Embed(config.vocabulary, width, rngs=rngs)
            self.positions = x_.Param(jnp.zeros((config.time, width)))
            self.blocks = x_.List([Block(rngs) for _ in range(config.blocks)])
            self.ln = x_.LayerNorm(width, epsilon=1e-5, rngs=rngs)
            self.head = x_.Linear(width, config.vocabulary, use_bias=False, rngs=rngs)

        def __call__(self, ids: Any, caches: Any, start: Any) -> Any:
            x = self.embed(ids) + jax.lax.dynamic_slice_in_dim(self.positions[...], start, ids.shape[1])
            x, caches = config.run(lambda block, *given: block(*given), self.blocks, x, caches, start)
            return self.head(self.ln(x)), caches

    graph, state = x_.split(Model(x_.Rngs(0)))
    own = nested(flat)
    own["blocks"] = {int(at): block for at, block in own["blocks"].items()}
    own["embed"], own["head"] = {"embedding": own["embed"]}, {"kernel": own["head"]}
    x_.replace_by_pure_dict(state, own)
    return state, lambda s, ids, caches=None, start=0: x_.merge(graph, s)(ids, caches, start)


def equinox(config: Config, flat: Weights) -> Any:
    import equinox as eqx

    key, tree = jax.random.key(0), nested(flat)

    def linear(p: Any) -> Any:
        i, o = p["kernel"].shape
        layer = eqx.nn.Linear(i, o, use_bias="bias" in p, key=key)
        layer = eqx.tree_at(lambda l: l.weight, layer, p["kernel"].T)  # noqa: E741
        return eqx.tree_at(lambda l: l.bias, layer, p["bias"]) if "bias" in p else layer  # noqa: E741

    def normed(p: Any) -> Any:
        return eqx.tree_at(lambda l: (l.weight, l.bias), eqx.nn.LayerNorm(config.width), (p["scale"], p["bias"]))  # noqa: E741

    def each(layer: Any, x: Any) -> Any:
        return jax.vmap(jax.vmap(layer))(x)

    class Block(eqx.Module):
        parts: dict[str, Any]

        def __call__(self, x: Any, cache: Any, start: Any) -> Any:
            p = self.parts
            y = each(p["ln1"], x)
            y, cache = config.attention(each(p["q"], y), each(p["k"], y), each(p["v"], y), cache, start)
            x = x + each(p["o"], y)
            return x + each(p["down"], jax.nn.gelu(each(p["up"], each(p["ln2"], x)))), cache

    class Model(eqx.Module):
        embed: Any
        positions: Any
        blocks: list[Any]
        ln: Any
        head: Any

        def __call__(self, ids: Any, caches: Any, start: Any) -> Any:
            x = each(self.embed, ids) + jax.lax.dynamic_slice_in_dim(self.positions, start, ids.shape[1])
            x, caches = config.run(lambda block, *given: block(*given), self.blocks, x, caches, start)
            return each(self.head, each(self.ln, x)), caches

    def made(p: Any) -> Any:
        return Block({name: (normed if name[0:2] == "ln" else linear)(part) for name, part in p.items()})

    model = Model(
        eqx.nn.Embedding(weight=tree["embed"]),
        tree["positions"],
        [made(tree["blocks"][str(at)]) for at in range(config.blocks)],
        normed(tree["ln"]),
        linear({"kernel": tree["head"]}),
    )
    arrays, static = eqx.partition(model, eqx.is_array)
    return arrays, lambda a, ids, caches=None, start=0: eqx.combine(a, static)(ids, caches, start)


def haiku(config: Config, flat: Weights) -> Any:
    import haiku as hk

    width = config.width

    def normed(name: str, x: Any) -> Any:
        return hk.LayerNorm(-1, True, True, eps=1e-5, name=name)(x)

    def block(at: int, x: Any, cache: Any, start: Any) -> Any:
        y = normed(f"blocks_{at}_ln1", x)
        q, k, v = (hk.Linear(width, name=f"blocks_{at}_{name}")(y) for name in "qkv")
        y, cache = config.attention(q, k, v, cache, start)
        x = x + hk.Linear(width, name=f"blocks_{at}_o")(y)
        y = jax.nn.gelu(hk.Linear(4 * width, name=f"blocks_{at}_up")(normed(f"blocks_{at}_ln2", x)))
        return x + hk.Linear(width, name=f"blocks_{at}_down")(y), cache

    def model(ids: Any, caches: Any, start: Any) -> Any:
        positions = hk.get_parameter("positions", (config.time, width), init=jnp.zeros)
        x = hk.Embed(config.vocabulary, width, name="embed")(ids)
        x = x + jax.lax.dynamic_slice_in_dim(positions, start, ids.shape[1])
        x, caches = config.run(block, range(config.blocks), x, caches, start)
        return hk.Linear(config.vocabulary, with_bias=False, name="head")(normed("ln", x)), caches

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
    pure = hk.without_apply_rng(hk.transform(model))
    return jax.tree.map(jnp.asarray, own), lambda p, ids, caches=None, start=0: pure.apply(p, ids, caches, start)


MODELS: dict[str, Callable[[Config, Weights], Any]] = {
    "ptree": ptree, "by hand": by_hand, "Flax linen": linen, "Flax nnx": nnx, "Equinox": equinox, "Haiku": haiku,
    "ptree, stacked": partial(ptree, stacked=True), "by hand, scan": by_hand_scan,
}  # fmt: skip


# ------------------------------------------------------------------------- PyTorch


def torch_params(flat: Weights) -> dict[str, Any]:
    """Kernels as (out, in)."""
    import torch

    turned = {path: value.T if path.endswith("kernel") else value for path, value in flat.items()}
    return {path: torch.nn.Parameter(torch.tensor(value)) for path, value in turned.items()}


def torch_apply(config: Config, p: dict[str, Any], ids: Any, caches: Any = None, start: int = 0) -> Any:
    """The logits; caches are changed in place."""
    import torch

    F = torch.nn.functional
    width, end = config.width, start + ids.shape[1]

    def normed(path: str, x: Any) -> Any:
        return F.layer_norm(x, (width,), p[f"{path}/scale"], p[f"{path}/bias"])

    def linear(path: str, x: Any) -> Any:
        return F.linear(x, p[f"{path}/kernel"], p[f"{path}/bias"])

    x = p["embed"][ids] + p["positions"][start:end]
    for at in range(config.blocks):
        own = f"blocks/{at}"
        y = normed(f"{own}/ln1", x)
        q, k, v = (linear(f"{own}/{name}", y).unflatten(-1, (config.heads, -1)).transpose(1, 2) for name in "qkv")
        if caches is not None:
            for cache, new in zip(caches[at], (k, v), strict=True):
                cache[:, :, start:end] = new
            k, v = (cache[:, :, :end] for cache in caches[at])
        y = F.scaled_dot_product_attention(q, k, v, is_causal=q.shape[2] == k.shape[2])
        x = x + linear(f"{own}/o", y.transpose(1, 2).flatten(2))
        y = F.gelu(linear(f"{own}/up", normed(f"{own}/ln2", x)), approximate="tanh")
        x = x + linear(f"{own}/down", y)
    return normed("ln", x) @ p["head"]
