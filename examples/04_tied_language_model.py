"""Train a small character language model whose output is its embedding, transposed, and whose blocks are one block.

Run it with `python examples/04_tied_language_model.py`; it takes about a minute on two CPU cores. The text is the
language reference that ships with Python. The forward pass is plain JAX and knows nothing of ties: the same function
runs the tied and the untied model, and both names of a tied leaf are read, trained, saved and loaded as one.
The comparison is drawn into `tied_language_model.png`, or where `--plot` says.
"""

import argparse
import math
import tempfile
import time
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax

import ptree as pt
from ptree import initializers as I

CONTEXT, WIDTH, HEADS, BATCH, STEPS = 48, 64, 4, 32, 1000

TEXT = "\n".join(topics[name] for name in sorted(topics))
LETTERS = sorted(set(TEXT))
IDS = np.searchsorted(LETTERS, list(TEXT)).astype("int32")
TRAIN, HELD_OUT = np.split(IDS, [len(IDS) * 9 // 10])


def spec() -> pt.Tree:
    """Every parameter of two blocks between an embedding and an output, none of them tied."""

    def dense(i: int, o: int) -> dict[str, pt.Param]:
        return {"kernel": pt.Param((i, o), init=I.lecun_normal()), "bias": pt.Param((o,), init=I.zeros)}

    norm = {"scale": pt.Param((WIDTH,), init=I.ones), "bias": pt.Param((WIDTH,), init=I.zeros)}
    block = {
        "norm_1": norm, "qkv": dense(WIDTH, 3 * WIDTH), "out": dense(WIDTH, WIDTH),
        "norm_2": norm, "up": dense(WIDTH, 4 * WIDTH), "down": dense(4 * WIDTH, WIDTH),
    }  # fmt: skip
    table = pt.Param((len(LETTERS), WIDTH), init=I.normal(WIDTH**-0.5))
    positions = pt.Param((CONTEXT, WIDTH), init=I.normal(0.1))
    embed = {"table": table, "positions": positions}
    return pt.Tree({"embed": embed, "blocks": [block, block], "norm": norm, "head": dense(WIDTH, len(LETTERS))})


TIES = {"blocks/*": "blocks/0", "head/kernel": pt.transposed("embed/table")}


def apply(dense: Any, x: jax.Array) -> jax.Array:
    return x @ dense["kernel"] + dense["bias"]


def normalised(norm: Any, x: jax.Array) -> jax.Array:
    return jax.nn.standardize(x, epsilon=1e-5) * norm["scale"] + norm["bias"]


def logits(params: Any, ids: jax.Array) -> jax.Array:
    """i32[batch, time] -> f32[batch, time, letters]"""
    x = params["embed"]["table"][ids] * math.sqrt(WIDTH) + params["embed"]["positions"]
    for name in ("0", "1"):
        block = params["blocks"][name]
        qkv = apply(block["qkv"], normalised(block["norm_1"], x))
        q, k, v = (part.reshape(*part.shape[:2], HEADS, -1) for part in jnp.split(qkv, 3, axis=-1))
        x = x + apply(block["out"], jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(x.shape))
        x = x + apply(block["down"], jax.nn.gelu(apply(block["up"], normalised(block["norm_2"], x))))
    return apply(params["head"], normalised(params["norm"], x))


@jax.jit
def loss(params: Any, windows: jax.Array) -> jax.Array:
    """Nats per letter; windows are i32[batch, time + 1]."""
    predicted = logits(params, windows[:, :-1])
    return optax.softmax_cross_entropy_with_integer_labels(predicted, windows[:, 1:]).mean()


optimiser = optax.adamw(optax.warmup_cosine_decay_schedule(0.0, 4e-3, 50, STEPS), weight_decay=0.01)


@jax.jit
def step(params: Any, state: Any, windows: jax.Array) -> Any:
    value, grads = jax.value_and_grad(loss)(params, windows)
    updates, state = optimiser.update(grads, state, params)
    return optax.apply_updates(params, updates), state, value


def windows(ids: np.ndarray, draw: np.random.Generator, count: int) -> np.ndarray:
    starts = draw.integers(len(ids) - CONTEXT - 1, size=(count, 1))
    return ids[starts + np.arange(CONTEXT + 1)]


CHECK = windows(HELD_OUT, np.random.default_rng(1), 256)


def train(name: str, params: pt.Tree) -> tuple[pt.Tree, list[tuple[int, float]]]:
    """The trained parameters, and the loss on text that was held out."""
    state, draw, curve, start = optimiser.init(params), np.random.default_rng(0), [], time.perf_counter()
    for at in range(STEPS + 1):
        if at % 50 == 0:
            curve.append((at, float(loss(params, CHECK))))
        if at % 200 == 0:
            print(f"{name:6} step {at:4}: held-out loss {curve[-1][1]:.3f}, {time.perf_counter() - start:.0f} s")
        params, state, _ = step(params, state, windows(TRAIN, draw, BATCH))
    return params, curve


def uses(params: pt.Tree) -> dict[str, dict[str, float]]:
    """For some tied leaves what each name contributes to the gradient: its length, and that of the sum."""
    told: dict[str, dict[str, float]] = {}
    grads = jax.grad(loss)(params, CHECK)
    for path in (
        "embed/table",
        "blocks/0/qkv/kernel",
        "blocks/0/out/kernel",
        "blocks/0/up/kernel",
        "blocks/0/down/kernel",
    ):
        by_use = pt.sharing.gradient_by_use(loss, params, path, CHECK)
        np.testing.assert_allclose(sum(by_use.values()), grads[path], rtol=1e-3, atol=1e-6)
        told[path] = {name: float(jnp.linalg.norm(grad)) for name, grad in by_use.items()}
        told[path]["their sum"] = float(jnp.linalg.norm(grads[path]))
    return told


def two_letters() -> float:
    """Nats per letter of the best guess that sees one letter only, with the held-out text's own counts."""
    pairs = np.zeros((len(LETTERS), len(LETTERS)))
    np.add.at(pairs, (HELD_OUT[:-1], HELD_OUT[1:]), 1)
    chance = pairs / np.maximum(pairs.sum(1, keepdims=True), 1)
    return float(-(pairs[pairs > 0] * np.log(chance[pairs > 0])).sum() / pairs.sum())


def plot(file: Path, curves: dict[str, Any], sizes: dict[str, int], contributions: dict[str, dict[str, float]]) -> None:
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for name, curve in curves.items():
        left.plot(*zip(*curve, strict=True), label=f"{name}: {sizes[name]:,} parameters, {curve[-1][1]:.3f}")
    left.axhline(two_letters(), color="grey", linestyle=":", label=f"one letter of context: {two_letters():.3f}")
    left.set(title="held-out loss", xlabel="step", ylabel="nats per letter")
    left.legend()
    for group, told in enumerate(contributions.values()):
        at = -4 * group - np.arange(3)
        right.barh(at, list(told.values()), color=["C0", "C1", "0.6"])
        for y, name in zip(at, told, strict=True):
            right.text(0, y, f"{name} ", ha="right", va="center", fontsize=8)
    right.set_yticks([])
    right.set(title="gradient of the tied leaves, by use", xlabel="length (L2)")
    figure.savefig(file, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plot", type=Path, default=Path("tied_language_model.png"), help="the PNG file")
    file = parser.parse_args().plot

    models = {"tied": pt.tie(spec(), TIES), "untied": spec()}
    print(f"{len(TEXT):,} letters of {len(LETTERS)} kinds; one letter of context gives {two_letters():.3f} nats")
    print(pt.summary(models["tied"]))
    trained, curves = {}, {}
    for name, model in models.items():
        trained[name], curves[name] = train(name, pt.init(model, jax.random.key(0)))
    sizes = {name: pt.count(model) for name, model in models.items()}
    for name, curve in curves.items():
        print(f"{name:6} {sizes[name]:7,} parameters, held-out loss {curve[-1][1]:.3f}")

    params = trained["tied"]
    contributions = uses(params)
    for told in contributions.values():
        print("gradient:", ", ".join(f"{name} {length:.4f}" for name, length in told.items()))
    with tempfile.TemporaryDirectory() as folder:
        pt.save(Path(folder) / "tied.safetensors", params)
        assert pt.load(Path(folder) / "tied.safetensors") == params, "the file holds the ties"
    plot(file, curves, sizes, contributions)
    print(f"drawn into {file}")

    block = pt.count(models["untied"], "blocks/1")
    assert sizes["untied"] - sizes["tied"] == block + len(LETTERS) * WIDTH, "a block and a table less"
    assert params["blocks/1/up/kernel"] is params["blocks/0/up/kernel"], "tied after training"
    assert (params["head/kernel"] == params["embed/table"].T).all(), "both names, through the transpose"
    tied, untied = (curve[-1][1] for curve in curves.values())
    assert tied < two_letters(), "it has learnt more than pairs of letters"
    assert tied - untied < 0.25, "and little is lost"
    share = sizes["tied"] / sizes["untied"]
    print(
        f"with {share:.0%} of the parameters the tied model is {tied - untied:+.3f} nats per letter from the untied one"
    )


if __name__ == "__main__":
    main()
