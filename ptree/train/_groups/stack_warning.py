"""Warn where an optimiser treats a stack otherwise than its layers apart."""

from __future__ import annotations

import warnings

import optax

from ..._tree import PyTree
from ..._words import listed, quoted
from .by_layer import ByLayer
from .stack_probe import leaves_updated_otherwise


def warn_of_stacks(optimiser: optax.GradientTransformation, params: PyTree, rule: str, *, stacklevel: int) -> None:
    """Warn if an optimiser would update the layers of stacks otherwise if they were apart.

    It takes some hundredths of a second for optimisers that do not, as their jaxpr shows; one or two seconds for the others.

    Args:
        params: the leaves that it trains.
        rule: which leaves these are, for the message.
        stacklevel: as for `warnings.warn`, counted from the caller.
    """
    otherwise = leaves_updated_otherwise(optimiser, params)
    if not otherwise:
        return
    if isinstance(optimiser, ByLayer):
        text = (
            f"the optimiser in by_layer for {quoted(rule)} takes leaves together, and would see each layer of {listed(otherwise)}"
            " by itself: put what looks at all leaves, such as optax.clip_by_global_norm, outside of by_layer"
        )
    else:
        text = (
            f"the optimiser for {quoted(rule)} looks at ranks or norms, and would update the layers of {listed(otherwise)}"
            " otherwise if they were not stacked: use ptree.train.by_layer(optimiser)"
        )
    warnings.warn(text, stacklevel=stacklevel + 1)
