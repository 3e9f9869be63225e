"""Claim: a step over 1, 2, 4 and 8 devices, placed by rules, takes at most 1.02 times one with `NamedSharding` by hand, and no
more memory on each device.

Four blocks of two products, divided over data (fully sharded) and model (columns, then rows), and AdamW; beside JAX and optax
by hand, and Flax nnx with `with_partitioning`. The devices are virtual ones of the CPU. The losses of the first steps are checked
to agree; times are of the processor, of all its threads. Run it with `python benchmarks/shard.py` (with the `bench` extra); `--sizes`
are numbers of devices. After it come the times of planning.
"""

import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _shard_plan import plan_rows
from _turns import Column, Facts, Made, run
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

BLOCKS, WIDTH, ROWS, STEPS = 4, 512, 128, 3
UP, DOWN = ("data", "model"), ("model", "data")
OPTIMISER = optax.adamw(1e-4, weight_decay=1e-2)
Step = Callable[[Any, Any], tuple[Any, Any]]
"""(state, batch) -> (state, loss)"""


def weights() -> list[dict[str, np.ndarray]]:
    draw = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return draw.standard_normal(shape, "float32") * np.float32(shape[0] ** -0.5)

    return [{"up": normal(WIDTH, 4 * WIDTH), "down": normal(4 * WIDTH, WIDTH)} for _ in range(BLOCKS)]


def loss(blocks: Any, x: Any) -> Any:
    for block in blocks:
        x = x + jax.nn.relu(x @ block["up"]) @ block["down"]
    return jnp.square(x - 1).mean()


def by_hand(mesh: Mesh) -> tuple[Any, Any, Any]:
    here = {"up": NamedSharding(mesh, P(*UP)), "down": NamedSharding(mesh, P(*DOWN))}
    everywhere = NamedSharding(mesh, P())
    shardings = [here] * BLOCKS
    params = jax.device_put(weights(), shardings)
    shapes = jax.eval_shape(OPTIMISER.init, params)
    slots_here: Any = optax.tree_map_params(
        OPTIMISER, lambda _, own: own, shapes, shardings, transform_non_params=lambda _: everywhere
    )
    slots = jax.jit(OPTIMISER.init, out_shardings=slots_here)(params)

    @partial(jax.jit, donate_argnums=0, out_shardings=((shardings, slots_here), everywhere))
    def step(state: Any, x: Any) -> Any:
        params, slots = state
        value, grads = jax.value_and_grad(loss)(params, x)
        updates, slots = OPTIMISER.update(grads, slots, params)
        return (optax.apply_updates(params, updates), slots), value

    return (params, slots), step, step


def by_ptree(mesh: Mesh) -> tuple[Any, Any, Any]:
    import ptree as pt
    from ptree import shard, train

    tree = pt.Tree({str(at): block for at, block in enumerate(weights())})
    params = shard.place(tree, shard.plan(tree, {"*/up": P(*UP), "*/down": P(*DOWN)}, mesh))
    step = train.step(lambda params, x: loss(params.values(), x), OPTIMISER)

    def call(state: Any, x: Any) -> Any:
        state, metrics = step(state, x)
        return state, metrics.loss

    state = step.init(params)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    return state, call, jax.jit(step.pure, donate_argnums=0, out_shardings=(shardings, None))


def by_nnx(mesh: Mesh) -> tuple[Any, Any, Any]:
    from flax import nnx

    class Block(nnx.Module):
        def __init__(self, own: dict[str, np.ndarray]) -> None:
            def linear(name: str, names: tuple[str, str]) -> nnx.Linear:
                init = nnx.with_partitioning(lambda key, shape, dtype: jnp.asarray(own[name]), names)
                return nnx.Linear(*own[name].shape, use_bias=False, kernel_init=init, rngs=nnx.Rngs(0))

            self.up, self.down = linear("up", UP), linear("down", DOWN)

    class Model(nnx.Module):
        def __init__(self) -> None:
            self.blocks = nnx.List([Block(own) for own in weights()])

        def __call__(self, x: Any) -> Any:
            for block in self.blocks:
                x = x + block.down(jax.nn.relu(block.up(x)))
            return jnp.square(x - 1).mean()

    with jax.set_mesh(mesh):
        model = Model()
        optimiser = nnx.Optimizer(model, OPTIMISER, wrt=nnx.Param)

    def step(model: Any, optimiser: Any, x: Any) -> Any:
        value, grads = nnx.value_and_grad(lambda model: model(x))(model)
        optimiser.update(model, grads)
        return value

    jitted: Any = nnx.jit(step)

    def call(state: Any, x: Any) -> Any:
        with jax.set_mesh(mesh):
            return state, jitted(*state, x)

    return (model, optimiser), call, None


WHO = {"ptree": by_ptree, "JAX, NamedSharding by hand": by_hand, "Flax nnx, with_partitioning": by_nnx}


def bytes_on_the_first_device(state: Any) -> int:
    first = jax.devices()[0]
    arrays = [leaf for leaf in jax.tree.leaves(state) if isinstance(leaf, jax.Array)]
    return sum(part.data.nbytes for leaf in arrays for part in leaf.addressable_shards if part.device == first)


def make(who: str, devices: int) -> Made:
    """A step on so many virtual devices of this process, which JAX has not looked at yet."""
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    model = 2 if devices > 1 else 1
    mesh = jax.make_mesh((devices // model, model), ("data", "model"), axis_types=(AxisType.Auto, AxisType.Auto))
    x = np.random.default_rng(1).standard_normal((ROWS, WIDTH), "float32")
    batch = jax.device_put(x, NamedSharding(mesh, P("data")))
    start = time.process_time()
    state, step, jitted = WHO[who](mesh)
    losses = []
    for _ in range(3):
        state, value = step(state, batch)
        losses.append(float(value))
    facts: Facts = {"check": losses, "made": time.process_time() - start, "state": bytes_on_the_first_device(state)}
    if jitted is not None:
        facts["temporary"] = jitted.lower(state, batch).compile().memory_analysis().temp_size_in_bytes

    def turn() -> Facts:
        nonlocal state
        start = time.process_time()
        for _ in range(STEPS):
            state, value = step(state, batch)
        jax.block_until_ready(value)
        return {"step": (time.process_time() - start) / STEPS}

    return facts, turn


BY_HAND = "JAX, NamedSharding by hand"
COLUMNS = [
    Column("made, with 3 steps", ("made",), in_file_only=True),
    Column("step of AdamW", ("step",), aims={BY_HAND: 1.02}),
    Column("state on a device", ("state",), "B", aims={BY_HAND: 1.0}),
    Column("temporary on a device", ("temporary",), "B", aims={BY_HAND: 1.0}),
]


if __name__ == "__main__":
    run(__file__, make, [*WHO], [1, 2, 4, 8], COLUMNS, noun="devices", shown=(1, 8), after=plan_rows,
        turns=10, packages=("optax", "flax"))  # fmt: skip
