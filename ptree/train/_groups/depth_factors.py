"""depth_factors: rules for `scaled` whose factors fall from the output of a model to its input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from ..._edit import choose_layers
from ..._errors import PatternError
from ..._tree import PyTree, check_tree_without_extra_axes
from ..._words import listed, quoted
from .layer_places import has_plain_wildcards, layer_places, layers_of_rule

Depth: TypeAlias = str | Sequence[str]
"""A pattern, or several whose leaves are at one depth."""


def depth_factors(params: PyTree, decay: float, order: Sequence[Depth]) -> dict[str, Any]:
    """Rules for `scaled`: the factor of the last depth is 1, and each before it `decay` times the next.

    >>> import jax.numpy as jnp
    >>> from ptree import stacks
    >>> params = {"embed": jnp.ones(2), "blocks": [{"w": jnp.ones(2)}] * 3, "norm": jnp.ones(2), "head": jnp.ones(2)}
    >>> depth_factors(params, 0.5, ["embed", "blocks/*", ("norm", "head")])
    {'embed': 0.0625, 'blocks/*': array([0.125, 0.25 , 0.5  ]), 'norm': 1.0, 'head': 1.0}
    >>> rules = depth_factors(stacks.stack(params, "blocks"), 0.5, ["embed", "blocks/*", ("norm", "head")])
    >>> rules["blocks/*"]
    array([0.125, 0.25 , 0.5  ])

    `optax.chain(optax.adamw(1e-3), scaled(rules))` fine-tunes as Howard and Ruder 2018 and BEiT do, stacked or not.

    Args:
        params: the parameters, which say how many layers there are.
        decay: the factor from one depth to the one before it.
        order: patterns from the input to the output. One with `*` in the place of a number or of a stack is as
            many depths as there are layers; patterns in one tuple are at the same depths. A `*` for a part of a name, as in
            `Dense_*`, is one depth: give these layers one by one.

    Raises:
        PatternError: a pattern that matches nothing, with more than one `*`, or other numbers of layers at one depth; layers
            that are not numbered from 0 without gaps, or leaves beside them that are in no layer.
        StructureError: a stack has more axes than when it was made, as in an ensemble.
    """
    check_tree_without_extra_axes(params)
    depths = [(depth,) if isinstance(depth, str) else tuple(depth) for depth in order]
    taken: set[str] = set()
    counts = [_layer_count(params, patterns, taken) for patterns in depths]
    left = sum(count or 1 for count in counts)
    factors: dict[str, Any] = {}
    for patterns, count in zip(depths, counts, strict=True):
        powers = left - 1 - np.arange(count or 1)
        left -= count or 1
        found = decay**powers
        for pattern in patterns:
            factors[pattern] = float(found[0]) if count is None else found
    return factors


def _layer_count(params: PyTree, patterns: Sequence[str], taken: set[str]) -> int | None:
    """How many layers the patterns of one depth name; None if they name none.

    To `taken`, the leaves that earlier patterns match, those of these are added.
    """
    counts: dict[str, int | None] = {}
    for pattern in patterns:
        chosen = choose_layers(params, pattern)
        found = [(one.name, one.leaf) for one in chosen]
        layers = layers_of_rule(pattern, found) if has_plain_wildcards(pattern) else []
        if len(layers) > 1:
            raise PatternError(f"depth_factors takes patterns with one '*' for the layers; got {quoted(pattern)}")
        if layers:
            _check_are_layers(pattern, [one.name for one in chosen if one.path not in taken], layers[0])
        taken.update(one.path for one in chosen)
        counts[pattern] = len(layers[0]) if layers else None
    if len({*counts.values()}) > 1:
        shown = [f"{pattern}: {count or 'no'} layers" for pattern, count in counts.items()]
        raise PatternError(f"other numbers of layers at one depth: {listed(shown)}")
    return next(iter(counts.values()))


def _check_are_layers(pattern: str, names: Sequence[str], numbers: set[int]) -> None:
    """Raise unless an array of factors, one for each layer from 0 on, has one for each leaf of a pattern."""
    problems: list[str] = []
    if numbers != {*range(len(numbers))}:
        problems.append(f"its layers are {listed(map(str, sorted(numbers)))}, expected numbers from 0 on without gaps")
    others = [name for name in names if not layer_places(pattern, name)]
    if others:
        problems.append(f"it also matches {listed(others)}, which is in no layer")
    if not problems:
        return
    first = "/".join(str(min(numbers)) if segment == "*" else segment for segment in pattern.split("/"))
    raise PatternError(
        f"depth_factors has no factors for {quoted(pattern)}: {'; '.join(problems)}. Give the layers, and what is"
        f" beside them, one by one, as in order=[..., {quoted(first)}, ...]"
    )
