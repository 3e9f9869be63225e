"""The uses of a tied leaf: what each of its names contributes to the gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from .._edit import aliases, get, paths, replace_leaves
from .._errors import PathError
from .._paths import join, split
from .._tree import Tie, layer_at, opened
from .._words import listed, quoted
from .tables import untied


def gradient_by_use(loss: Callable[..., Any], params: Any, path: str | int, *args: Any, has_aux: bool = False) -> Any:
    """What each name of a tied leaf contributes to its gradient: name -> array of the leaf's shape.

    >>> import jax.numpy as jnp
    >>> from ptree import tie
    >>> params = tie({"a": jnp.ones(2), "b": jnp.ones(2)}, {"b": "a"})
    >>> by_use = gradient_by_use(lambda p: (p["a"] + 3 * p["b"]).sum(), params, "a")
    >>> {name: grad.tolist() for name, grad in by_use.items()}
    {'a': [1.0, 1.0], 'b': [3.0, 3.0]}

    The path may be any of the names. The sum over all is the gradient that `jax.grad` gives of a loss that reads
    parameters by name, also through a transform: each is a gradient with respect to the source. For this `loss` is given
    a tree in which the names are leaves of their own, so that a term over all leaves, such as weight decay, counts each of
    them: leave it out. Two uses of one name are one. Works under `jax.jit`, which sorts the names.

    Args:
        loss: a function `(params, *args)` that returns a number, or, with `has_aux`, a number and anything else.

    Returns:
        A dict, the source first; with `has_aux` the dict and what else `loss` returned, as from `jax.grad`.

    Raises:
        PathError: there is no leaf at the path, or it is one layer of a stack.
    """
    segments = split(path)
    asked, leaf = "/".join(segments), get(params, path)
    if opened(leaf) is not None:
        there = listed(join(asked, path) for path in paths(leaf))
        raise PathError(f"no leaf at {quoted(asked)}: a node is there. Name one of {there}")
    if (layer := layer_at(params, segments)) is not None:
        whole = "/".join(layer[0])
        raise PathError(f"{quoted(asked)} is one layer of the leaf {quoted(whole)}. Name that, and take its layer")
    tied = aliases(params)
    source = next(
        (at for tie in _prefixes(asked) if tie in tied and (at := tied[tie].source + asked[len(tie) :])), asked
    )
    uses = {source: Tie(source)}
    for alias, tie in tied.items():  # of a container in the place of a leaf, of each leaf in it
        if tie.source in _prefixes(source):
            uses[alias + source[len(tie.source) :]] = Tie(source, tie.via)
    apart = untied(params, frozenset(alias for alias, tie in tied.items() if tie.source in _prefixes(source)))

    def of_each(seen: list[Any]) -> Any:
        return loss(
            replace_leaves(apart, {name: tie.read(own) for (name, tie), own in zip(uses.items(), seen, strict=True)}),
            *args,
        )

    grads = jax.grad(of_each, has_aux=has_aux)([get(params, source)] * len(uses))
    grads, *aux = grads if has_aux else (grads,)
    by_use = dict(zip(uses, grads, strict=True))
    return (by_use, *aux) if has_aux else by_use


def _prefixes(path: str) -> list[str]:
    """A path, and those of the nodes above it."""
    segments = path.split("/")
    return ["/".join(segments[:n]) for n in range(len(segments), 0, -1)]
