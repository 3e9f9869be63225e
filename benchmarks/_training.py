"""One step of Adam, made and run: what tracing, lowering, compiling, the first step and a step take, in seconds."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from _timing import Clock
from _turns import Facts, Made

RATE = 1e-3


def in_jax(params: Any, loss: Callable[..., Any], *data: Any, statistics: Any = (), steps: int = 10) -> Made:
    """A jitted step of `loss(params, statistics, *data) -> (loss, statistics)`; arrays are donated.

    `dispatch` is a jitted function of all parameters that does next to nothing.
    """
    optimiser = optax.adam(RATE)

    def step(kept: Any, *data: Any) -> Any:
        params, statistics, state = kept
        (value, statistics), grads = jax.value_and_grad(loss, has_aux=True)(params, statistics, *data)
        updates, state = optimiser.update(grads, state, params)
        return (optax.apply_updates(params, updates), statistics, state), value

    kept = (params, statistics, optimiser.init(params))
    jax.block_until_ready(jax.jit(lambda p: jax.tree.map(lambda leaf: leaf.sum(), p))(params))  # JAX itself is warm
    clock, facts = Clock(), Facts()
    traced = jax.jit(step, donate_argnums=0).trace(kept, *data)
    facts["trace"] = clock.lap()
    lowered = traced.lower()
    facts["lower"] = clock.lap()
    compiled = lowered.compile()
    facts["compile"] = clock.lap()
    kept, value = compiled(kept, *data)
    losses = [float(value)]
    facts["first"] = clock.lap()
    for _ in range(4):
        kept, value = compiled(kept, *data)
        losses.append(float(value))
    nothing = jax.jit(lambda p: jax.tree.leaves(p)[0].ravel()[0] + 1)
    nothing(kept[0])

    def turn() -> Facts:
        nonlocal kept
        clock.lap()
        for _ in range(steps):
            kept, value = compiled(kept, *data)
        jax.block_until_ready(value)
        taken = clock.lap() / steps
        for _ in range(200):
            result = nothing(kept[0])
        jax.block_until_ready(result)
        return {"step": taken, "dispatch": clock.lap() / 200}

    return {**facts, "check": losses, "leaves": len(jax.tree.leaves(kept[0]))}, turn


def in_torch(params: dict[str, Any], loss: Callable[..., Any], *data: Any, compiled: bool, steps: int = 10) -> Made:
    """The same of `loss(params, *data)`, eager or through `torch.compile`."""
    import torch

    clock = Clock()
    optimiser = torch.optim.Adam(params.values(), RATE, foreach=True)
    made: Any = torch.compile(loss) if compiled else loss

    def step() -> Any:
        optimiser.zero_grad()
        value = made(params, *data)
        value.backward()
        optimiser.step()
        return value

    losses = [step().item()]
    facts: Facts = {"compile" if compiled else "first": clock.lap()}
    losses += [step().item() for _ in range(4)]

    def turn() -> Facts:
        clock.lap()
        for _ in range(steps):
            value = step()
        value.item()
        return {"step": clock.lap() / steps}

    return {**facts, "check": losses, "leaves": len(params)}, turn


def nested(flat: dict[str, np.ndarray]) -> dict[str, Any]:
    """Paths as nested dicts of JAX arrays."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *above, name = path.split("/")
        node = tree
        for segment in above:
            node = node.setdefault(segment, {})
        node[name] = jax.numpy.asarray(value)
    return tree
