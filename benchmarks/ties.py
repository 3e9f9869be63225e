"""Claim: a tied model costs at most 1.02 times the same model written by hand with one leaf for each shared one.

The model: an embedding, an encoder of six residual blocks, a decoder whose six blocks are the encoder's, and an output
that is the embedding transposed. Measured are dispatch (a jitted function that takes every parameter and does next to
nothing), tracing and lowering, compiling, and a whole step of Adam. All are checked to give the same loss and the
same gradients first. The baseline is hand-written JAX; beside it run `eqx.nn.Shared`, a shared module of Flax nnx, and
PyTorch's shared modules. Run it with `python benchmarks/ties.py` (with the `bench` and `torch` extras). All run in one
process, in turn, in an order that changes at random; a ratio is the median of the ratios of one turn.
"""

import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from statistics import median
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from _command import Given, Option, main
from _results import Aim, Row
from _timing import Clock, ratio
from flax import nnx

import ptree as pt
from ptree import initializers as I

SHRINK = int(sys.argv[sys.argv.index("--shrink") + 1]) if "--shrink" in sys.argv else 1
VOCABULARY, WIDTH, BLOCKS, BATCH, TIME = 512, 128 // SHRINK, 2 * max(1, 6 // SHRINK), 16, 32
SHARED = BLOCKS // 2
RATE = 1e-3
OURS, BY_HAND = "ptree, tied", "by hand, one leaf"


def spec() -> pt.Tree:
    def dense(i: int, o: int) -> dict[str, pt.Param]:
        return {"kernel": pt.Param((i, o), init=I.lecun_normal()), "bias": pt.Param((o,), init=I.normal(0.1))}

    blocks = [{"up": dense(WIDTH, 2 * WIDTH), "down": dense(2 * WIDTH, WIDTH)} for _ in range(SHARED)]
    table = {"table": pt.Param((VOCABULARY, WIDTH), init=I.normal(WIDTH**-0.5))}
    tree = pt.Tree({"embed": table, "encoder": blocks, "decoder": blocks, "head": dense(WIDTH, VOCABULARY)})
    return pt.tie(tree, {"decoder/*": "encoder/*", "head/kernel": pt.transposed("embed/table")})


def cross_entropy(logits: Any, targets: Any) -> Any:
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()


def used(dense: Any, x: Any) -> Any:
    return x @ dense["kernel"] + dense["bias"]


def tied_loss(params: Any, ids: Any, targets: Any) -> Any:
    x = params["embed"]["table"][ids]
    for part in ("encoder", "decoder"):
        for at in range(SHARED):
            block = params[part][str(at)]
            x = x + used(block["down"], jax.nn.relu(used(block["up"], x)))
    return cross_entropy(used(params["head"], x), targets)


def loss_by_hand(params: Any, ids: Any, targets: Any) -> Any:
    x = params["embed"]["table"][ids]
    for at in range(BLOCKS):
        block = params["encoder"][str(at % SHARED)]
        x = x + used(block["down"], jax.nn.relu(used(block["up"], x)))
    return cross_entropy(x @ params["embed"]["table"].T + params["head"]["bias"], targets)


# ------------------------------------------------------------------------------------- peers


class Block(eqx.Module):
    up: eqx.nn.Linear
    down: eqx.nn.Linear

    def __call__(self, x: Any) -> Any:
        def linear(layer: Any, x: Any) -> Any:
            return x @ layer.weight.T + layer.bias

        return x + linear(self.down, jax.nn.relu(linear(self.up, x)))


class EquinoxModel(eqx.Module):
    """Equinox's way of sharing: a wrapper, opened in the forward pass."""

    shared: eqx.nn.Shared

    def __init__(self, weights: pt.Tree):
        def linear(dense: Any) -> eqx.nn.Linear:
            i, o = dense["kernel"].shape
            layer = eqx.nn.Linear(i, o, key=jax.random.key(0))
            return eqx.tree_at(lambda l: (l.weight, l.bias), layer, (dense["kernel"].T, dense["bias"]))  # noqa: E741

        blocks = [
            Block(linear(block["up"]), linear(block["down"]))
            for block in (weights["encoder"][str(at % SHARED)] for at in range(BLOCKS))
        ]
        embed = eqx.nn.Embedding(weight=weights["embed/table"])
        parts = (embed, blocks, linear(weights["head"]))
        self.shared = eqx.nn.Shared(
            parts,
            where=lambda p: (p[2].weight, *(p[1][at + SHARED] for at in range(SHARED))),
            get=lambda p: (p[0].weight, *(p[1][at] for at in range(SHARED))),
        )

    def __call__(self, ids: Any) -> Any:
        embed, blocks, head = self.shared()
        x = embed.weight[ids]
        for block in blocks:
            x = block(x)
        return x @ head.weight.T + head.bias


class NnxBlock(nnx.Module):
    def __init__(self, block: Any):
        self.up, self.down = (linear(block[name]) for name in ("up", "down"))

    def __call__(self, x: Any) -> Any:
        return x + self.down(jax.nn.relu(self.up(x)))


def linear(dense: Any) -> nnx.Linear:
    layer = nnx.Linear(*dense["kernel"].shape, rngs=nnx.Rngs(0))
    layer.kernel, layer.bias = nnx.Param(dense["kernel"]), nnx.Param(dense["bias"])
    return layer


class NnxModel(nnx.Module):
    """nnx's way of sharing: one module twice, and `attend` for the transpose."""

    def __init__(self, weights: pt.Tree):
        self.embed = nnx.Embed(VOCABULARY, WIDTH, rngs=nnx.Rngs(0))
        self.embed.embedding[...] = weights["embed/table"]
        blocks = [NnxBlock(weights["encoder"][str(at)]) for at in range(SHARED)]
        self.blocks = nnx.List(blocks + blocks)
        self.bias = nnx.Param(weights["head/bias"])

    def __call__(self, ids: Any) -> Any:
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        return self.embed.attend(x) + self.bias


class TorchBlock(torch.nn.Module):
    def __init__(self, block: Any):
        super().__init__()
        self.up, self.down = (torch_linear(block[name]) for name in ("up", "down"))

    def forward(self, x: Any) -> Any:
        return x + self.down(torch.relu(self.up(x)))


def torch_linear(dense: Any) -> torch.nn.Linear:
    layer = torch.nn.Linear(*dense["kernel"].shape)
    layer.weight.data, layer.bias.data = (
        torch.tensor(np.array(dense["kernel"].T)),
        torch.tensor(np.array(dense["bias"])),
    )
    return layer


class TorchModel(torch.nn.Module):
    """PyTorch's way of sharing: one module twice, and one parameter under two names."""

    def __init__(self, weights: pt.Tree):
        super().__init__()
        self.embed = torch.nn.Embedding(VOCABULARY, WIDTH)
        self.embed.weight.data = torch.tensor(np.array(weights["embed/table"]))
        blocks = [TorchBlock(weights["encoder"][str(at)]) for at in range(SHARED)]
        self.blocks = torch.nn.ModuleList(blocks + blocks)
        self.head = torch_linear(weights["head"])
        self.head.weight = self.embed.weight

    def forward(self, ids: Any) -> Any:
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


# ----------------------------------------------------------------------------------- the runs


class Run:
    """One way to write the model: parameters that JAX flattens, and their loss."""

    def __init__(self, params: Any, loss: Callable[..., Any], data: Any):
        self.params, self.loss, self.data = params, loss, data
        self.optimiser = optax.adam(RATE)
        self.state = self.optimiser.init(params)
        self.first = jax.jit(lambda params: jax.tree.leaves(params)[0][0] + 1)
        self.compiled = jax.jit(self.step, donate_argnums=(0, 1))
        self.lowered: Any = None
        self.fresh = (jax.tree.map(jnp.array, params), jax.tree.map(jnp.array, self.state))

    def step(self, params: Any, state: Any, *data: Any) -> Any:
        value, grads = jax.value_and_grad(self.loss)(params, *data)
        updates, state = self.optimiser.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    def dispatch(self) -> None:
        for _ in range(200):
            result = self.first(self.params)
        jax.block_until_ready(result)

    def trace(self) -> None:
        self.lowered = jax.jit(lambda *given: self.step(*given)).lower(self.params, self.state, *self.data)

    def compile(self) -> None:
        self.lowered.compile()

    def train(self) -> None:
        for _ in range(10):
            *self.fresh, value = self.compiled(*self.fresh, *self.data)
        jax.block_until_ready(value)


class TorchRun:
    def __init__(self, model: TorchModel, data: Any):
        self.model, self.data = model, [torch.tensor(np.array(part)).long() for part in data]
        self.optimiser = torch.optim.Adam(model.parameters(), RATE)

    def loss(self) -> Any:
        ids, targets = self.data
        return torch.nn.functional.cross_entropy(self.model(ids).flatten(0, 1), targets.flatten())

    def train(self) -> None:
        for _ in range(10):
            self.optimiser.zero_grad()
            self.loss().backward()
            self.optimiser.step()


def runs() -> dict[str, Any]:
    params = pt.init(spec(), jax.random.key(0))
    key = jax.random.key(1)
    ids, targets = jax.random.randint(key, (2, BATCH, TIME), 0, VOCABULARY)
    data = (ids, targets)
    once: dict[str, Any] = pt.asdict(params)
    del once["decoder"]
    once["head"] = {"bias": once["head"]["bias"]}

    arrays, static = eqx.partition(EquinoxModel(params), eqx.is_array)
    graph, state = nnx.split(NnxModel(params))
    made = {
        OURS: Run(params, tied_loss, data),
        BY_HAND: Run(once, loss_by_hand, data),
        "eqx.nn.Shared": Run(arrays, lambda a, ids, y: cross_entropy(eqx.combine(a, static)(ids), y), data),
        "nnx, shared modules": Run(state, lambda s, ids, y: cross_entropy(nnx.merge(graph, s)(ids), y), data),
        "PyTorch, eager": TorchRun(TorchModel(params), data),
    }
    check(made)
    return made


def check(made: dict[str, Any]) -> None:
    """The same leaves, the same loss, the same gradients."""
    numbers: dict[str, Any] = {}
    for name, run in made.items():
        if isinstance(run, TorchRun):
            value = run.loss()
            value.backward()
            grads = [np.asarray(parameter.grad) for parameter in run.model.parameters()]
        else:
            value, grads = jax.jit(jax.value_and_grad(run.loss))(run.params, *run.data)
            grads = jax.tree.leaves(grads)
        numbers[name] = (
            float(value.detach() if isinstance(run, TorchRun) else value),
            sorted(float(np.linalg.norm(grad)) for grad in grads),
        )
    value, norms = numbers[BY_HAND]
    for name, (other, theirs) in numbers.items():
        assert len(theirs) == len(norms) == 2 + 4 * SHARED, (name, len(theirs))
        np.testing.assert_allclose(other, value, rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(theirs, norms, rtol=1e-4, err_msg=name)


CALLS = {"dispatch": 200, "trace": 1, "compile": 1, "train": 10}
"""Of what is measured in one turn."""
TITLES = {"dispatch": "dispatch", "trace": "trace + lower", "compile": "compile", "train": "step of Adam"}


def rows(given: Given) -> Iterator[Row]:
    random.seed(0)
    made = runs()
    times: dict[tuple[str, str], list[float]] = {}
    for turn in range(given.rounds + 1):
        for what, calls in CALLS.items():
            for name in random.sample([*made], len(made)):
                if not hasattr(made[name], what):
                    continue
                clock = Clock()
                getattr(made[name], what)()
                if turn:  # the first one warms up
                    times.setdefault((what, name), []).append(clock.lap() / calls)
    for (what, name), theirs in sorted(times.items(), key=lambda each: [*CALLS].index(each[0][0])):
        row = Row(TITLES[what], name, median(theirs), "s")
        if name == OURS:
            yield row
            continue
        share, spread = ratio(times[what, OURS], theirs)
        yield replace(row, ratio=share, spread=spread, aim=Aim(1.02) if name == BY_HAND else None)


if __name__ == "__main__":
    main(rows, [Option("--rounds", 30, "how often all take their turn")], ["optax", "equinox", "flax", "torch"])
