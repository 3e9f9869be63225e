"""What a step of training takes with a share of the leaves frozen: time, temporary memory and slots, beside partition by hand."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _gpt import Config, ptree
from _look_times import least_times

import ptree as pt
from ptree import train

CONFIG = Config(blocks=8, batch=4)
SHARES = {
    "nothing frozen": [],
    "the first half frozen": ["embed", "positions", "blocks/{0..3}"],
    "nearly all frozen": ["embed", "positions", "blocks", "!blocks/7/attn/{v,o}"],
}
STEPS = 3
ROUNDS = 15


class Step(NamedTuple):
    """A compiled step, and the arrays that it begins with: `function(*arrays, ids) -> arrays`."""

    function: Any
    arrays: tuple[Any, ...]
    slots: Any
    whole: Callable[..., Any]
    """The arrays -> all parameters."""


def loss_of(apply: Callable[..., Any]) -> Callable[..., Any]:
    def loss(params: Any, ids: Any) -> Any:
        logits, _ = apply(params, ids)
        return optax.softmax_cross_entropy_with_integer_labels(logits[:, :-1], ids[:, 1:]).mean()

    return loss


def by_partition(params: Any, frozen: Any, loss: Callable[..., Any]) -> Step:
    """`ptree.partition` and `merge`, and an optimiser of optax for the trained part."""
    optimiser = optax.adamw(1e-3)
    fixed, trained = pt.partition(params, frozen) if frozen else (pt.Tree(), params)

    def step(trained: Any, fixed: Any, state: Any, ids: Any) -> Any:
        grads = jax.grad(lambda trained: loss(pt.merge(trained, fixed), ids))(trained)
        updates, state = optimiser.update(grads, state, trained)
        return optax.apply_updates(trained, updates), fixed, state

    state = optimiser.init(trained)
    return Step(step, (trained, fixed, state), state, lambda trained, fixed, _: pt.merge(trained, fixed))


def by_groups(params: Any, frozen: Any, loss: Callable[..., Any], *, all_gradients: bool = False) -> Step:
    """`train.groups`, with gradients of the trained leaves, or as a loop that knows nothing of it computes all."""
    rules = {tuple(frozen): train.FROZEN} if frozen else {}
    optimiser = train.groups({**rules, "**": optax.adamw(1e-3)})

    def step(params: Any, state: Any, ids: Any) -> Any:
        gradients = jax.value_and_grad(loss) if all_gradients else train.value_and_grad(loss, wrt=optimiser)
        _, grads = gradients(params, ids)
        updates, state = optimiser.update(grads, state, params)
        return train.apply_updates(params, updates), state

    state = optimiser.init(params)
    return Step(step, (params, state), state, lambda params, _: params)


def by_zeros(params: Any, frozen: Any, loss: Callable[..., Any]) -> Step:
    """`optax.partition` with `set_to_zero`, which most people write."""
    labels = pt.label(params, {**({tuple(frozen): "frozen"} if frozen else {}), "**": "trained"})
    optimiser = optax.partition({"trained": optax.adamw(1e-3), "frozen": optax.set_to_zero()}, labels)

    def step(params: Any, state: Any, ids: Any) -> Any:
        updates, state = optimiser.update(jax.grad(loss)(params, ids), state, params)
        return optax.apply_updates(params, updates), state

    state = optimiser.init(params)
    return Step(step, (params, state), state, lambda params, _: params)


WAYS: Mapping[str, Callable[..., Step]] = {
    "partition by hand": by_partition,
    "train.groups, value_and_grad": by_groups,
    "train.groups, all gradients": partial(by_groups, all_gradients=True),
    "optax.partition, set_to_zero": by_zeros,
}


def frozen_part() -> None:
    """Print time, temporary memory and slots of each way, for each share."""
    draw = np.random.default_rng(0)
    ids = jnp.asarray(draw.integers(0, CONFIG.vocabulary, (CONFIG.batch, CONFIG.time)))
    params, apply = ptree(CONFIG, CONFIG.weights())
    loss = loss_of(apply)
    print(f"\na step of a GPT of {CONFIG.blocks} blocks, {pt.count(params):,} numbers, some leaves frozen")
    for share, frozen in SHARES.items():
        count = pt.count(params, frozen) if frozen else 0
        print(f"  {share}: {count / pt.count(params):.0%}    ms a step   temp MiB   slots")
        steps = {name: way(params, frozen, loss) for name, way in WAYS.items()}
        compiled = {name: jax.jit(step.function).lower(*step.arrays, ids).compile() for name, step in steps.items()}
        ends = {name: run(compiled[name], steps[name], ids) for name in steps}
        first = ends["partition by hand"]
        for name, end in ends.items():
            for path, leaf in pt.items(end):
                np.testing.assert_allclose(leaf, pt.get(first, path), rtol=1e-4, atol=1e-5, err_msg=f"{name}: {path}")
        times = least_times({name: partial(run, compiled[name], steps[name], ids) for name in steps}, ROUNDS)
        for name, seconds in times.items():
            analysis: Any = compiled[name].memory_analysis()
            memory = analysis.temp_size_in_bytes / 2**20
            slots = pt.count(steps[name].slots)
            ratio = seconds / times["partition by hand"]
            print(f"    {name:32} {seconds / STEPS * 1e3:8.2f} {ratio:6.3f} {memory:8.1f} {slots:11,}")


def run(compiled: Any, step: Step, ids: Any) -> Any:
    """All parameters after some steps."""
    arrays = step.arrays
    for _ in range(STEPS):
        arrays = compiled(*arrays, ids)
    return jax.block_until_ready(step.whole(*arrays))


if __name__ == "__main__":
    frozen_part()
