"""mup_factors: rules for `scaled` by which a learning rate that was tuned on a narrow model is right for a wide one."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from math import prod
from typing import Any, Literal, TypeAlias, get_args

from ..._draw.equinox_weights import is_in_layer, output_axis
from ..._edit import assign, differences, structure_error
from ..._errors import PatternError, StructureError
from ..._paths import STACKED, escape
from ..._tree import Leaf, PyTree, check_tree_without_extra_axes, layer_number, leaves
from ..._words import describe, lines, listed, quoted
from ...stacks import layer_shape
from .._kernel_axes import input_axes
from .decayed import is_bias_or_scale, is_table

Family: TypeAlias = Literal["adam", "sgd"]


def mup_factors(
    params: PyTree, base: PyTree, *, family: Family = "adam", inputs: Mapping[Any, int] | None = None
) -> dict[str, float]:
    """Rules for `scaled` by the maximal update parametrisation (muP): the rate of a base model is right for this wider one.

    >>> import jax, jax.numpy as jnp, optax, ptree as pt
    >>> from ptree import nn, train
    >>> def net(width):
    ...     return nn.Sequential({"embed": nn.Embedding(50, width), "blocks": nn.Repeat(nn.Residual(nn.Dense(width)), 3), "head": nn.Dense(50)})
    >>> ids = jax.ShapeDtypeStruct((2, 8), jnp.int32)
    >>> params, base = [net(width).init(jax.random.key(0), ids) for width in (256, 64)]
    >>> factors = train.mup_factors(params, base)
    >>> factors
    {'blocks/*/inner/kernel': 0.25, 'head/kernel': 0.25, '**': 1.0}
    >>> optimiser = train.groups({"**": optax.adam(3e-3)}, factors=factors)

    The source is Yang et al. 2022, Tensor Programs V, table 3, which is table 8 without multipliers in the model. Where the
    fan-in is `m` times and the fan-out `n` times that of the base model the factor of Adam's rate is `1 / m`, and that of
    the rate of SGD `n / m`. So tables, first layers, biases and scales keep Adam's rate, hidden kernels and the output
    layer get less. The table has a part for the initial values, too: `ptree.initializers.mup` draws them, with the role "output" for
    the last layer; and attention is scaled by `1 / head_dim`. A table that is tied to the output layer keeps its rate,
    and the model divides the logits by `m`. Weight decay of `optax.adamw` is multiplied with the rate.
    Kernels are read as (in, out), and the weights of layers of `equinox.nn` as (out, in), if the layers are in the tree. Of
    other weights that are (out, in), such as PyTorch's, the fans are swapped: give their shapes transposed. A leaf named `weight`
    for which that matters gives a warning. Biases and scales are known by their names.

    Args:
        params: the parameters of the wide model, or their shapes.
        base: those of the same model of the width at which the rate was tuned.
        family: "adam" for all optimisers whose updates do not depend on the gradient's size, such as lion; or "sgd".
        inputs: selector -> how many of the first axes of a kernel are summed over, for kernels (in, out) of three axes or more that have no
            bias: 1 for queries, keys and values `(d, heads, head_dim)`, 2 for the output `(heads, head_dim, d)`.

    Returns:
        The rules, with `*` in the place of the numbers of layers and of stacks: they fit both forms.

    Raises:
        StructureError: the models have other paths, or other numbers of axes; it is not known which axes a kernel sums over.
        PatternError: another family, or a rule of `inputs` that applies to no leaf.

    Warns:
        UserWarning: leaves named `weight` of which no layer says the order, where the factor depends on it.
    """
    if family not in get_args(Family):
        raise PatternError(f"mup_factors: expected a family of {[*get_args(Family)]}, got {quoted(family)}")
    check_tree_without_extra_axes(params)
    given = {} if inputs is None else assign(params, inputs, for_axes=True)
    narrow = _same_paths(params, base)
    factors: dict[str, float] = {}
    problems: list[str] = []
    unclear: list[str] = []
    for path, leaf in leaves(params):
        growth = [now / before for now, before in zip(layer_shape(path, leaf), narrow[path], strict=True)]
        growth, known = _inputs_first(params, path, leaf, growth)
        known = given.get(path, known)
        if _may_be_output_first(params, path, growth):
            unclear.append(path)
        splits = range(1, len(growth)) if known is None and len(growth) > 1 else [known or 0]
        found = {_factor(growth, split, family) for split in splits}
        if len(found) > 1:
            shown = f"{quoted(path)} is {describe(leaf)}, and there is no bias that says how many axes it sums over"
            problems.append(f"{shown}: say inputs={{{escape(path)!r}: 1}}, or 2")
        factors[path] = found.pop()
    if problems:
        raise StructureError(lines(["cannot find the factors of muP:", *problems]))
    if unclear:
        warnings.warn(
            f"mup_factors reads {listed(unclear)} as (in, out). Weights of PyTorch and Equinox are (out, in): if these are, give"
            " it the Equinox model itself, or shapes that are transposed",
            stacklevel=2,
        )
    return _as_rules(params, factors)


def _inputs_first(params: PyTree, path: str, leaf: Leaf, growth: list[float]) -> tuple[list[float], int | None]:
    """The growth of each axis, with those of features in first, and how many these are: None where nothing says so."""
    outputs = output_axis(params, path)
    if outputs is not None:
        growth_of_inputs = [*growth]
        growth_of_output = growth_of_inputs.pop(outputs)
        return [*growth_of_inputs, growth_of_output], len(growth_of_inputs)
    if is_bias_or_scale(path):
        return growth, 0
    return growth, input_axes(params, path, leaf)


def _may_be_output_first(params: PyTree, path: str, growth: list[float]) -> bool:
    """Whether a weight is named as in PyTorch, no layer says the order of its axes, and the factor depends on it."""
    if path.rpartition("/")[2] != "weight" or is_table(path) or is_in_layer(params, path):
        return False
    return len(growth) > 1 and growth[0] != growth[1]


def _factor(growth: list[float], inputs: int, family: Family) -> float:
    fan_in, fan_out = prod(growth[:inputs]), prod(growth[inputs:])
    return 1 / fan_in if family == "adam" else fan_out / fan_in


def _same_paths(params: PyTree, base: PyTree) -> dict[str, tuple[int, ...]]:
    """The shape of one layer of each leaf of the base model, by path.

    Raises:
        StructureError: the models have other paths, or other numbers of axes.
    """
    wide, narrow = dict(leaves(params)), dict(leaves(base))
    found = differences(wide, narrow)._replace(misshapen=(), mistyped=())
    if found:
        sides = (" in the parameters", " in `base`")
        raise structure_error("the base model is another one", found, wide, narrow, sides=sides)
    shapes = {path: layer_shape(path, leaf) for path, leaf in narrow.items()}
    others = [path for path, leaf in wide.items() if len(layer_shape(path, leaf)) != len(shapes[path])]
    if others:
        problems = [
            f"{quoted(path)} is {describe(wide[path])}, and {describe(narrow[path])} in `base`" for path in others
        ]
        raise StructureError(lines(["the base model has other numbers of axes:", *problems]))
    return shapes


# ----------------------------------------------------------------------------------- as rules


def _as_rules(params: PyTree, factors: Mapping[str, float]) -> dict[str, float]:
    """Few rules that give each leaf its factor: those of all layers in one, and the factor 1 by "**"."""
    rules: dict[str, float] = {}
    for path, factor in factors.items():
        if factor != 1:
            rules[_pattern_of_layers(path)] = factor
    if any(factor == 1 for factor in factors.values()):
        rules["**"] = 1.0
    if assign(params, rules) == factors:
        return rules
    # layers that differ, or what is beside them: each leaf by its own path
    return {escape(path): factor for path, factor in factors.items()}


def _pattern_of_layers(path: str) -> str:
    segments: list[str] = []
    for segment in path.split("/"):
        is_layer = segment == STACKED or layer_number(segment) is not None
        segments.append("*" if is_layer else escape(segment))
    return "/".join(segments)
