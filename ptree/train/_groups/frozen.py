"""FROZEN, the value of a rule whose leaves are not trained; an update that leaves a number as it is, to the bit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from ..._tree import Leaf, PyTree


class _Frozen(optax.GradientTransformation):
    """A transformation of gradients that leaves parameters as they are, and that `groups` knows."""

    __module__ = "ptree.train"

    def __repr__(self) -> str:
        return "ptree.train.FROZEN"

    def __reduce__(self) -> str:
        return "FROZEN"  # copies and pickles are the same object


def no_update(leaf: Leaf) -> Leaf:
    """What can be added to a leaf and changes no bit of it.

    That is -0.0, as -0.0 + 0.0 is 0.0. It has the shape and dtype of the leaf.
    """
    if jnp.issubdtype(leaf.dtype, jnp.inexact):
        return jnp.full_like(leaf, -0.0)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.extended):  # PRNG keys: nothing can be added to them
        return leaf
    return jnp.zeros_like(leaf)


def _init(params: PyTree) -> optax.EmptyState:
    return optax.EmptyState()


def _update(updates: PyTree, state: optax.OptState, params: PyTree = None) -> tuple[PyTree, optax.OptState]:
    return jax.tree.map(no_update, updates), state


FROZEN: optax.GradientTransformation = _Frozen(_init, _update)
"""The value of a rule whose leaves are not trained: they get no gradient, no slot and no decay, and stay as they are.

>>> import jax.numpy as jnp
>>> optimiser = optax.chain(FROZEN)                    # alone it is a transformation of optax
>>> params = {"w": jnp.ones(2)}
>>> updates, _ = optimiser.update(params, optimiser.init(params))
>>> updates["w"].tolist()
[-0.0, -0.0]
"""
