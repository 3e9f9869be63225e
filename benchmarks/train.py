"""Claims: a step of ptree.train costs what one writes by hand, and so do microbatches, averages and observation.

- step: at most 1.02 times JAX and optax by hand where the device computes; beside nnx' Optimizer, Equinox and PyTorch with fused AdamW;
- accumulate: microbatches beside a scan by hand and `optax.MultiSteps`; time and temporary memory;
- extras: an average and observation in the step, at most 3 percent each; loss scaling;
- frozen: time, memory and slots where parts of the parameters are frozen, beside `partition` by hand.

Run it with `python benchmarks/train.py [PART ...]`. Times are of the processor, the least of several rounds in which all
take turns; results are checked equal first.
"""

import functools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _command import Given, Option, main
from _results import Row
from _timing import least_times, other_ways, rows_of_times
from _train_carry import carry_part
from _train_frozen import frozen_part
from _train_lora import lora_part

import ptree as pt
from ptree import look, train

RATE, DECAY = 1e-3, 1e-2
Turn = Callable[[], float]
"""Takes some steps, and returns the loss of the last one."""


def weights(layers: int, width: int) -> list[dict[str, np.ndarray]]:
    draw = np.random.default_rng(0)
    scale = np.float32((2 / width) ** 0.5)
    return [
        {"kernel": draw.standard_normal((width, width), "float32") * scale, "bias": np.zeros(width, "float32")}
        for _ in range(layers)
    ]


def as_dicts(made: list[dict[str, np.ndarray]]) -> Any:
    return {f"{at:03}": {name: jnp.array(leaf) for name, leaf in layer.items()} for at, layer in enumerate(made)}


def forward(params: Any, x: Any) -> Any:
    for layer in params.values():
        x = jax.nn.relu(x @ layer["kernel"] + layer["bias"])
    return x


def loss(params: Any, x: Any) -> Any:
    return jnp.square(forward(params, x) - 1).mean()


# ------------------------------------------------------------------------------------- a step


def by_hand(made: Any, x: np.ndarray, steps: int, loss: Callable[..., Any] = loss) -> Turn:
    optimiser = optax.adamw(RATE, weight_decay=DECAY)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Any, slots: Any, x: Any) -> Any:
        value, grads = jax.value_and_grad(loss)(params, x)
        updates, slots = optimiser.update(grads, slots, params)
        return optax.apply_updates(params, updates), slots, value

    params = as_dicts(made)
    slots, batch = optimiser.init(params), jnp.asarray(x)

    def turn() -> float:
        nonlocal params, slots
        for _ in range(steps):
            params, slots, value = step(params, slots, batch)
        return float(value)

    return turn


def by_step(
    made: Any, x: np.ndarray, steps: int, tree: bool = True, loss: Callable[..., Any] = loss, **options: Any
) -> Turn:
    step = train.step(loss, optax.adamw(RATE, weight_decay=DECAY), **options)
    params = as_dicts(made)
    state, batch = step.init(pt.Tree(params) if tree else params), jnp.asarray(x)

    def turn() -> float:
        nonlocal state
        for _ in range(steps):
            state, metrics = step(state, batch)
        return float(metrics.loss)

    return turn


def by_groups(made: Any, x: np.ndarray, steps: int) -> Turn:
    optimiser = optax.adamw(RATE, weight_decay=DECAY)
    step = train.step(loss, train.groups({"**/bias": optimiser, "**": optimiser}))
    state, batch = step.init(pt.Tree(as_dicts(made))), jnp.asarray(x)

    def turn() -> float:
        nonlocal state
        for _ in range(steps):
            state, metrics = step(state, batch)
        return float(metrics.loss)

    return turn


def by_nnx(made: Any, x: np.ndarray, steps: int) -> Turn:
    from flax import nnx

    class Model(nnx.Module):
        def __init__(self) -> None:
            self.layers = nnx.List([nnx.Linear(*layer["kernel"].shape, rngs=nnx.Rngs(0)) for layer in made])

        def __call__(self, x: Any) -> Any:
            for layer in self.layers:
                x = jax.nn.relu(layer(x))
            return x

    model = Model()
    for layer, arrays in zip(model.layers, made):
        layer.kernel[...] = jnp.array(arrays["kernel"])
        layer.bias[...] = jnp.array(arrays["bias"])  # pyright: ignore
    optimiser = nnx.Optimizer(model, optax.adamw(RATE, weight_decay=DECAY), wrt=nnx.Param)

    @nnx.jit
    def step(model: Any, optimiser: Any, x: Any) -> Any:
        value, grads = nnx.value_and_grad(lambda model: jnp.square(model(x) - 1).mean())(model)
        optimiser.update(model, grads)
        return value

    batch = jnp.asarray(x)

    def turn() -> float:
        for _ in range(steps):
            value = step(model, optimiser, batch)
        return float(value)

    return turn


def by_equinox(made: Any, x: np.ndarray, steps: int) -> Turn:
    import equinox as eqx

    layers = []
    for arrays in made:
        layer = eqx.nn.Linear(*arrays["kernel"].shape, key=jax.random.key(0))
        new = (jnp.array(arrays["kernel"].T), jnp.array(arrays["bias"]))
        layers.append(eqx.tree_at(lambda layer: (layer.weight, layer.bias), layer, new))
    optimiser = optax.adamw(RATE, weight_decay=DECAY)

    def module_loss(model: Any, x: Any) -> Any:
        for layer in model:
            x = jax.nn.relu(jax.vmap(layer)(x))
        return jnp.square(x - 1).mean()

    @functools.partial(eqx.filter_jit, donate="all-except-first")
    def step(x: Any, model: Any, slots: Any) -> Any:
        value, grads = eqx.filter_value_and_grad(module_loss)(model, x)
        updates, slots = optimiser.update(grads, slots, eqx.filter(model, eqx.is_array))
        return eqx.apply_updates(model, updates), slots, value

    model: Any = layers
    slots, batch = optimiser.init(eqx.filter(model, eqx.is_array)), jnp.asarray(x)

    def turn() -> float:
        nonlocal model, slots
        for _ in range(steps):
            model, slots, value = step(batch, model, slots)
        return float(value)

    return turn


def by_pytorch(made: Any, x: np.ndarray, steps: int) -> Turn:
    import torch

    layers = [
        (torch.nn.Parameter(torch.tensor(layer["kernel"])), torch.nn.Parameter(torch.tensor(layer["bias"])))
        for layer in made
    ]
    leaves = [leaf for layer in layers for leaf in layer]
    optimiser = torch.optim.AdamW(leaves, RATE, weight_decay=DECAY, fused=True)
    batch = torch.tensor(x)

    def turn() -> float:
        for _ in range(steps):
            optimiser.zero_grad()
            out = batch
            for kernel, bias in layers:
                out = torch.relu(torch.addmm(bias, out, kernel))
            value = ((out - 1) ** 2).mean()
            value.backward()
            optimiser.step()
        return value.item()

    return turn


BY_HAND = "JAX and optax by hand"
WAYS: dict[str, Callable[..., Turn]] = {
    "ptree": by_step,
    BY_HAND: by_hand,
    "Flax nnx, Optimizer": by_nnx,
    "Equinox": by_equinox,
    "PyTorch, fused AdamW": by_pytorch,
    "dicts": functools.partial(by_step, tree=False),
    "two groups": by_groups,
}
ROUNDS = 15


def measure(
    ways: Mapping[str, Callable[..., Turn]], rounds: int, layers: int, width: int, rows: int, steps: int
) -> dict[str, float]:
    """Check that all have the same losses, then let them take turns: seconds of the processor, of a step."""
    made = weights(layers, width)
    x = np.random.default_rng(1).standard_normal((rows, width), "float32")
    turns: dict[str, Callable[[], Any]] = {}
    losses: dict[str, list[float]] = {}
    for name, way in ways.items():
        one = way(made, x, 1)
        losses[name] = [one() for _ in range(3)]
        turns[name] = way(made, x, steps)
        turns[name]()
    base = next(iter(ways))
    for name, values in losses.items():
        np.testing.assert_allclose(values, losses[base], rtol=2e-4, err_msg=name)
    times = dict.fromkeys(turns, float("inf"))
    for _ in range(rounds):
        # in any order: threads of PyTorch's spin for a while after its turn
        order = random.sample([*turns], len(turns))
        for name, seconds in least_times({name: turns[name] for name in order}, rounds=1).items():
            times[name] = min(times[name], seconds / steps)
    return times


def with_other_ways(
    what: str, times: Mapping[str, float], base: str, others: Sequence[str], limit: float
) -> Iterator[Row]:
    """The rows of ptree and all others, and those of other ways to use ptree beside `base`."""
    main_ones = {name: seconds for name, seconds in times.items() if name not in others}
    yield from rows_of_times(what, main_ones, ratios={base: limit})
    yield from other_ways(what, times, base, others, limit)


SIZES = {
    "a step of 4 layers of width 1024, 256 rows": (4, 1024, 256, 2),
    "a step of 50 layers of width 64, 64 rows": (50, 64, 64, 20),
    "a step of 4 layers of width 32, 16 rows": (4, 32, 16, 200),
}
"""What -> layers, width, rows, and steps in a turn."""


def step_part(given: Given) -> Iterator[Row]:
    for what, (layers, width, rows, steps) in SIZES.items():
        layers, width = max(2, layers // given.shrink), max(8, width // given.shrink)
        times = measure(WAYS, given.rounds, layers, width, rows, max(1, steps // given.shrink))
        yield from with_other_ways(what, times, BY_HAND, ["dicts", "two groups"], 1.02)


# -------------------------------------------------------------------------------- microbatches

COUNT = 8


def accumulated_by_hand(made: Any, x: np.ndarray, steps: int) -> Turn:
    def mean_loss_and_grads(params: Any, x: Any) -> Any:
        def add(sums: Any, rows: Any) -> Any:
            found = jax.value_and_grad(loss)(params, rows)
            return jax.tree.map(jnp.add, sums, found), None

        parts = x.reshape(COUNT, -1, x.shape[-1])
        zeros = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, params))
        sums, _ = jax.lax.scan(add, zeros, parts)
        return jax.tree.map(lambda leaf: leaf / COUNT, sums)

    optimiser = optax.adamw(RATE, weight_decay=DECAY)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Any, slots: Any, x: Any) -> Any:
        value, grads = mean_loss_and_grads(params, x)
        updates, slots = optimiser.update(grads, slots, params)
        return optax.apply_updates(params, updates), slots, value

    params = as_dicts(made)
    slots, batch = optimiser.init(params), jnp.asarray(x)

    def turn() -> float:
        nonlocal params, slots
        for _ in range(steps):
            params, slots, value = step(params, slots, batch)
        return float(value)

    return turn


def accumulated_by_optax(made: Any, x: np.ndarray, steps: int) -> Turn:
    """A call for each microbatch, as `optax.MultiSteps` wants it; its loss is the mean over the calls."""
    optimiser = optax.MultiSteps(optax.adamw(RATE, weight_decay=DECAY), COUNT)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Any, slots: Any, x: Any) -> Any:
        value, grads = jax.value_and_grad(loss)(params, x)
        updates, slots = optimiser.update(grads, slots, params)
        return optax.apply_updates(params, updates), slots, value

    params = as_dicts(made)
    slots: Any = optimiser.init(params)
    parts = [jnp.asarray(part) for part in x.reshape(COUNT, -1, x.shape[-1])]

    def turn() -> float:
        nonlocal params, slots
        for _ in range(steps):
            values = []
            for part in parts:
                params, slots, value = step(params, slots, part)
                values.append(value)
        return float(sum(values)) / COUNT

    return turn


def accumulate_part(given: Given) -> Iterator[Row]:
    scan, weighted = "a scan by hand", "weighted"
    ways: dict[str, Callable[..., Turn]] = {
        "ptree": functools.partial(by_step, accumulate=COUNT),
        scan: accumulated_by_hand,
        "optax.MultiSteps": accumulated_by_optax,
        "the whole batch at once": by_hand,
        weighted: functools.partial(by_step, accumulate=COUNT, weight=lambda x: (x > 0).sum() * 0 + 1),
    }
    width, rows = max(8, 256 // given.shrink), max(8, 256 // given.shrink) * COUNT
    times = measure(ways, given.rounds, max(2, 8 // given.shrink), width, rows, 1)
    what = f"{COUNT} microbatches of 256 rows, 8 layers of width 256"
    yield from with_other_ways(what, times, scan, [weighted], 1.02)
    made = as_dicts(weights(max(2, 8 // given.shrink), width))
    memory = {count: temporary_bytes(made, jnp.ones((rows, width)), count) for count in (COUNT, 1)}
    yield Row(f"{what}, temporary memory", "ptree", memory[COUNT], "B")
    yield Row(f"{what}, temporary memory", "the whole batch at once", memory[1], "B", ratio=memory[COUNT] / memory[1])


def temporary_bytes(params: Any, x: Any, count: int) -> int:
    """What XLA plans for a step, beside arguments and results."""
    step = train.step(loss, optax.adamw(RATE), accumulate=count)
    analysis: Any = jax.jit(step.pure).lower(step.init(params), x).compile().memory_analysis()
    return analysis.temp_size_in_bytes


# --------------------------------------------------------------------------- what comes with it


def extras_part(given: Given) -> Iterator[Row]:
    plain = "a step without it"
    ways: dict[str, Callable[..., Turn]] = {
        plain: by_step,
        "observe=look.observe": functools.partial(by_step, observe=look.observe),
        "observe, without updates": functools.partial(
            by_step, observe=lambda params, grads, _: look.observe(params, grads)
        ),
        "ema=0.999": functools.partial(by_step, ema=0.999),
        "scale=LossScale()": functools.partial(by_step, scale=train.LossScale()),
    }
    width = 1024 // given.shrink
    times = measure(ways, given.rounds, 4, width, width, 1)
    what = "a step of 4 layers of width 1024, 1,024 rows"
    with_aim = [name for name in ways if name.startswith(("observe", "ema"))]
    yield from other_ways(what, times, plain, with_aim, 1.03)
    yield from other_ways(what, times, plain, ["scale=LossScale()"])


PARTS = {
    "step": step_part,
    "accumulate": accumulate_part,
    "extras": extras_part,
    "frozen": frozen_part,
    "carry": carry_part,
    "lora": lora_part,
}


OPTIONS = [Option("--rounds", ROUNDS, "how often all take their turn")]

if __name__ == "__main__":
    main(PARTS, OPTIONS, ["optax", "flax", "equinox", "torch"])
