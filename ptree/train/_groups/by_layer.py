"""by_layer: an optimiser that treats each layer of a stack as if it stood alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ..._errors import PatternError
from ..._tree import Leaf, PyTree, check_tree_without_extra_axes, leaves, replace_leaves, stacked_axes
from ..._words import describe
from .layer_trees import IN_NO_STACK, in_state, layer_counts_of, layer_tree, paths_by_stack, stacked_tree
from .leaf_groups import part_of


class ByLayerState(NamedTuple):
    """The optimiser's state for each stack, `blocks/:`, with an axis for its layers in front; for all other leaves under `others`.

    >>> import jax.numpy as jnp, optax
    >>> from ptree import stacks, train
    >>> params = stacks.stack({"blocks": [{"w": jnp.ones(2)}, {"w": jnp.ones(2)}], "b": jnp.ones(2)}, "blocks")
    >>> list(train.by_layer(optax.lamb(0.1)).init(params).stacks)
    ['blocks/:', 'others']
    """

    stacks: dict[str, PyTree]
    """Path of a stack -> the optimiser's state for it."""


ByLayerState.__module__ = "ptree.train"


class ByLayer(optax.GradientTransformationExtraArgs):
    """An optax transformation that treats each layer of a stack alone; `by_layer` makes it.

    >>> import jax.numpy as jnp, optax
    >>> from ptree import stacks, train
    >>> params = stacks.stack({"blocks": [{"w": jnp.ones(2)}, {"w": jnp.ones(2)}], "b": jnp.ones(2)}, "blocks")
    >>> optimiser = train.by_layer(optax.lamb(0.1))
    >>> optimiser
    <by_layer of an optimiser>
    """

    __module__ = "ptree.train"

    optimiser: optax.GradientTransformation
    """The optimiser that is applied to each layer."""

    def __new__(cls, optimiser: optax.GradientTransformation) -> ByLayer:
        work = _Work(optax.with_extra_args_support(optimiser))
        made = super().__new__(cls, work.init, work.update)
        made.optimiser = optimiser
        return made

    def __getnewargs__(self) -> tuple[Any, ...]:
        return (self.optimiser,)

    def __repr__(self) -> str:
        return "<by_layer of an optimiser>"


def by_layer(optimiser: optax.GradientTransformation) -> ByLayer:
    """The optimiser, for each layer of a stack as if it stood alone.

    >>> from ptree import stacks
    >>> params = stacks.stack({"blocks": [{"kernel": jnp.full((4, 4), 10.0)}, {"kernel": jnp.full((4, 4), 100.0)}]}, "blocks")
    >>> def first_updates(optimiser):
    ...     updates, _ = optimiser.update(jax.tree.map(jnp.ones_like, params), optimiser.init(params), params)
    ...     return updates["blocks"][":"]["kernel"][:, 0, 0].round().tolist()
    >>> first_updates(optax.lamb(0.1))                      # scaled by the norm of both layers
    [-7.0, -7.0]
    >>> first_updates(by_layer(optax.lamb(0.1)))
    [-1.0, -10.0]

    Optimisers that look at the rank or at norms of a parameter (adafactor, fromage, lamb, lars, novograd, sm3, muon,
    adaptive_grad_clip, clip_by_block_rms, trust_ratio, centralize, scale_by_param_block_norm and _rms) see all layers of a
    stack as one parameter. The optimiser is mapped by `jax.vmap` over the layers; in a stack of stacks over the
    layers of each. In its tree the layer of a stack is named `*`, as in `blocks/*/kernel`, so that patterns for masks
    match. Step counts are kept for each layer, and noise is drawn for each layer on its own.

    What takes all leaves together stays outside: `optax.chain(optax.clip_by_global_norm(1.0), by_layer(optax.lamb(1e-3)))`,
    else each stack is clipped layer by layer.

    Args:
        optimiser: any of optax.

    Raises:
        PatternError: no transformation of optax.
        StructureError: from `init`: the leaves of one stack have different numbers of layers; or more axes than when it was made,
            as in an ensemble.
    """
    if not isinstance(optimiser, optax.GradientTransformation):
        raise PatternError(f"by_layer takes an optimiser of optax; got {describe(optimiser)}")
    return ByLayer(optimiser)


@dataclass(frozen=True)
class _Work:
    """The two functions of the transformation."""

    optimiser: optax.GradientTransformationExtraArgs

    def init(self, params: PyTree) -> PyTree:
        check_tree_without_extra_axes(params)
        states: dict[str, PyTree] = {}
        for stack, paths in paths_by_stack(params).items():
            part = part_of(params, paths)
            states[stack] = self.optimiser.init(part) if stack == IN_NO_STACK else self._init_layers(part, stack)
        return ByLayerState(states)

    def _init_layers(self, part: PyTree, stack: str) -> PyTree:
        counts = layer_counts_of(part, stack)
        state = _over_layers(self.optimiser.init, len(counts))(layer_tree(part))
        return in_state(stacked_tree, jax.tree.map(_with_own_keys, state))

    def update(self, updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any) -> tuple[PyTree, PyTree]:
        def update_layer(gradients: PyTree, state: PyTree, params: PyTree) -> tuple[PyTree, PyTree]:
            return self.optimiser.update(gradients, state, params, **extra)

        states: dict[str, PyTree] = {}
        changes: dict[str, Leaf] = {}
        for stack, paths in paths_by_stack(updates).items():
            part = part_of(updates, paths)
            own = None if params is None else part_of(params, paths)
            if stack == IN_NO_STACK:
                change, states[stack] = update_layer(part, state.stacks[stack], own)
                changes.update(leaves(change))
                continue
            layers = None if own is None else layer_tree(own)
            before = in_state(layer_tree, state.stacks[stack])
            change, after = _over_layers(update_layer, stacked_axes(stack))(layer_tree(part), before, layers)
            changes.update(leaves(stacked_tree(change)))
            states[stack] = in_state(stacked_tree, after)
        return replace_leaves(updates, changes), ByLayerState(states)


def _over_layers(function: Callable[..., Any], axes: int) -> Callable[..., Any]:
    """The function, mapped over so many axes in front of all that it is given."""
    for _ in range(axes):
        function = jax.vmap(function)
    return function


def _with_own_keys(leaf: Leaf) -> Leaf:
    """A PRNG key in a state, another one for each layer; any other leaf as it is."""
    if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return leaf
    numbers = jnp.arange(leaf.size).reshape(leaf.shape)
    return _over_layers(jax.random.fold_in, leaf.ndim)(leaf, numbers)
