"""step: one jitted training step from a pure loss and an optimiser, and what holds it together, its state and its checks."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer

from ..._edit import map_leaves
from ..._shardings import refuse_deleted
from ..._tree import PyTree
from ..._words import name_of
from .._groups.groups import Groups
from .._groups.stack_warning import warn_of_stacks
from .._wide_floats import with_wide_floats
from .arguments import checked_count, checked_function, checked_key, checked_optimiser, checked_scale
from .averaging import Decay, checked_decay, started
from .compiled_step import CompiledStep, Signature, changes, description, signature_of
from .devices_of_state import apart, as_arrays, like_parameters, placed, strong
from .gradients import BatchGradients
from .home import refuse_batch_elsewhere, refuse_host_memory, refuse_parameters_apart, refuse_state_apart
from .loss_function import LossFunction
from .loss_scale import LossScale
from .microbatches import Weight
from .pure_step import Observe, PureStep
from .state_checks import (
    completed,
    refuse_groups_inside,
    refuse_infinite_loss,
    refuse_traced,
    refuse_used,
    refuse_used_parameters,
)
from .train_state import Metrics, TrainState
from .trained_part import TrainedPart


def step(
    loss: Callable[..., Any],
    optimiser: optax.GradientTransformation,
    *,
    accumulate: int = 1,
    weight: Weight | None = None,
    ema: Decay | None = None,
    scale: LossScale | None = None,
    observe: Observe | None = None,
    has_aux: bool = False,
    donate: bool = True,
) -> Step:
    """A training step, jitted as a whole: gradients of the trained leaves, the optimiser's update, and what the options add.

    >>> import jax, jax.numpy as jnp, optax
    >>> from ptree import look, nn, train
    >>> net = nn.Sequential(nn.Dense(16), jax.nn.relu, nn.Dropout(0.1), nn.Dense(1))
    >>> def loss(params, batch, key):
    ...     x, y = batch
    ...     return jnp.square(net(params, x, key=key, train=True) - y).mean()
    >>> batch = jnp.ones((8, 4)), jnp.ones((8, 1))
    >>> step = train.step(loss, optax.adamw(1e-2), accumulate=2, ema=0.99, observe=look.observe)
    >>> state = step.init(net.init(jax.random.key(0), batch[0]), key=jax.random.key(1))
    >>> for _ in range(30):
    ...     state, metrics = step(state, batch)
    >>> bool(metrics.loss < 0.2), int(state.step), metrics.observed.grads.paths[:2]
    (True, 30, ('0/kernel', '0/bias'))
    >>> net(state.averaged, batch[0]).shape                          # with the moving average of the parameters
    (8, 1)

    The state is donated: it is gone after the call, and so are the parameters that it was made of; only frozen leaves, and the key,
    stay valid, as the new state has the same arrays. Nothing waits for the
    device but the first step, which looks at its loss before anything changes. The result is placed as the state was, on any number of devices, so
    the step is compiled once; a batch of another shape is a warning that names its path. `step.pure` is the same
    function without `jit`, for `jax.lax.scan` over steps and for loops of one's own.

    Args:
        loss: a pure function `loss(params, batch)` or `loss(params, batch, key=key)` that returns the mean over the
            batch, one floating-point number. The key is that of the step, and of the microbatch.
        optimiser: any of optax, or `groups`: gradients are computed for the leaves that are trained alone. Without
            groups these are all floating-point leaves. It also gets `value`, `grad` and `value_fn`.
        accumulate: in how many microbatches the batch is computed, one after the other; part `i` has the rows
            `i, i + accumulate, ...` along the first axis of each leaf; a leaf without axes is in all of them. Gradients
            are summed in float32 and reach the optimiser in the dtype of their leaf.
        weight: a function of a (micro)batch that gives what counts in it, such as its number of tokens without padding,
            if the loss is the mean over these, as a masked mean is: then microbatches give the loss of the whole batch. Where nothing counts,
            loss and gradients are 0.
        ema: the decay of a moving average of the trained leaves, `average = ema * average + (1 - ema) * leaf`, in float32. It
            starts from the parameters before the first step, so there is no correction of a bias towards zero. A function
            of the number of steps before gives a decay that changes: `lambda step: jnp.minimum(0.999, (1 + step) / (10 + step))`.
        scale: loss scaling, `LossScale()`, for losses computed in float16. Parameters are updated in their own dtype: keep them in
            float32, and cast inside of the loss, since in 16 bits updates of less than a hundredth of a leaf are rounded away.
        observe: a function `(params, grads, updates)`, such as `look.observe`; its result is `metrics.observed`.
        has_aux: whether the loss returns a pair, whose second value is `metrics.aux`: of microbatches stacked,
            `[accumulate, ...]`. Running statistics, which are FROZEN, come this way as a tree of their own, and go back by
            `dataclasses.replace(state, params=merge(drop(state.params, "**/{mean,var}"), metrics.aux))`; with `accumulate` above 1
            by their mean, `jax.tree.map(lambda leaf: leaf.mean(0), metrics.aux)`, in the place of `metrics.aux`.
        donate: whether the memory of what the step changes is used again. Without it the given state stays valid.

    Returns:
        The step: `step.init(params, key=...)` makes a `TrainState`; `step(state, batch)` returns the next one and `Metrics`.

    Raises:
        TypeError, ValueError: an argument is not what it should be.
        StructureError: from the step: a loss that is not one floating-point number, a batch that cannot be divided, a state
            that was donated already, or of another optimiser; state or batch differ between the processes of a mesh.
        LossError: from the first step: the loss is not finite.
    """
    gradients = BatchGradients(
        LossFunction.of(loss, has_aux),
        checked_count(accumulate),
        checked_function(weight, "weight", "lambda batch: batch['mask'].sum()"),
    )
    pure = PureStep(
        gradients,
        checked_optimiser(optimiser),
        checked_decay(ema),
        checked_scale(scale),
        checked_function(observe, "observe", "ptree.look.observe"),
    )
    return Step(pure, donate)


class _Newest(NamedTuple):
    """The state that the last call returned, which needs no check, and the compiled step that takes it."""

    state: weakref.ref[TrainState]
    compiled: CompiledStep


class _Prepared(NamedTuple):
    """A state that is checked and placed, the compiled step that takes it, and whether its first loss is still to be looked at."""

    state: TrainState
    compiled: CompiledStep
    is_first: bool


class Step:
    """A training step that `step` made: `init(params, key=...)` makes its state, a call takes one step.

    >>> import jax.numpy as jnp, optax
    >>> from ptree import train
    >>> step = train.step(lambda params, x: (params["w"] * x).sum(), optax.sgd(0.1))
    >>> state, metrics = step(step.init({"w": jnp.ones(2)}), jnp.ones(2))
    >>> int(state.step), float(metrics.loss)
    (1, 2.0)
    """

    __module__ = "ptree.train"

    def __init__(self, pure: PureStep, donate: bool):
        self.pure = pure
        """The function `(state, batch) -> (state, metrics)` without `jit`, checks and donation."""
        self._donate = donate
        self._loss = jax.jit(pure.loss)
        self._compiled: dict[Signature, CompiledStep] = {}
        """For each structure and placement of the state that was seen."""
        self._newest: _Newest | None = None
        self._fresh: weakref.ref[TrainState] | None = None
        """The state that `init` made last."""

    def __repr__(self) -> str:
        return f"<Step of {name_of(self.pure.gradients.loss.function)}>"

    def init(self, params: PyTree, *, key: jax.Array | None = None) -> TrainState:
        """The state before the first step, with slots of the optimiser that lie where their parameters lie.

        >>> import jax.numpy as jnp, optax
        >>> from ptree import train
        >>> step = train.step(lambda params, x: (params["w"] * x).sum(), optax.sgd(0.1, momentum=0.9))
        >>> state = step.init({"w": jnp.ones(2)})
        >>> state.params["w"].tolist(), int(state.step)
        ([1.0, 1.0], 0)

        Parameters are not copied: the first step donates those that it trains, which deletes them wherever they are held: in a spec
        whose arrays `ptree.init` handed on, or as what `shard.place` was given. To keep them, give `jax.tree.map(jnp.copy, params)`.

        Under `jax.eval_shape(step.init, ptree.abstract(spec))` it gives the shapes of the state, which `shard.like` plans.

        Args:
            params: any pytree of arrays; what holds no floats, or is FROZEN in the groups, stays as it is.
            key: the root of the keys of all steps, for a loss that takes one.

        Raises:
            StructureError: there is nothing to train, a leaf is no array, or was donated by an earlier run; leaves on different
                devices.
            PatternError: the rules of the groups do not fit the parameters.
            TypeError: the loss takes a key, and there is none; or it is no key.
        """
        pure = self.pure
        refuse_used_parameters(params)
        params = as_arrays(params, "the parameters")
        is_traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(params))
        if not is_traced:
            refuse_parameters_apart(params)
            params = placed(params)
        part = TrainedPart.of(pure.optimiser, params)
        key = checked_key(key, pure.gradients.loss.takes_key)
        trained, _ = part.split(params)
        optimised = params if isinstance(pure.optimiser, Groups) else trained
        # slots have the dtypes of the gradients
        slots = pure.optimiser.init(optimised if pure.scale is None else with_wide_floats(optimised))
        refuse_groups_inside(slots)
        if not isinstance(pure.optimiser, Groups):  # groups warn themselves
            warn_of_stacks(pure.optimiser, trained, "**", stacklevel=2)
        slots = map_leaves(slots, lambda path, leaf: strong(leaf))
        state = TrainState(
            params=params,
            optimiser=slots if is_traced else like_parameters(slots, trained),
            step=jnp.array(0, jnp.int32),
            key=key,
            ema=None if pure.ema is None else started(trained),
            scale=None if pure.scale is None else pure.scale.start(),
        )
        if is_traced:  # only shapes, which are nowhere
            return state
        state = apart(placed(state))
        self._fresh = weakref.ref(state)
        return state

    def __call__(self, state: TrainState, batch: PyTree) -> tuple[TrainState, Metrics]:
        """Take one step; the given state is gone afterwards, unless the step was made with `donate=False`.

        Raises:
            StructureError, LossError: see `step`.
        """
        newest = self._newest
        if newest is not None and newest.state() is state:
            compiled, is_first = newest.compiled, False
        else:
            state, compiled, is_first = self._prepared(state)
        signature = signature_of(batch)
        is_new = compiled.batch != signature
        if is_new:
            refuse_batch_elsewhere(state, batch)
            compiled.warn_of_change(batch, signature, stacklevel=2)
            compiled.check_processes(batch, signature)
        try:
            if is_first:
                # by itself, which takes an eighth of the time to compile: after the step the given state would be gone
                refuse_infinite_loss(self._loss(state, batch), state, batch)
            new, metrics = compiled(state, batch)
        except (RuntimeError, ValueError) as error:
            refuse_host_memory(state, error)
            refuse_deleted(error, "step(state, batch)", {"the state": state, "the batch": batch})
            raise
        if is_new:
            compiled.remember(batch, signature)
        self._newest = _Newest(weakref.ref(new), compiled)
        return new, metrics

    def _prepared(self, state: TrainState) -> _Prepared:
        """Check and place a state that comes from elsewhere.

        A state that is like one before is not asked for its number, as that waits for the device.
        """
        refuse_traced(state)
        refuse_used(state)
        is_fresh = self._fresh is not None and self._fresh() is state
        state = as_arrays(state, "the state")
        refuse_state_apart(state)
        state = placed(state)
        signature = signature_of(state)
        if signature in self._compiled:
            return _Prepared(apart(state), self._compiled[signature], is_fresh)
        state = completed(self.pure, state)
        signature = signature_of(state)
        if not is_fresh:
            self._warn_of_change(state, signature)
        compiled = self._compiled.setdefault(signature, CompiledStep(self.pure, state, self._donate))
        return _Prepared(state, compiled, int(state.step) == 0)

    def _warn_of_change(self, state: TrainState, signature: Signature) -> None:
        """Warn if the state has the structure of an earlier one, but a leaf of another shape, dtype or placement."""
        alike = [compiled for seen, compiled in self._compiled.items() if seen.treedef == signature.treedef]
        if alike and signature not in self._compiled:
            warnings.warn(
                f"the step is compiled again, as the state has changed: {changes(alike[-1].state, description(state))}",
                stacklevel=4,
            )
