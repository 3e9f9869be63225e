"""The part of `look.py` for summary and flops: beside torchinfo, clu and Flax's own table, where they are installed."""

import contextlib
import io
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import torch
from _command import Given
from _results import Aim, Row
from _timing import least_times, rows_of_times
from torch.utils.flop_counter import FlopCounterMode

import ptree as pt
from ptree import look

LAYERS, WIDTH, VOCABULARY = 12, 768, 50257


def summary_part(given: Given) -> Iterator[Row]:
    """What a summary takes: of a model of 100,000 leaves, and of GPT-2 small beside others."""
    rounds = min(5, given.rounds)
    many = many_leaves(6250 // given.shrink)
    assert pt.summary(many).count == sum(leaf.size for leaf in jax.tree.leaves(many))
    forms = {"rows and totals": lambda: pt.summary(many), "its table too": lambda: str(pt.summary(many))}
    for form, seconds in least_times(forms, rounds).items():
        size = f"{16 * len(many['layers']):,} leaves"
        yield Row(f"summary: {form}", "ptree", seconds, "s", size, aim=Aim(0.3, "value"))
    params = gpt2_small()
    assert pt.summary(params).count == 124_439_808
    tables: dict[str, Callable[[], str]] = {"ptree": lambda: str(pt.summary(params))}
    tables |= _clu(params) | _torchinfo() | _linen()
    yield from rows_of_times("a table of GPT-2 small", least_times(tables, rounds))
    for name, table in tables.items():
        yield Row("a table of GPT-2 small, lines", name, len(table().splitlines()), "")
    yield from flops_rows(rounds)


def flops_rows(rounds: int) -> Iterator[Row]:
    """What counting operations takes, beside PyTorch's counter, which runs the model."""
    model = torch.nn.Sequential(*[torch.nn.Linear(256, 256) for _ in range(24)]).requires_grad_(False)
    x = torch.zeros(8, 256)
    spec = pt.Tree({"h": [{"kernel": jax.ShapeDtypeStruct((256, 256), "float32")}] * 24})

    def of_torch() -> int:
        with FlopCounterMode(display=False) as counter:
            model(x)
        return counter.get_total_flops()

    def forward(params: Any, x: jax.Array) -> jax.Array:
        for layer in params["h"].values():
            x = x @ layer["kernel"]
        return x

    def of_ptree() -> int:
        return look.flops(forward, spec, jax.ShapeDtypeStruct((8, 256), "float32")).total

    assert of_torch() == of_ptree() == 2 * 24 * 8 * 256 * 256
    times = least_times({"ptree": of_ptree, "torch: FlopCounterMode": of_torch}, rounds)
    yield from rows_of_times("counting the operations of 24 layers", times)


def many_leaves(layers: int) -> pt.Tree:
    """16 leaves in each layer; they share their memory."""

    def dense(i: int, o: int) -> dict[str, np.ndarray]:
        return {"kernel": np.broadcast_to(np.float32(0), (i, o)), "bias": np.broadcast_to(np.float32(0), (o,))}

    norm = {"scale": np.zeros(8, "float32"), "bias": np.zeros(8, "float32")}
    attention = {name: dense(8, 8) for name in ("query", "key", "value", "out")}
    layer = {"attention": attention, "norm": norm, "mlp": {"up": dense(8, 32), "down": dense(32, 8)}, "norm_2": norm}
    return pt.Tree({"layers": {str(number): layer for number in range(layers)}})


def gpt2_small() -> pt.Tree:
    """The parameters of GPT-2 small, with the tied head."""

    def dense(i: int, o: int) -> dict[str, Any]:
        return {"kernel": zeros(i, o), "bias": zeros(o)}

    def zeros(*shape: int) -> np.ndarray:
        return np.broadcast_to(np.float32(0), shape)

    norm = {"scale": zeros(WIDTH), "bias": zeros(WIDTH)}
    block = {
        "ln_1": norm,
        "attn": {"c_attn": dense(WIDTH, 3 * WIDTH), "c_proj": dense(WIDTH, WIDTH)},
        "ln_2": norm,
        "mlp": {"c_fc": dense(WIDTH, 4 * WIDTH), "c_proj": dense(4 * WIDTH, WIDTH)},
    }
    table = zeros(VOCABULARY, WIDTH)
    tree = {"wte": table, "wpe": zeros(1024, WIDTH), "h": [block] * LAYERS, "ln_f": norm, "lm_head": table}
    return pt.tie(pt.Tree(tree), {"lm_head": "wte"})


def _clu(params: pt.Tree) -> dict[str, Callable[[], str]]:
    try:
        from clu import parameter_overview  # pyright: ignore[reportMissingImports]
    except ImportError:
        return {}
    plain = pt.asdict(pt.drop(params, "lm_head"))
    overview = parameter_overview.get_parameter_overview
    return {"clu": lambda: overview(plain, include_stats=False)}


def _torchinfo() -> dict[str, Callable[[], str]]:
    try:
        import torchinfo  # pyright: ignore[reportMissingImports]
    except ImportError:
        return {}
    with torch.device("meta"):
        layers = [torch.nn.TransformerEncoderLayer(WIDTH, 12, 4 * WIDTH) for _ in range(LAYERS)]
        model = torch.nn.Sequential(torch.nn.Embedding(VOCABULARY, WIDTH), *layers)
    return {"torchinfo (without a call)": lambda: str(torchinfo.summary(model, verbose=0, depth=4))}


class _Block(flax.linen.Module):
    @flax.linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = flax.linen.LayerNorm()(x)
        x = x + flax.linen.Dense(WIDTH)(flax.linen.Dense(3 * WIDTH)(y))
        return x + flax.linen.Dense(WIDTH)(flax.linen.Dense(4 * WIDTH)(flax.linen.LayerNorm()(x)))


class _Model(flax.linen.Module):
    @flax.linen.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = flax.linen.Embed(VOCABULARY, WIDTH)(tokens)
        for _ in range(LAYERS):
            x = _Block()(x)
        return flax.linen.LayerNorm()(x)


def _linen() -> dict[str, Callable[[], str]]:
    def table() -> str:
        with contextlib.redirect_stdout(io.StringIO()):
            return _Model().tabulate(jax.random.key(0), jnp.zeros((1, 64), "int32"), console_kwargs={"width": 120})

    return {"linen tabulate (traces the model)": table}
