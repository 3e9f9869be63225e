"""Low-rank adaptation of kernels that a rule selects: draw the factors (lora), read parameters through them (view), add them
up (merged)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ..._draw import Param, init
from ..._draw.keys import refuse_swapped
from ..._edit import Rules, aliases, assign, leaves, replace_leaves
from ..._errors import PatternError, StructureError, TieError
from ..._paths import join
from ..._shardings import placement
from ..._tree import Leaf, PyTree, Tree, check_tree_without_extra_axes
from ..._words import describe, lines, quoted
from ...initializers import zeros
from ...stacks import layer_shape, stack_sizes
from .._kernel_axes import input_axes
from .._wide_floats import at_least_float32
from .factors import Factors, factor_path, fitted
from .rank import Rank

T = TypeVar("T")


def lora(params: PyTree, rules: Rules, key: jax.Array) -> Tree:
    """Draw two small factors for each kernel that a rule selects: a delta tree, which is trained, saved and merged alone.

    >>> import jax.numpy as jnp, ptree as pt
    >>> from ptree import nn
    >>> from ptree.train import Rank, lora, view
    >>> net, x = nn.Repeat(nn.Residual(nn.MultiHeadAttention(4)), 12), jnp.ones((2, 5, 64))
    >>> params = net.init(jax.random.key(0), x)
    >>> delta = lora(params, {"**/{q,v}/kernel": Rank(8, alpha=16)}, jax.random.key(1))
    >>> delta
    Tree(
      :/inner/q/kernel/scale=2/a  f32[12,64,8]
      :/inner/q/kernel/scale=2/b  f32[12,8,4,16]
      :/inner/v/kernel/scale=2/a  f32[12,64,8]
      :/inner/v/kernel/scale=2/b  f32[12,8,4,16]
    )
    >>> grads = jax.grad(lambda delta: net(view(params, delta), x).sum())(delta)
    >>> pt.count(grads), pt.count(params)
    (24576, 199680)

    `b` starts at 0, so that nothing changes at first (Hu et al. 2021). The scale is a part of the path: no file,
    selection or optimiser loses it, and a file of another scale does not load. The values depend on the key and the
    kernel's path, and are the same for stacked and single layers. Factors are drawn in the kernel's dtype, in float32 where
    that has fewer bits. Of kernels on a mesh they lie whole on every device of it.

    Args:
        params: the parameters, or their shapes.
        rules: selector -> `Rank`; the first that matches a kernel counts. Other leaves get no factors.
        key: as for `ptree.init`.

    Raises:
        PatternError: a rule that applies to no leaf, or whose value is no Rank.
        StructureError: leaves that are no kernels of floats, ranks above those of their kernels, kernels of which it is not
            known how many axes are summed over, a stack with more axes than when it was made, as in an ensemble.
        TieError: a kernel with an alias through a transform that factors cannot be seen through.
        InitError: an initialiser that fails.
    """
    refuse_swapped(params, key, "lora(params, rules, key)")
    refuse_swapped(rules, key, "lora(params, rules, key)", order=(params, rules, key))
    check_tree_without_extra_axes(params)
    ranks = assign(params, rules, for_axes=True)
    others = [rank for rank in ranks.values() if not isinstance(rank, Rank)]
    if others:
        raise PatternError(
            f"lora: expected rules selector -> Rank, as in {{'**/kernel': Rank(8)}}, got {describe(others[0])}"
        )
    kernels = {path: leaf for path, leaf in leaves(params) if path in ranks}
    problems: list[str] = []
    known: dict[str, Rank] = {}
    for path, kernel in kernels.items():
        rank = ranks[path]
        if rank.inputs is None:
            rank = replace(rank, inputs=input_axes(params, path, kernel))
        problem = _misfit(path, kernel, rank)
        if problem:
            problems.append(problem)
        known[path] = rank
    if problems:
        raise StructureError(f"lora: {lines(problems)}")
    _check_ties(params, {path: _declared(path, kernels[path], rank) for path, rank in known.items()})
    return _drawn(kernels, known, key)


def view(params: T, delta: PyTree) -> T:
    """The parameters as a model reads them with a delta: a low-rank kernel in the place of each that has factors.

    >>> import jax.numpy as jnp, ptree as pt
    >>> from ptree.train import Rank, lora, view
    >>> params = pt.Tree({"kernel": jnp.ones((4, 8)), "bias": jnp.zeros(8)})
    >>> delta = lora(params, {"kernel": Rank(2)}, jax.random.key(0))
    >>> view(params, delta)["kernel"]
    LowRank(f32[4,8], rank=2, scale=1)
    >>> (jnp.ones(4) @ view(params, delta)["kernel"]).shape
    (8,)

    The layers of `ptree.nn` compute `x @ base + scale * (x @ a) @ b` with it, also in convolutions, lookups and loops; the
    kernel itself is never computed. All other leaves are the same objects, and ties stay: an alias reads the low-rank kernel
    too. In a function by hand `x @ kernel` and `table[ids]` work, and `kernel.array()` gives the sum.

    Call it inside of the loss, and take the gradient with respect to the delta: the base then has none.

    Args:
        params: the parameters that the delta is of.
        delta: what `lora` made, trained or not.

    Raises:
        StructureError: a tree that is no delta, or a delta of other parameters; it names all kernels that do not fit.
    """
    return replace_leaves(params, fitted(params, delta))


def merged(params: T, delta: PyTree) -> T:
    """The parameters with a delta added to its kernels, as plain arrays; a file of them needs no delta.

    >>> import jax.numpy as jnp, ptree as pt
    >>> from ptree.train import Rank, lora, merged
    >>> params = pt.Tree({"kernel": jnp.ones((4, 8)), "bias": jnp.zeros(8)})
    >>> delta = lora(params, {"kernel": Rank(2)}, jax.random.key(0))
    >>> merged(params, delta) == params                       # b is 0 before training
    True

    Each sum is taken in the dtype of the factors, and rounded once to that of the kernel. Ties stay.

    Args:
        params: the parameters that the delta is of.
        delta: what `lora` made, trained or not.

    Raises:
        StructureError: as `view`.
    """
    return replace_leaves(params, {path: kernel.array() for path, kernel in fitted(params, delta).items()})


# ------------------------------------------------------------------------------- what is known of kernels


def _misfit(path: str, kernel: Leaf, rank: Rank) -> str:
    """Why a leaf cannot have factors; empty where it can."""
    dtype = getattr(kernel, "dtype", None)
    if dtype is None:
        return f"{quoted(path)} is {describe(kernel)}, no kernel"
    shape = layer_shape(path, kernel)
    where = f"{quoted(path)}, {describe(kernel)},"
    if not jnp.issubdtype(dtype, jnp.floating):
        return f"{where} is no kernel of real floats; a quantised one is dequantised first"
    if len(shape) < 2 or path.rpartition("/")[2] == "bias":
        return f"{where} is no kernel, which has two axes or more in each layer: take it out of the rule"
    if rank.inputs is None:
        return (
            f"{where} may sum over 1 to {len(shape) - 1} of the axes {shape}, and there is no bias that says it:"
            f" write Rank({rank.rank}, inputs=1) for queries, keys and values (d, heads, head_dim), inputs=2 for (heads, head_dim, d)"
        )
    if rank.inputs >= len(shape):
        return f"{where} has {len(shape)} axes in each layer, and inputs={rank.inputs} leaves none for the output"
    most = min(math.prod(shape[: rank.inputs]), math.prod(shape[rank.inputs :]))
    if rank.rank > most:
        return f"{where} has a rank of {most} at most, and the rule says {rank.rank}"
    return ""


def _check_ties(params: PyTree, factors: Mapping[str, Factors]) -> None:
    """Raise for each alias of a kernel whose transform factors cannot be seen through."""
    kernels = dict(leaves(params))
    problems: list[str] = []
    for alias, tie in aliases(params).items():
        if tie.source not in factors:
            continue
        shape = jax.ShapeDtypeStruct(kernels[tie.source].shape, kernels[tie.source].dtype)
        try:
            jax.eval_shape(tie.read, factors[tie.source].kernel(tie.source, shape))
        except TieError as error:
            problems.append(f"{quoted(alias)} is {tie.shown()}: {error}")
    if problems:
        raise TieError(f"lora: {lines(problems)}. Leave the leaf out of the rules, or ptree.untie it")


# ------------------------------------------------------------------------------- drawing


def _declared(path: str, kernel: Leaf, rank: Rank) -> Factors:
    """The factors of a kernel as Params, with its stacks in front."""
    layers, shape = stack_sizes(path, kernel), layer_shape(path, kernel)
    assert rank.inputs is not None
    of_a = (*shape[: rank.inputs], rank.rank)
    of_b = (rank.rank, *shape[rank.inputs :])
    dtype = at_least_float32(kernel.dtype)
    a = Param((*layers, *of_a), dtype, rank.initializer(of_a))
    return Factors(a, Param((*layers, *of_b), dtype, zeros), rank.scale)


def _drawn(kernels: Mapping[str, Leaf], ranks: Mapping[str, Rank], key: jax.Array) -> Tree:
    # Drawn under paths without the scale, so that another alpha draws the same.
    spec: dict[str, Param] = {}
    for path, rank in ranks.items():
        factors = _declared(path, kernels[path], rank)
        spec |= {join(path, "a"): factors.a, join(path, "b"): factors.b}
    drawn = init(spec, key, shardings=_on_mesh_of(kernels))
    delta: dict[str, jax.Array] = {}
    for path, rank in ranks.items():
        for name in ("a", "b"):
            delta[factor_path(path, rank.scale, name)] = drawn[join(path, name)]
    return Tree(delta)


def _on_mesh_of(kernels: Mapping[str, Leaf]) -> NamedSharding | None:
    """Every device of the mesh of the first kernel that lies on several; factors are small, so each has them whole."""
    for kernel in kernels.values():
        sharding = None if isinstance(kernel, Tracer) else placement(kernel)
        if isinstance(sharding, NamedSharding) and isinstance(sharding.mesh, Mesh) and sharding.mesh.size > 1:
            return NamedSharding(sharding.mesh, PartitionSpec())
    return None
