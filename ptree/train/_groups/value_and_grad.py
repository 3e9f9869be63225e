"""value_and_grad: the value of a loss and its gradient with respect to selected leaves, for training loops by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax

from ..._edit import Selector, choose, merge, partition
from ..._errors import PatternError
from ..._shardings import refuse_deleted
from ..._tree import PyTree
from ..._words import listed
from .._checked_loss import loss_and_aux
from .groups import Groups
from .leaf_groups import has_gradient


def value_and_grad(
    loss: Callable[..., Any], wrt: Selector | Groups, *, has_aux: bool = False
) -> Callable[..., tuple[Any, PyTree]]:
    """`jax.value_and_grad` with respect to some leaves: no gradient of the others is computed.

    >>> import jax.numpy as jnp
    >>> params = {"embed": jnp.ones(3), "head": {"kernel": jnp.ones((3, 2))}}
    >>> def loss(params, x):
    ...     return (x * params["embed"] @ params["head"]["kernel"]).sum()
    >>> value, grads = value_and_grad(loss, wrt="head")(params, jnp.ones((4, 3)))
    >>> value, grads
    (Array(24., dtype=float32), {'head': {'kernel': Array([[4., 4.],
           [4., 4.],
           [4., 4.]], dtype=float32)}})

    The gradients are the tree of the selected leaves alone, as `ptree.select` gives it. The `update` of
    `ptree.train.groups` takes them, and `ptree.train.apply_updates` adds its updates to these leaves. With `wrt=optimiser` they
    are the leaves that these groups train.

    Args:
        loss: `loss(params, *args, **kwargs) -> scalar`, or with `has_aux` `(scalar, anything)`.
        wrt: which leaves; a tied leaf has all its names. Or the `Groups` that train some.
        has_aux: whether the loss returns something else beside its value.

    Returns:
        A function `(params, *args, **kwargs) -> (value, grads)`, with `has_aux` `((value, aux), grads)`.

    Raises:
        PatternError: from the function: a part of the selector matches nothing, it names single layers of a stack, or leaves
            that hold no floating-point numbers.
        StructureError: from the function: a loss that is not one floating-point number; arrays that were donated.
    """

    def value_and_grads(params: PyTree, *args: Any, **kwargs: Any) -> tuple[Any, PyTree]:
        trained, rest = partition(params, _selector(wrt, params))

        def loss_of_trained(trained: PyTree) -> Any:
            value, aux = loss_and_aux(loss, has_aux, merge(trained, rest), *args, **kwargs)
            return (value, aux) if has_aux else value

        try:
            return jax.value_and_grad(loss_of_trained, has_aux=has_aux)(trained)
        except (RuntimeError, ValueError) as error:
            given = {"the parameters": params, "the other arguments": [*args, *kwargs.values()]}
            refuse_deleted(error, "value_and_grad", given)
            raise

    return value_and_grads


def _selector(wrt: Selector | Groups, params: PyTree) -> Selector:
    """A selector of leaves that all have a gradient."""
    if isinstance(wrt, Groups):
        trained = {*wrt.trained(params)}
        return lambda path, leaf: path in trained
    if isinstance(wrt, optax.GradientTransformation):
        raise PatternError("value_and_grad: wrt= takes a selector or groups, and got another transformation of optax")
    without = [path for path, leaf in choose(params, wrt) if not has_gradient(leaf)]
    if without:
        raise PatternError(
            f"no gradient with respect to {listed(without)}: they hold no floating-point numbers. Leave them out of wrt="
        )
    return wrt
