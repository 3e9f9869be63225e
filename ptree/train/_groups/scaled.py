"""scaled: updates times a factor for each leaf, by rules, or for each layer of a stack: rates by layer, multipliers by width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np
import optax

from ..._edit import Rules, explain
from ..._edit.rules import Taken
from ..._errors import PatternError
from ..._tree import Leaf, PyTree, check_tree_without_extra_axes, leaves, map_leaves
from ..._words import describe, lines, listed, quoted
from .layer_places import has_plain_wildcards, layer_places, layers_of_rule
from .layer_trees import EACH

Factor: TypeAlias = Any
"""A number, or an array with an axis for the layers, of NumPy or JAX."""


def scaled(rules: Rules) -> optax.GradientTransformation:
    """Each update times the factor of the first rule that matches its leaf; an array has a factor for each layer.

    >>> from ptree import Tree, stacks
    >>> params = Tree({"embed": jnp.ones(2), "blocks": [{"w": jnp.ones(2)}] * 3, "head": jnp.ones(2)})
    >>> optimiser = optax.chain(optax.sgd(1.0), scaled({"embed": 0.1, "blocks/*": np.array([0.2, 0.4, 0.8]), "head": 1.0}))
    >>> stacked = stacks.stack(params, "blocks")
    >>> updates, _ = optimiser.update(stacked, optimiser.init(stacked), stacked)
    >>> updates["blocks/:/w"][:, 0].tolist() == np.float32([-0.2, -0.4, -0.8]).tolist()
    True
    >>> apart, _ = optimiser.update(params, optimiser.init(params), params)
    >>> apart["blocks/1/w"].tolist() == updates["blocks/1/w"].tolist()
    True

    Behind an optimiser a factor multiplies its rate, and with it the weight decay of `optax.adamw`. `depth_factors` makes the
    rules of rates that fall with the depth. It has no state. Outside of `by_layer` it knows which layer is which.

    Args:
        rules: an ordered table; a rule for all leaves, such as `"**": 1.0`, comes last. The pattern of an array has a `*` for
            each of its axes, where the numbers of layers or the `:` of a stack stand; its other wildcards are `**`.

    Raises:
        PatternError: from `init`: a rule that applies to no leaf, leaves that no rule matches, an array that does not fit the
            layers; from `update`: leaves that no rule matches.
        StructureError: from `init`: there are arrays, and a stack has more axes than when it was made, as in an ensemble.
    """
    checked = dict(rules)

    def init(params: PyTree) -> optax.EmptyState:
        if any(np.ndim(factor) for factor in checked.values()):
            check_tree_without_extra_axes(params)
        explanation = explain(params, checked)
        problems = [*explanation.dead.values(), *_other_counts(params, explanation.rows)]
        _factors(params, checked, problems)
        return optax.EmptyState()

    def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
        factors = _factors(updates, checked)
        return map_leaves(updates, lambda path, leaf: _times(leaf, factors[path])), state

    return optax.GradientTransformation(init, update)


def _times(update: Leaf, factor: Factor) -> Leaf:
    return update * jnp.asarray(factor, update.dtype)


def _factors(tree: PyTree, rules: Mapping[Any, Factor], problems: Sequence[str] = ()) -> dict[str, Factor]:
    """The factor of each leaf, which broadcasts to it; raises with these problems and its own."""
    found = dict(leaves(tree))
    explanation = explain(tree, rules)
    problems = list(problems)
    if explanation.unmatched:
        problems.append(f"no rule matches {listed(explanation.unmatched)}: add a rule such as {{'**': 1.0}}")
    factors: dict[str, Factor] = {}
    for row in explanation.rows:
        if row.rule is None:
            continue
        if np.ndim(row.value) == 0:
            factors[row.path] = row.value
            continue
        problem = _misfit(row, found[row.path], rules)
        if problem:
            problems.append(problem)
        else:
            factors[row.path] = _for_layers(row, found[row.path])
    if problems:
        raise PatternError(lines(list(dict.fromkeys(problems))))
    return factors


# ---------------------------------------------------------------------------- factors of layers


def _misfit(row: Taken, leaf: Leaf, rules: Mapping[Any, Factor]) -> str:
    """Why the array of a rule has no factor for a leaf; empty where it has."""
    rule = str(row.rule)
    shown = f"the rule {quoted(rule)} has {describe(row.value)}"
    if rule not in rules or not has_plain_wildcards(rule):
        return f"{shown}, an array by layer: its pattern has '*' in the place of the layers, as in 'blocks/*', or '**'"
    if EACH in row.path.split("/"):
        return f"{shown}, an array by layer, inside of by_layer, which sees one layer: put scaled behind it"
    rank = np.ndim(row.value)
    places = layer_places(rule, row.alias or row.path)
    if len(places) < rank:
        return f"{shown}, and names {len(places)} layers with '*' in {quoted(row.path)}: expected {rank}"
    for place, count in zip(places, row.value.shape, strict=False):
        if place.axis is not None and leaf.shape[place.axis] != count:
            return f"{shown}, and the stack of {quoted(row.path)} has {leaf.shape[place.axis]} layers"
        if place.number is not None and place.number >= count:
            return f"{shown}, and no factor for {quoted(row.path)}"
    return ""


def _other_counts(tree: PyTree, rows: Sequence[Taken]) -> list[str]:
    """A problem for each array that has more factors than there are layers."""
    found = dict(leaves(tree))
    taken: dict[str, list[Taken]] = {}
    for row in rows:
        if np.ndim(row.value) > 0 and has_plain_wildcards(str(row.rule)):
            taken.setdefault(str(row.rule), []).append(row)
    problems: list[str] = []
    for rule, of_rule in taken.items():
        array = of_rule[0].value
        layers = layers_of_rule(rule, [(row.alias or row.path, found[row.path]) for row in of_rule])
        counts = [len(numbers) for numbers in layers[: np.ndim(array)]]
        if any(there > count for there, count in zip(array.shape, counts, strict=False)):
            problems.append(f"the rule {quoted(rule)} has {describe(array)}, and there are {counts} layers")
    return problems


def _for_layers(row: Taken, leaf: Leaf) -> Factor:
    """The part of a rule's array that is for a leaf, with axes of size 1 where it has no factors."""
    places = layer_places(str(row.rule), row.alias or row.path)[: np.ndim(row.value)]
    part = row.value[tuple(slice(None) if place.number is None else place.number for place in places)]
    shape = [1] * leaf.ndim
    for place in places:
        if place.axis is not None:
            shape[place.axis] = leaf.shape[place.axis]
    return part.reshape(shape)
