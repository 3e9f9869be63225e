"""GPT-2 of any size: its spec, its forward pass, training on real text, and generation with a cache.

Run it with `python examples/07_gpt.py` (a small one, half a minute on two CPU cores; `--help` for size and flags). The
blocks are stacked and scanned, or with `--unrolled` stand one after the other: the same function runs both, and a file
of either form loads into either. The output is the embedding, transposed, by a tie.
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import ptree as pt
from ptree import convert, nn
from ptree import initializers as I


@dataclass(frozen=True)
class Block(nn.Layer):
    heads: int
    width: int
    dtype: Any = None

    def parts(self) -> Any:
        options: dict[str, Any] = {"kernel_init": I.normal(0.02), "dtype": self.dtype}
        yield "ln_1", nn.LayerNorm(dtype=self.dtype)
        yield "attn", nn.MultiHeadAttention(self.heads, causal=True, **options)
        yield "ln_2", nn.LayerNorm(dtype=self.dtype)
        yield "up", nn.Dense(4 * self.width, **options)
        yield "down", nn.Dense(self.width, **options)

    def declare(self, x: Any) -> pt.Tree:
        wide = jax.ShapeDtypeStruct((*x.shape[:-1], 4 * self.width), x.dtype)
        return pt.Tree({name: part.spec(wide if name == "down" else x) for name, part in self.parts()})

    def apply(self, params: Any, x: Any, *, cache: Any = None) -> Any:
        part = dict(self.parts())
        y = part["attn"](params["attn"], part["ln_1"](params["ln_1"], x), cache=cache)
        y, cache = (y, None) if cache is None else y
        x = x + y
        y = jax.nn.gelu(part["up"](params["up"], part["ln_2"](params["ln_2"], x)))
        return x + part["down"](params["down"], y), cache


@dataclass(frozen=True)
class GPT:
    vocabulary: int = 50257
    context: int = 1024
    width: int = 768
    layers: int = 12
    heads: int = 12
    stacked: bool = True
    remat: bool = False
    dtype: Any = None

    @property
    def block(self) -> Block:
        return Block(self.heads, self.width, self.dtype)

    def spec(self) -> pt.Tree:
        x = jax.ShapeDtypeStruct((1, self.context, self.width), "float32")
        tree = pt.Tree({
            "wte": pt.Param((self.vocabulary, self.width), init=I.normal(0.02)),
            "wpe": pt.Param((self.context, self.width), init=I.normal(0.01)),
            "blocks": [self.block.spec(x)] * self.layers,
            "ln_f": nn.LayerNorm().spec(x),
            "head": pt.Param((self.width, self.vocabulary)),
        })  # fmt: skip
        tree = pt.tie(tree, {"head": pt.transposed("wte")})
        return pt.stacks.stack(tree, "blocks") if self.stacked else tree

    def init(self, key: Any) -> pt.Tree:
        ends = I.normal(0.02 / (2 * self.layers) ** 0.5)  # what is added to the residual stream
        return pt.init(self.spec(), key, {"blocks/*/attn/o/kernel": ends, "blocks/*/down/kernel": ends})

    def __call__(self, params: Any, ids: Any, caches: Any = None, start: Any = 0) -> Any:
        """i32[batch, time] -> f32[batch, time, vocabulary], and the caches of the layers."""
        x = params["wte"][ids] + jax.lax.dynamic_slice_in_dim(params["wpe"], start, ids.shape[1])
        x = x if self.dtype is None else x.astype(self.dtype)

        def layer(x: Any, own: Any, cache: Any = None) -> Any:
            return self.block(own, x, cache=cache)

        x, caches = pt.stacks.scan(layer, x, params["blocks"], caches, remat=self.remat)
        return nn.LayerNorm()(params["ln_f"], x.astype("float32")) @ params["head"], caches

    def caches(self, batch: int) -> Any:
        one = dict(self.block.parts())["attn"].cache(batch, self.context, self.width // self.heads)
        return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (self.layers, *leaf.shape)), one)

    def generate(self, params: Any, ids: Any, count: int, key: Any, temperature: float = 0.0) -> Any:
        """Go on with i32[batch, time] for `count` places: the likeliest at temperature 0, else drawn."""
        if ids.shape[1] + count > self.context:
            raise ValueError(f"{ids.shape[1]} places and {count} more, but the context is of {self.context}")
        logits, caches = self(params, ids, self.caches(len(ids)))

        def place(state: Any, at: Any) -> Any:
            logits, caches = state
            drawn = jax.random.categorical(jax.random.fold_in(key, at), logits / max(temperature, 1e-6))
            new = drawn if temperature else logits.argmax(-1)
            logits, caches = self(params, new[:, None], caches, ids.shape[1] + at)
            return (logits[:, -1], caches), new

        _, new = jax.lax.scan(place, (logits[:, -1], caches), jnp.arange(count))
        return jnp.concatenate([ids, new.T], 1)


def published_names(heads: int = 12, prefix: str = "") -> convert.Table:
    """The table from GPT-2's published names: OpenAI's begin with `h.0`, those that transformers writes with `transformer.h.0`.

    >>> params = published_names().apply("gpt2/model.safetensors", like=GPT().spec())     # doctest: +SKIP

    Its kernels are `(in, out)`, as here, though they are called weights. The head, which is the embedding, is not in its file.
    """

    def attention(leaf: str) -> list[str]:
        return [f"blocks/*/attn/{part}/{leaf}" for part in "qkv"]

    return convert.Table({
        f"{prefix}{{wte,wpe}}.weight": "{wte,wpe}",
        f"{prefix}h.*.ln_{{1,2}}.{{weight,bias}}": "blocks/*/ln_{1,2}/{scale,bias}",
        f"{prefix}h.*.attn.c_attn.weight": (*attention("kernel"), convert.split(3, axis=1) >> convert.heads(heads)),
        f"{prefix}h.*.attn.c_attn.bias": (*attention("bias"), convert.split(3) >> convert.heads(heads)),
        f"{prefix}h.*.attn.c_proj.weight": ("blocks/*/attn/o/kernel", convert.as_is >> convert.heads(heads, axis=0)),
        f"{prefix}h.*.attn.c_proj.bias": "blocks/*/attn/o/bias",
        f"{prefix}h.*.mlp.{{c_fc,c_proj}}.weight": ("blocks/*/{up,down}/kernel", convert.as_is),
        f"{prefix}h.*.mlp.{{c_fc,c_proj}}.bias": "blocks/*/{up,down}/bias",
        f"{prefix}ln_f.{{weight,bias}}": "ln_f/{scale,bias}",
    })  # fmt: skip


# ------------------------------------------------------------------------------- on real text

TEXT = "\n".join(topics[name] for name in sorted(topics))
LETTERS = sorted(set(TEXT))
IDS = np.searchsorted(LETTERS, list(TEXT)).astype("int32")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--context", type=int, default=64)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--unrolled", action="store_true", help="blocks one after the other, not scanned")
    parser.add_argument("--remat", action="store_true", help="compute blocks again in the backward pass")
    parser.add_argument("--bf16", action="store_true", help="compute in bfloat16, parameters in float32")
    given = parser.parse_args()
    dtype = jnp.bfloat16 if given.bf16 else None
    shape = (len(LETTERS), given.context, given.width, given.layers, given.heads)
    model = GPT(*shape, not given.unrolled, given.remat, dtype)
    assert pt.count(GPT().spec()) == 124_439_808, "GPT-2 small"

    params = model.init(jax.random.key(0))
    print(pt.summary(params))
    optimiser = optax.adamw(optax.warmup_cosine_decay_schedule(0.0, 1e-2, 50, given.steps), weight_decay=0.01)

    def loss(params: Any, windows: Any, model: GPT = model) -> Any:
        logits, _ = model(params, windows[:, :-1])
        return optax.softmax_cross_entropy_with_integer_labels(logits, windows[:, 1:]).mean()

    @jax.jit
    def step(params: Any, state: Any, windows: Any) -> Any:
        value, grads = jax.value_and_grad(loss)(params, windows)
        updates, state = optimiser.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    state, draw, values = optimiser.init(params), np.random.default_rng(0), []
    for at in range(given.steps):
        starts = draw.integers(len(IDS) - given.context - 1, size=(32, 1))
        params, state, value = step(params, state, IDS[starts + np.arange(given.context + 1)])
        values.append(value)
        if at % 100 == 0 or at == given.steps - 1:
            print(f"step {at:4}: {float(value):.3f} nats per letter")

    prompt = jnp.asarray(np.searchsorted(LETTERS, list("The value of "))[None])
    said = jax.jit(model.generate, static_argnums=(2, 4))(params, prompt, 40, jax.random.key(0), 0.7)
    print("".join(LETTERS[at] for at in said[0]))
    by_cache = jax.jit(model.generate, static_argnums=2)(params, prompt, 20, jax.random.key(0))
    again = prompt
    for _ in range(20):  # the same without a cache
        again = jnp.concatenate([again, model(params, again)[0][:, -1:].argmax(-1)], 1)

    other = GPT(*shape, given.unrolled, given.remat, dtype)
    with tempfile.TemporaryDirectory() as folder:
        pt.save(Path(folder) / "gpt.safetensors", params)
        apart = pt.load(Path(folder) / "gpt.safetensors", like=other.spec())
    windows = IDS[: 4 * (given.context + 1)].reshape(4, -1)
    ours, theirs = (float(loss(own, windows, net)) for own, net in ((params, model), (apart, other)))

    tolerance = 0.02 if given.bf16 else 1e-4
    assert abs(ours - theirs) < tolerance, "stacked and unrolled are one model, and one file"
    assert given.bf16 or (by_cache == again).all(), "the cache changes nothing"
    assert (params["head"] == params["wte"].T).all(), "tied"
    assert given.steps < 400 or float(np.mean(values[-20:])) < 2.1, "it has learnt"
    print(f"stacked {ours:.4f}, unrolled {theirs:.4f}: one file; {pt.count(params):,} parameters")


if __name__ == "__main__":
    main()
