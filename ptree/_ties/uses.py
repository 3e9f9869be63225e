"""gradient_by_use: the gradient with respect to each use, a name of a tied leaf, source or alias; their contributions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from .._edit import get, paths, replace_leaves
from .._errors import PathError
from .._paths import join, split
from .._tree import Leaf, PyTree, Tie, aliases, locate, no_path, opened, read
from .._words import listed, quoted
from .untie import untie


def gradient_by_use(
    loss: Callable[..., Any], params: PyTree, path: str | int, *args: Any, has_aux: bool = False
) -> Any:
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
        params: a Tree with ties.
        path: one of the names of the tied leaf.
        *args: further arguments of `loss`.
        has_aux: whether `loss` returns a pair, whose first value is differentiated.

    Returns:
        A dict, the source first; with `has_aux` the dict and what else `loss` returned, as from `jax.grad`.

    Raises:
        PathError: there is no leaf at the path, or it is one layer of a stack.
    """
    shown = "/".join(split(path))
    _check_leaf(params, shown)
    tied = aliases(params)
    source = _source_of(shown, tied)
    uses = _uses_of(source, tied)
    declared = [alias for alias, tie in tied.items() if tie.source in _at_or_above(source)]
    apart = untie(params, declared) if declared else params

    def loss_of_uses(values: Sequence[Leaf]) -> Any:
        seen = {name: tie.read(value) for (name, tie), value in zip(uses.items(), values, strict=True)}
        return loss(replace_leaves(apart, seen), *args)

    grads = jax.grad(loss_of_uses, has_aux=has_aux)([get(params, source)] * len(uses))
    if not has_aux:
        return dict(zip(uses, grads, strict=True))
    grads, aux = grads
    return dict(zip(uses, grads, strict=True)), aux


def _check_leaf(params: PyTree, path: str) -> None:
    place = locate(params, split(path))
    if place is None:
        raise no_path(params, split(path))
    if opened(read(place)) is not None:
        there = listed(join(path, below) for below in paths(read(place)))
        raise PathError(f"no leaf at {quoted(path)}: a node is there. Name one of {there}")
    if place.layers:
        raise PathError(f"{quoted(path)} is one layer of the leaf {quoted(place.spelt)}. Name that, and take its layer")


def _source_of(path: str, tied: Mapping[str, Tie]) -> str:
    """The leaf's own path, given any of its names."""
    for above in _at_or_above(path):
        if above in tied:
            return tied[above].source + path[len(above) :]
    return path


def _uses_of(source: str, tied: Mapping[str, Tie]) -> dict[str, Tie]:
    """Each name of a leaf, and how the name sees it; the leaf's own path first."""
    uses = {source: Tie(source)}
    for alias, tie in tied.items():
        if tie.source in _at_or_above(source):  # above: a container that is tied as a whole
            uses[alias + source[len(tie.source) :]] = Tie(source, tie.via)
    return uses


def _at_or_above(path: str) -> list[str]:
    """A path, and those of the nodes above it."""
    segments = path.split("/")
    return ["/".join(segments[:length]) for length in range(len(segments), 0, -1)]
