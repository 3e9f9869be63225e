"""The state of a training run as a small immutable tree, and what a step tells besides: loss, auxiliary output, observations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax

from ..._errors import StructureError
from ..._tree import PyTree
from .averaging import as_parameters
from .loss_scale import ScaleState

if TYPE_CHECKING:
    from jax import Array


@dataclass(frozen=True)
class TrainState:
    """All that a training run depends on: a pytree that `Checkpoints` saves, and that a step gives back renewed.

    >>> import jax, jax.numpy as jnp, optax
    >>> from ptree import train
    >>> step = train.step(lambda params, x: jnp.square(params["w"] - x).mean(), optax.adam(0.1), ema=0.9)
    >>> state = step.init({"w": jnp.zeros(2)})
    >>> state, metrics = step(state, jnp.ones(2))
    >>> state.params["w"].round(3), state.averaged["w"].round(3)
    (Array([0.1, 0.1], dtype=float32), Array([0.01, 0.01], dtype=float32))
    >>> from ptree import paths
    >>> paths(state)
    ['params/w', 'optimiser/0/count', 'optimiser/0/mu/w', 'optimiser/0/nu/w', 'step', 'ema/w']

    A step donates it: read the state that the step returned, not the one that it was given.
    `dataclasses.replace(state, params=...)` is a state with other parameters.
    """

    params: PyTree
    """The parameters."""
    optimiser: PyTree
    """The state of the optimiser."""
    step: Array
    """How many steps were taken, those included that loss scaling skipped: i32."""
    key: Array | None = None
    """The root of the keys: step number `n` draws with `jax.random.fold_in(key, n)`. It stays the same."""
    ema: PyTree = None
    """The moving average of the trained leaves, in f32 or wider; it goes on for those that are frozen in the middle of a run."""
    scale: ScaleState | None = None
    """The state of loss scaling; None without it."""

    __module__ = "ptree.train"

    @property
    def averaged(self) -> PyTree:
        """The parameters with the moving average in the place of the trained leaves, in the parameters' own dtypes.

        Raises:
            StructureError: there is no moving average.
        """
        if self.ema is None:
            raise StructureError("this state has no moving average. Make the step with one: step(..., ema=0.999)")
        return as_parameters(self.ema, self.params)


@dataclass(frozen=True)
class Metrics:
    """What a step computes besides its state: arrays on the device, for which nothing has waited yet.

    >>> import jax.numpy as jnp, optax
    >>> from ptree import train
    >>> step = train.step(lambda params, x: (params["w"] * x).sum(), optax.sgd(0.1))
    >>> state, metrics = step(step.init({"w": jnp.ones(2)}), jnp.ones(2))
    >>> float(metrics.loss), metrics.aux
    (2.0, None)
    """

    loss: Array
    """The loss of the batch before the update, without loss scaling; over microbatches their weighted mean. f32 or wider."""
    aux: PyTree = None
    """What the loss returned besides (`has_aux=True`); of microbatches with one axis more in front, `[accumulate, ...]`."""
    observed: PyTree = None
    """What `observe(params, grads, updates)` returned."""
    weight: Array | None = None
    """The sum of the weights of the microbatches."""
    skipped: Array | None = None
    """With loss scaling: whether a gradient was not finite, so that nothing but step number and scale has changed."""

    __module__ = "ptree.train"


jax.tree_util.register_dataclass(TrainState, ["params", "optimiser", "step", "key", "ema", "scale"], [])
jax.tree_util.register_dataclass(Metrics, ["loss", "aux", "observed", "weight", "skipped"], [])
