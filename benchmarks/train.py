"""Claims: a step of ptree.train costs what one writes by hand, and so do microbatches, averages and observation.

- step: at most 1.02 times JAX and optax by hand where the device computes; beside nnx' Optimizer, Equinox and PyTorch with fused AdamW;
- accumulate: microbatches beside a scan by hand and `optax.MultiSteps`; time and temporary memory;
- extras: an average and observation in the step, at most 3 percent each; loss scaling;
- frozen: time, memory and slots where parts of the parameters are frozen, beside `partition` by hand.

Run it with `python benchmarks/train.py [PART ...]`. Times are of the processor, the least of several rounds in which all
take turns; results are checked equal first.
"""

import argparse
import functools
import platform
import random
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _look_times import least_times, print_times
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


WAYS: dict[str, Callable[..., Turn]] = {
    "JAX and optax by hand": by_hand,
    "ptree.train.step, a Tree": by_step,
    "ptree.train.step, dicts": functools.partial(by_step, tree=False),
    "ptree.train.step, two groups": by_groups,
    "Flax nnx, Optimizer": by_nnx,
    "Equinox": by_equinox,
    "PyTorch, fused AdamW": by_pytorch,
}


def measure(title: str, ways: dict[str, Callable[..., Turn]], layers: int, width: int, rows: int, steps: int) -> None:
    """Check that all have the same losses, then let them take turns."""
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
    for _ in range(15):
        # in any order: threads of PyTorch's spin for a while after its turn
        order = random.sample([*turns], len(turns))
        for name, seconds in least_times({name: turns[name] for name in order}, rounds=1).items():
            times[name] = min(times[name], seconds / steps)
    print_times(title, times, base, "us")


def step_part() -> None:
    measure("a step of 4 layers of width 1024, 256 rows", WAYS, 4, 1024, 256, 2)
    measure("a step of 50 layers of width 64, 64 rows: 100 leaves", WAYS, 50, 64, 64, 20)
    measure("a step of 4 layers of width 32, 16 rows: dispatch", WAYS, 4, 32, 16, 200)


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


def accumulate_part() -> None:
    ways: dict[str, Callable[..., Turn]] = {
        "a scan by hand": accumulated_by_hand,
        f"ptree.train.step(accumulate={COUNT})": functools.partial(by_step, accumulate=COUNT),
        "ptree, weighted": functools.partial(by_step, accumulate=COUNT, weight=lambda x: (x > 0).sum() * 0 + 1),
        "optax.MultiSteps": accumulated_by_optax,
        "the whole batch at once": by_hand,
    }
    measure(f"{COUNT} microbatches of 256 rows, 8 layers of width 256", ways, 8, 256, 256 * COUNT, 1)
    x = jnp.ones((256 * COUNT, 256))
    print("temporary memory of the step")
    for count in (1, COUNT):
        step = train.step(loss, optax.adamw(RATE), accumulate=count)
        compiled = jax.jit(step.pure).lower(step.init(as_dicts(weights(8, 256))), x).compile()
        analysis: Any = compiled.memory_analysis()
        print(f"  accumulate={count:<33} {analysis.temp_size_in_bytes / 2**20:10.1f} MiB")


# --------------------------------------------------------------------------- what comes with it


def extras_part() -> None:
    ways: dict[str, Callable[..., Turn]] = {
        "ptree.train.step": by_step,
        "observe=look.observe": functools.partial(by_step, observe=look.observe),
        "observe, without updates": functools.partial(
            by_step, observe=lambda params, grads, _: look.observe(params, grads)
        ),
        "ema=0.999": functools.partial(by_step, ema=0.999),
        "scale=LossScale()": functools.partial(by_step, scale=train.LossScale()),
    }
    measure("what comes with a step of 4 layers of width 1024, 1,024 rows", ways, 4, 1024, 1024, 1)


PARTS = {
    "step": step_part,
    "accumulate": accumulate_part,
    "extras": extras_part,
    "frozen": frozen_part,
    "carry": carry_part,
    "lora": lora_part,
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all by default")
    parts = arguments.parse_args().parts or [*PARTS]
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        arguments.error(f"there is no part {unknown[0]!r}, but {', '.join(PARTS)}")
    print(f"{platform.machine()}, {jax.devices()[0].device_kind}, jax {jax.__version__}, optax {optax.__version__}")
    for part in parts:
        PARTS[part]()


if __name__ == "__main__":
    main()
