"""What optimisers get besides gradients and parameters, for a part of the leaves: trees are cut, functions of the parameters get
the other leaves from outside."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax

from ..._tree import PyTree, leaves, replace_leaves
from .leaf_groups import part_of


def arguments_of_part(given: Mapping[str, Any], params: PyTree, paths: tuple[str, ...]) -> dict[str, Any]:
    """The extra arguments of an update as an optimiser of a part of the leaves needs them.

    A tree with the structure of the parameters, as `grad` of `optax.lbfgs`, is cut. A function of the parameters, as its
    `value_fn`, is called with all of them. Anything else, as `value`, stays.
    """
    if not given or params is None:
        return dict(given)
    structure = jax.tree.structure(params)

    def cut(value: Any) -> Any:
        is_like_params = jax.tree.structure(value) == structure
        return part_of(value, paths) if is_like_params else value

    return {name: _of_part(value, params, cut) if callable(value) else cut(value) for name, value in given.items()}


def _of_part(function: Callable[..., Any], params: PyTree, cut: Callable[[Any], Any]) -> Callable[..., Any]:
    """The function of all parameters as one of a part of them; the others keep their values.

    It has the signature of the function: optax reads there which extra arguments a `value_fn` takes.
    """

    @functools.wraps(function, updated=())
    def function_of_part(part: PyTree, *args: Any, **kwargs: Any) -> Any:
        whole = replace_leaves(params, dict(leaves(part)))
        return cut(function(whole, *args, **kwargs))

    return function_of_part
