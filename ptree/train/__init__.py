"""Train by rules: optimisers by path, freezing that freezes, one step, state that follows parameters, low-rank views.

>>> import jax.numpy as jnp, optax
>>> from ptree import train
>>> def loss(params, x):
...     return jnp.square(x @ params["head"] + params["embed"].sum()).mean()
>>> optimiser = train.groups({"embed": train.FROZEN, "**": optax.adam(1e-2)})
>>> step = train.step(loss, optimiser)
>>> state = step.init({"embed": jnp.ones(3), "head": jnp.ones((4, 2))})
>>> state, metrics = step(state, jnp.ones((8, 4)))
>>> int(state.step), float(metrics.loss)
(1, 49.0)

Most used are `groups`, `step` and `lora`. optax does the optimising, and the loop stays yours. Guide: `examples/guides/training.md`.
"""

# optimisers by path
from ._groups.apply_updates import apply_updates as apply_updates  # to the leaves that have updates
from ._groups.by_layer import ByLayer as ByLayer  # what by_layer gives
from ._groups.by_layer import ByLayerState as ByLayerState  # its state
from ._groups.by_layer import by_layer as by_layer  # each layer of a stack as if it stood alone
from ._groups.decayed import decayed as decayed  # the mask of weight decay
from ._groups.depth_factors import depth_factors as depth_factors  # those of rates that fall with the depth
from ._groups.frozen import FROZEN as FROZEN  # the value of a rule whose leaves are not trained
from ._groups.groups import Cohort as Cohort  # leaves that began together, and their optimiser's state
from ._groups.groups import Groups as Groups  # what groups gives
from ._groups.groups import GroupsState as GroupsState  # its state
from ._groups.groups import groups as groups  # an optimiser for each group of leaves
from ._groups.mup_factors import mup_factors as mup_factors  # those of rates by width
from ._groups.scaled import scaled as scaled  # updates times factors, by path and layer
from ._groups.value_and_grad import value_and_grad as value_and_grad  # with respect to some leaves

# low-rank adaptation
from ._lora.lora import lora as lora  # small factors beside kernels
from ._lora.lora import merged as merged  # kernels and factors as plain parameters
from ._lora.lora import view as view  # the parameters as a model reads them with the factors
from ._lora.rank import Rank as Rank  # the rank of a kernel's change, and its scale

# state that follows parameters
from ._state.carry import carry as carry  # an optimiser's state for a changed model
from ._state.load_state import load_state as load_state  # that of a run, from a checkpoint
from ._state.report import Carried as Carried  # what became of it
from ._state.resize import resize as resize  # more or fewer rows of a table
from ._state.runs import carry_state as carry_state  # the state of a run, for a changed model

# one step of training
from ._step.fit import fit as fit  # a short loop with a line of progress
from ._step.loss_scale import LossScale as LossScale  # for float16: backs off and grows again
from ._step.loss_scale import ScaleState as ScaleState  # its part of a state
from ._step.state_checks import LossError as LossError  # the loss is not finite at the first step
from ._step.step import Step as Step  # what step gives
from ._step.step import step as step  # a jitted step from a pure loss and an optimiser
from ._step.train_state import Metrics as Metrics  # what a step computes besides its state
from ._step.train_state import TrainState as TrainState  # all that a run depends on

__all__ = [
    "groups", "FROZEN", "step", "fit", "value_and_grad", "apply_updates", "decayed", "scaled", "depth_factors",
    "mup_factors", "by_layer", "lora", "view", "merged", "Rank", "carry", "carry_state", "load_state", "resize",
    "LossScale", "TrainState", "Metrics", "Step", "Groups", "GroupsState", "Cohort", "ByLayer", "ByLayerState",
    "Carried", "ScaleState", "LossError",
]  # fmt: skip
