"""The uses of a tied leaf: what each of its names contributes to the gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from ._access import get, paths, replace_leaves
from ._errors import PathError, listed, quoted
from ._nodes import child_named, names_in, opened
from ._paths import join, split
from ._select import aliases
from ._tie import Tie
from ._ties import untied
from ._tree import indexed


def gradient_by_use(loss: Callable[..., Any], params: Any, path: str | int, *args: Any, has_aux: bool = False) -> Any:
    """What each name of a tied leaf contributes to its gradient: name -> array of the leaf's shape.

    >>> import jax.numpy as jnp
    >>> from ptree import tie
    >>> params = tie({"a": jnp.ones(2), "b": jnp.ones(2)}, {"b": "a"})
    >>> by_use = gradient_by_use(lambda p: (p["a"] + 3 * p["b"]).sum(), params, "a")
    >>> {name: grad.tolist() for name, grad in by_use.items()}
    {'a': [1.0, 1.0], 'b': [3.0, 3.0]}

    The path may be any of the names. The sum over all is the gradient that `jax.grad` gives, also through a
    transform: each is a gradient with respect to the source. Two uses of one name are one. Works under `jax.jit`.

    Args:
        loss: a function `(params, *args)` that returns a number, or, with `has_aux`, a number and anything else.

    Returns:
        A dict, the source first (out of `jax.jit` sorted); with `has_aux` the dict and what else `loss` returned, as from `jax.grad`.

    Raises:
        PathError: there is no leaf at the path.
    """
    asked = "/".join(split(path))
    leaf = get(params, path)
    if opened(leaf) is not None:
        there = listed(join(asked, path) for path in paths(leaf))
        raise PathError(f"no leaf at {quoted(asked)}: a node is there. Name one of {there}")
    if (layer := indexed(params, split(asked), names_in, child_named)) is not None:
        whole = "/".join(layer[0])
        raise PathError(f"{quoted(asked)} is one layer of the leaf {quoted(whole)}. Name that, and take its layer")
    tied = aliases(params)
    source = tied[asked].source if asked in tied else asked
    uses = {source: Tie(source), **{alias: tie for alias, tie in tied.items() if tie.source == source}}
    apart = untied(params, list(uses)[1:]) if len(uses) > 1 else params

    def of_each(seen: dict[str, Any]) -> Any:
        return loss(replace_leaves(apart, {name: tie.read(seen[name]) for name, tie in uses.items()}), *args)

    result = jax.grad(of_each, has_aux=has_aux)(dict.fromkeys(uses, get(params, source)))
    grads, aux = result if has_aux else (result, None)
    grads = {name: grads[name] for name in uses}  # JAX sorts the keys of a dict
    return (grads, aux) if has_aux else grads
