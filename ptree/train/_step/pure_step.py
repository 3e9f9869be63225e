"""What a step computes, as a pure function of state and batch: gradients, update, average, loss scale, observations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax

from ..._edit import leaves
from ..._errors import StructureError
from ..._tree import PyTree, signature
from ..._words import describe, lines, listed, quoted
from .._wide_floats import at_least_float32
from .averaging import Decay, averaged
from .gradients import BatchGradients
from .loss_scale import LossScale, all_finite
from .train_state import Metrics, TrainState
from .trained_part import TrainedPart

Observe = Callable[[PyTree, PyTree, PyTree], PyTree]
"""`observe(params, grads, updates)`, which is compiled with the step."""


@dataclass(frozen=True)
class PureStep:
    """`(state, batch) -> (state, metrics)`, without `jit`."""

    gradients: BatchGradients
    optimiser: optax.GradientTransformation
    ema: Decay | None
    scale: LossScale | None
    observe: Observe | None

    def __call__(self, state: TrainState, batch: PyTree) -> tuple[TrainState, Metrics]:
        part = TrainedPart.of(self.optimiser, state.params)
        trained, rest = part.split(state.params)
        key = self._key(state)
        factor = None if state.scale is None else state.scale.value
        found = self.gradients(part, trained, rest, batch, key, factor)

        def value_fn(other: PyTree, *, obj_fn: object = None) -> jax.Array:
            # an optimiser that searches along a line passes on what else was given to the update
            return self.gradients.value(part, other, rest, batch, key)

        update = optax.with_extra_args_support(self.optimiser).update
        updates, slots = update(
            found.grads,
            state.optimiser,
            trained,
            value=found.loss,
            grad=found.grads,
            value_fn=value_fn,
            obj_fn=value_fn,
        )
        _check_same_structure(state.optimiser, slots, trained, self.scale)
        new = optax.apply_updates(trained, updates)
        average = None if self.ema is None else averaged(state.ema, part.joined(new, rest), self.ema, state.step)

        is_finite = None if self.scale is None else all_finite(found.grads)
        if is_finite is not None:
            new, slots, average = _chosen(is_finite, (new, slots, average), (trained, state.optimiser, state.ema))

        next_state = TrainState(
            params=part.joined(new, rest),
            optimiser=slots,
            step=state.step + 1,
            key=state.key,
            ema=average,
            scale=self._next_scale(state, is_finite),
        )
        metrics = Metrics(
            loss=found.loss,
            aux=found.aux,
            observed=None if self.observe is None else self.observe(state.params, found.grads, updates),
            weight=found.weight,
            skipped=None if is_finite is None else ~is_finite,
        )
        return next_state, metrics

    def loss(self, state: TrainState, batch: PyTree) -> jax.Array:
        """The loss that a step computes, alone."""
        part = TrainedPart.of(self.optimiser, state.params)
        trained, rest = part.split(state.params)
        return self.gradients.value(part, trained, rest, batch, self._key(state))

    def _key(self, state: TrainState) -> jax.Array | None:
        if not self.gradients.loss.takes_key or state.key is None:
            return None
        return jax.random.fold_in(state.key, state.step)

    def _next_scale(self, state: TrainState, is_finite: jax.Array | None):
        if self.scale is None or state.scale is None or is_finite is None:
            return state.scale
        return self.scale.next(state.scale, is_finite)


def _chosen(accepted: jax.Array, new: PyTree, old: PyTree) -> PyTree:
    """The new leaves where a step is accepted, else the old ones; this joins the loops that write them."""
    return jax.tree.map(
        lambda after, before: after if after is before else jnp.where(accepted, after, before), new, old
    )


def _check_same_structure(before: PyTree, after: PyTree, trained: PyTree, scale: LossScale | None) -> None:
    """Raise unless an optimiser gives its state back in the structure and dtypes in which it came."""
    if jax.tree.structure(before) != jax.tree.structure(after):
        raise StructureError(
            "the optimiser returns a state of another structure than it was given, so it cannot be compiled once"
        )
    problems: list[str] = []
    now = dict(leaves(after))
    for path, old in leaves(before):
        if signature(old) != signature(now[path]):
            problems.append(f"{quoted(path)} was {describe(old)} and becomes {describe(now[path])}")
    if problems and scale is not None and _narrow(trained):
        raise StructureError(
            f"with a loss scale the state of an optimiser is made for float32, and this optimiser keeps values in the dtypes of"
            f" the parameters {listed(_narrow(trained))}, which are of 16 bits. Keep the parameters in float32, and"
            f" cast inside of the loss:\n  {lines(problems, chr(10) + '  ')}"
        )
    if problems:
        raise StructureError(
            "the optimiser changes the shape or dtype of its state, so the step would be compiled again:\n  "
            + lines(problems, "\n  ")
        )


def _narrow(trained: PyTree) -> list[str]:
    """The paths of parameters in floats of 16 bits."""
    return [path for path, leaf in leaves(trained) if at_least_float32(leaf.dtype) != leaf.dtype]
