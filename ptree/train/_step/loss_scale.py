"""Loss scaling for float16: small gradients are multiplied before they underflow; the factor backs off and grows again."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from ..._numbers import real_number, whole_number
from ..._tree import PyTree
from ..._words import quoted


@dataclass(frozen=True)
class LossScale:
    """The factor that a loss is multiplied by, so that float16 holds its gradients, and the rule by which the factor changes.

    A step whose gradients are not all finite is skipped, and the factor multiplied by `backoff`; after `every` steps in a
    row that were not skipped it is multiplied by `growth`. The starting values are those of PyTorch's `GradScaler`.

    >>> import jax.numpy as jnp, optax
    >>> from ptree import train
    >>> loss = lambda params, x: (params["w"].astype(jnp.float16) * x).sum()
    >>> step = train.step(loss, optax.sgd(1.0), scale=train.LossScale(2.0**15))
    >>> state, metrics = step(step.init({"w": jnp.float32([1.0])}), jnp.float16([4.0]))     # 4 * 2**15 is infinite there
    >>> bool(metrics.skipped), state.params["w"].tolist(), float(state.scale.value), int(state.scale.skipped)
    (True, [1.0], 16384.0, 1)
    >>> state, metrics = step(state, jnp.float16([2.0]))
    >>> bool(metrics.skipped), state.params["w"].tolist()
    (False, [-1.0])

    The scale stays between `least` and `most`, so that gradients of zero cannot drive it to infinity. Gradients reach the
    optimiser in float32. Where gradients are not finite at the least scale either, every step is skipped: look at
    `state.scale.skipped`.

    Args:
        initial: the factor before the first step.
        growth: by what it is multiplied after `every` good steps, at least 1.
        backoff: by what it is multiplied after a skipped step, above 0 and at most 1.
        every: after how many steps in a row it grows.
        least: the least factor.
        most: the largest factor.

    Raises:
        TypeError, ValueError: a number is out of its range.
    """

    initial: float = 2.0**16
    growth: float = 2.0
    backoff: float = 0.5
    every: int = 2000
    least: float = 1.0
    most: float = 2.0**24

    __module__ = "ptree.train"

    def __post_init__(self) -> None:
        for name in ("initial", "growth", "backoff", "least", "most"):
            if real_number(getattr(self, name)) is None:
                raise TypeError(f"LossScale({name}=): expected a number, got {quoted(getattr(self, name))}")
        if whole_number(self.every) is None or self.every < 1:
            raise ValueError(f"LossScale(every=): expected a number of steps from 1 on, got {quoted(self.every)}")
        if not 0 < self.least <= self.initial <= self.most < float("inf"):
            raise ValueError(
                f"LossScale: expected 0 < least <= initial <= most, got least={quoted(self.least)},"
                f" initial={quoted(self.initial)}, most={quoted(self.most)}"
            )
        if not self.growth >= 1 or not 0 < self.backoff <= 1:
            raise ValueError(
                "LossScale: expected a growth of at least 1 and a backoff of at most 1, above 0,"
                f" got growth={quoted(self.growth)}, backoff={quoted(self.backoff)}"
            )

    def start(self) -> ScaleState:
        """The state before the first step."""
        return ScaleState(
            jnp.array(self.initial, jnp.float32), jnp.array(0, jnp.int32), jnp.array(0, jnp.int32)
        )  # each an array of its own, since a step donates them

    def next(self, state: ScaleState, is_finite: jax.Array) -> ScaleState:
        """The state after a step.

        Args:
            state: the state before the step.
            is_finite: whether all gradients of the step are finite.
        """
        in_a_row = jnp.where(is_finite, state.in_a_row + 1, 0)
        is_time_to_grow = in_a_row >= self.every
        factor = jnp.where(is_finite, jnp.where(is_time_to_grow, self.growth, 1.0), self.backoff)
        value = jnp.clip(state.value * factor, self.least, self.most)
        return ScaleState(
            value.astype(state.value.dtype),
            jnp.where(is_time_to_grow, 0, in_a_row).astype(jnp.int32),
            state.skipped + jnp.where(is_finite, 0, 1),
        )


@dataclass(frozen=True)
class ScaleState:
    """The factor of the loss, and what it depends on; part of `TrainState`.

    >>> import jax.numpy as jnp, optax
    >>> from ptree import train
    >>> step = train.step(lambda params, x: (params["w"] * x).sum(), optax.sgd(0.1), scale=train.LossScale())
    >>> state = step.init({"w": jnp.ones(2)})
    >>> float(state.scale.value), int(state.scale.skipped)
    (65536.0, 0)
    """

    value: jax.Array
    """By what the loss is multiplied: f32."""
    in_a_row: jax.Array
    """Steps since the factor last changed, or since one was skipped: i32."""
    skipped: jax.Array
    """Steps that were skipped in all: i32."""

    __module__ = "ptree.train"


jax.tree_util.register_dataclass(ScaleState, ["value", "in_a_row", "skipped"], [])


def all_finite(grads: PyTree) -> jax.Array:
    """Whether every number of the gradients is finite."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(grads)]).all()
