"""What a step of training takes with a share of the leaves frozen: time, temporary memory and slots, beside partition by hand."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _command import Given
from _gpt import Config, ptree
from _results import Row
from _timing import least_times, other_ways, rows_of_times

import ptree as pt
from ptree import train

CONFIG = Config(blocks=8, batch=4)
SHARES = {
    "nothing frozen": [],
    "the first half frozen": ["embed", "positions", "blocks/{0..3}"],
    "nearly all frozen": ["embed", "positions", "blocks", "!blocks/7/attn/{v,o}"],
}
STEPS = 3


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


BY_HAND, ALL_GRADIENTS = "partition and merge by hand", "gradients of all leaves"
WAYS: Mapping[str, Callable[..., Step]] = {
    "ptree": by_groups,
    BY_HAND: by_partition,
    ALL_GRADIENTS: partial(by_groups, all_gradients=True),
    "optax.partition, set_to_zero": by_zeros,
}


def frozen_part(given: Given) -> Iterator[Row]:
    """Time, temporary memory and slots of each way, for each share."""
    config = CONFIG._replace(width=max(16, CONFIG.width // given.shrink))
    draw = np.random.default_rng(0)
    ids = jnp.asarray(draw.integers(0, config.vocabulary, (config.batch, config.time)))
    params, apply = ptree(config, config.weights())
    loss = loss_of(apply)
    for share, frozen in SHARES.items():
        steps = {name: way(params, frozen, loss) for name, way in WAYS.items()}
        compiled = {name: jax.jit(step.function).lower(*step.arrays, ids).compile() for name, step in steps.items()}
        check_equal({name: run(compiled[name], steps[name], ids) for name in steps})
        ways = {name: partial(run, compiled[name], steps[name], ids) for name in steps}
        times = {name: seconds / STEPS for name, seconds in least_times(ways, given.rounds).items()}
        what = f"a step of a GPT of {CONFIG.blocks} blocks, {share}"
        alone = {name: seconds for name, seconds in times.items() if name != ALL_GRADIENTS}
        yield from rows_of_times(what, alone, ratios={BY_HAND: 1.03})
        yield from other_ways(what, times, BY_HAND, [ALL_GRADIENTS], 1.03)
        for name, step in steps.items():
            analysis: Any = compiled[name].memory_analysis()
            is_shown = name in ("ptree", BY_HAND)
            yield Row(
                f"... temporary memory, {share}", name, analysis.temp_size_in_bytes, "B", in_file_only=not is_shown
            )
            yield Row(f"... numbers in slots, {share}", name, pt.count(step.slots), "", in_file_only=True)


def check_equal(ends: Mapping[str, Any]) -> None:
    """All have the same parameters after some steps."""
    first = ends[BY_HAND]
    for name, end in ends.items():
        for path, leaf in pt.items(end):
            np.testing.assert_allclose(leaf, pt.get(first, path), rtol=1e-4, atol=1e-5, err_msg=f"{name}: {path}")


def run(compiled: Any, step: Step, ids: Any) -> Any:
    """All parameters after some steps."""
    arrays = step.arrays
    for _ in range(STEPS):
        arrays = compiled(*arrays, ids)
    return jax.block_until_ready(step.whole(*arrays))
