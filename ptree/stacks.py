"""Stacks of layers of one structure, as one subtree with an axis in front: stack, unstack, scan with remat; layer counts,
shapes and ranks of a stack.

>>> import jax.numpy as jnp, ptree as pt
>>> params = pt.stacks.stack(pt.Tree({"blocks": [{"w": jnp.full(2, 2.0)}] * 10}), "blocks")
>>> x, _ = pt.stacks.scan(lambda x, layer: (x * layer["w"], None), jnp.ones(2), params["blocks"])
>>> x.tolist()
[1024.0, 1024.0]

Most used are `stack` and `scan`. Guide: `examples/guides/stacks.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive

from ._edit import aliases, differences, get, leaves, map_leaves, put, readings, structure_error
from ._errors import StructureError, TieError
from ._paths import STACKED, join, split
from ._tree import (
    ALL_LAYERS,
    Leaf,
    PyTree,
    Tree,
    check_no_extra_axes,
    check_tree_without_extra_axes,
    child_named,
    explicit_mesh,
    is_numbered,
    is_stack,
    layers_of,
    like_placed,
    locate,
    names_in,
    same,
    stacked_axes,
    with_whole_first_axis,
)
from ._words import describe, lines, quoted, with_fixes

__all__ = ["layer_ranks", "muon_dimension_numbers", "scan", "stack", "unstack"]

T = TypeVar("T")
Remat: TypeAlias = bool | Callable[..., bool]
"""Whether to compute again in the backward pass: all, or what a policy of `jax.checkpoint_policies` says."""

# ---------------------------------------------------------------------------------------- stack


def stack(tree: T, path: str | int) -> T:
    """A tree in which the layers "0", "1", ... of the node at a path are one subtree, under `:`.

    >>> tree = stack(Tree({"blocks": [{"kernel": jnp.ones((4, 8))}] * 12}), "blocks")
    >>> tree
    Tree(
      blocks/:/kernel  f32[12,4,8]
    )
    >>> tree["blocks/3/kernel"].shape
    (4, 8)

    Each leaf has an axis more in front, and is copied; a leaf without a shape must be the same in all layers. A
    number in a path reads or sets one layer, `scan` runs over all. Ties inside the layers stay. On a spec it stacks
    what is declared: `init` then draws bit for bit what it draws for the layers one by one. Works on any pytree in
    which the node can be replaced; the path "" is the tree itself.

    Args:
        tree: any pytree.
        path: of the node whose children are the layers "0", "1", ...

    Raises:
        PathError: there is no such path.
        StructureError: no layers from "0" on, or layers that differ; it names the paths in which the first does.
        TieError: a tie into or out of single layers.
    """
    place = _whole_path(tree, path, "stack")
    layers = _layers_at(tree, place)
    axis = stacked_axes(place)
    found = [dict(leaves(layer)) for layer in layers]
    stacked: dict[str, Leaf] = {}
    problems: list[str] = []
    for name in found[0]:
        values = [layer[name] for layer in found]
        problem = _misfit(values, join(place, name))
        if problem:
            problems.append(problem)
        else:
            stacked[name] = _stacked(values, axis)
    if problems:
        raise StructureError(lines(problems))
    whole = map_leaves(layers[0], lambda name, _: stacked[name])
    return _with_node(tree, place, {STACKED: whole})


def _whole_path(tree: PyTree, path: str | int, verb: str) -> str:
    """The path, if it is not inside one layer of a stack."""
    segments = split(path)
    place = locate(tree, segments)
    if place is not None and place.layers:
        raise StructureError(
            f"cannot {verb} {quoted('/'.join(segments))}: it is in one layer of a stack; name {quoted(place.spelt)}"
        )
    return "/".join(segments)


def _with_node(tree: PyTree, path: str, node: Mapping[str, PyTree]) -> PyTree:
    if path:
        return put(tree, path, node)
    return Tree(node) if type(tree) is Tree else node


def _layers_at(tree: PyTree, path: str) -> list[PyTree]:
    """The layers of a node, which have the same leaves and ties."""
    attempt = f"cannot stack {quoted(path)}"
    node = get(tree, path)
    names = names_in(node) or []
    if is_stack(names):
        raise StructureError(f"{attempt}: it is a stack already")
    if not is_numbered(names):
        there = f"its names are {sorted(names)[:3]}" if names else f"it is {describe(node)}"
        raise StructureError(f"{attempt}: its layers would be named '0', '1', ...; {there}")
    layers = [child_named(node, str(number)) for number in range(len(names))]
    fix = "Untie it first; one layer that is used n times is nn.Repeat(layer, n, shared=True)"
    _check_no_crossing_ties(tree, attempt, path, "a stack has no tie into a single layer", fix)
    first = readings(layers[0])
    for number, layer in enumerate(layers):
        other = readings(layer)
        what = f"{attempt}: layer {number} is not like layer 0"
        found = differences(first, other)
        if found:
            raise structure_error(what, found, first, other, prefix=join(path, f"{number}/"))
        if aliases(layer) != aliases(layers[0]):
            raise TieError(f"{what}: other names are tied in it")
    return layers


def _check_no_crossing_ties(tree: PyTree, attempt: str, path: str, why: str, fix: str) -> None:
    """A tie stays if both its ends are in one layer, or both outside of the stack."""
    crossing: list[str] = []
    for alias, tie in aliases(tree).items():
        if _layer_in(alias, path) != _layer_in(tie.source, path):
            crossing.append(f"{attempt}: {quoted(alias)} is tied to {quoted(tie.shown())}, and {why}")
    if crossing:
        raise TieError(with_fixes(crossing, [fix]))


def _layer_in(end: str, path: str) -> str | None:
    """The name of the layer of the node at a path in which one end of a tie lies; None outside of the node."""
    prefix = f"{path}/" if path else ""
    if not end.startswith(prefix):
        return None
    return end[len(prefix) :].split("/")[0]


def _misfit(values: Sequence[Leaf], path: str) -> str:
    """Why the leaves of the layers cannot be stacked; empty where they can."""
    first = values[0]
    if hasattr(first, "__array__"):
        return ""
    for number, value in enumerate(values):
        if not same(value, first):
            return f"cannot stack: in layer {number} {quoted(path)} is {_difference(value, first)} in layer 0"
    return ""


def _stacked(values: Sequence[Leaf], axis: int) -> Leaf:
    first = values[0]
    if all(isinstance(value, np.ndarray | np.generic) for value in values):
        return np.stack(values, axis)
    if hasattr(first, "__array__"):
        return jnp.stack(values, axis)
    shape = getattr(first, "shape", None)
    if shape is None:
        return first
    shape = (*shape[:axis], len(values), *shape[axis:])
    if isinstance(first, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(shape, first.dtype)
    return replace(first, shape=shape)  # a Param


def _difference(value: Leaf, first: Leaf) -> str:
    """What sets a leaf apart from that of the first layer; of what is declared, the first field that differs."""
    if is_dataclass(value) and type(value) is type(first):
        for field in fields(value):
            here, there = getattr(value, field.name), getattr(first, field.name)
            if here != there:
                return f"declared with {field.name}={here!r}, but with {field.name}={there!r}"
    return f"{describe(value)}, but {describe(first)}"


# -------------------------------------------------------------------------------------- unstack


def unstack(tree: T, path: str | int, size: int | None = None) -> T:
    """The inverse of `stack`: the layers of the node at a path as "0", "1", ...

    >>> tree = stack(Tree({"blocks": [{"w": jnp.ones(2)}, {"w": jnp.zeros(2)}]}), "blocks")
    >>> unstack(tree, "blocks")
    Tree(
      blocks/0/w  f32[2]
      blocks/1/w  f32[2]
    )

    Arrays are copied.

    Args:
        tree: any pytree.
        path: of the node with the stack.
        size: how many layers, for a tree whose leaves have no shape, such as a mask.

    Raises:
        PathError: there is no such path.
        StructureError: no stack, or one whose leaves do not have the same number of layers.
        TieError: a tie between the stack and what is outside of it.
    """
    place = _whole_path(tree, path, "unstack")
    node = get(tree, place)
    attempt = f"cannot unstack {quoted(place)}"
    if not is_stack(names_in(node) or []):
        raise StructureError(f"{attempt}: it is no stack, whose one name would be ':'")
    _check_no_crossing_ties(tree, attempt, place, "only one of the two would be unstacked", "Untie it first")
    whole, axis = child_named(node, STACKED), stacked_axes(place)
    check_no_extra_axes(node, axis, place)
    count = _layer_count(whole, axis, place, attempt, size)
    before = (ALL_LAYERS,) * axis
    return _with_node(tree, place, {str(number): layers_of(whole, (*before, number)) for number in range(count)})


def _layer_count(whole: PyTree, axis: int, path: str, attempt: str, size: int | None) -> int:
    """How many layers a stack has: by its leaves, which must agree, or as said."""
    counts: dict[int, str] = {}
    for name, leaf in leaves(whole):
        shape = getattr(leaf, "shape", ())
        if len(shape) > axis:
            counts[shape[axis]] = join(path, join(STACKED, name))
    if len({*counts} | ({size} - {None})) > 1:
        each = ", ".join(f"{count} layers in {quoted(name)}" for count, name in counts.items())
        raise StructureError(f"{attempt}: {each}{'' if size is None else f', and size={size}'}")
    if size is not None:
        return size
    if not counts:
        raise StructureError(f"{attempt}: its leaves do not say how many layers there are; give size=")
    return next(iter(counts))


# ----------------------------------------------------------------------------------------- scan


def scan(
    function: Callable[..., tuple[Any, Any]],
    carry: PyTree,
    layers: PyTree,
    xs: PyTree = None,
    *,
    reverse: bool = False,
    remat: Remat = False,
    unroll: int | bool = 1,
) -> tuple[Any, Any]:
    """Run a function over the layers of a stack, each with its own parameters: `jax.lax.scan` for a model.

    >>> params = stack(Tree({"blocks": [{"w": jnp.full(2, 2.0)}] * 10}), "blocks")
    >>> def block(x, layer):
    ...     return x * layer["w"], None
    >>> x, _ = scan(block, jnp.ones(2), params["blocks"])
    >>> x.tolist()
    [1024.0, 1024.0]

    The block is compiled once, however many layers there are. Layers that are not stacked, "0", "1", ..., run one
    after the other with the same result.

    Args:
        function: `(carry, layer) -> (carry, y)`, or with `xs` `(carry, layer, x) -> (carry, y)`, where `layer` are the
            parameters of one layer; `carry` keeps its structure, shapes and dtypes.
        carry: what the first layer is given, such as the activations.
        layers: the node with the layers.
        xs: what else each layer gets: its leaves have an axis for the layers in front.
        reverse: from the last layer to the first.
        remat: compute the layers again in the backward pass instead of keeping what is inside them: True, or a
            policy of `jax.checkpoint_policies`.
        unroll: how many layers are compiled in a row; True for all.

    Returns:
        The last carry, and the ys with an axis for the layers in front.

    Raises:
        StructureError: no layers, or `xs` for another number of them.
    """
    if not callable(function):
        raise StructureError(f"cannot scan with {quoted(function)}: the order is scan(function, carry, layers)")
    names = names_in(layers) or []
    if is_stack(names):
        check_no_extra_axes(layers, 0, "")
        whole = child_named(layers, STACKED)
        count = next((leaf.shape[0] for leaf in jax.tree.leaves(whole) if leaf.shape), 0)
        _check_xs(xs, count)
        step = _step(function, remat, is_rolled(unroll), xs is None)
        return loop(step, carry, (whole, xs), count, reverse=reverse, unroll=unroll)
    if not is_numbered(names):
        raise StructureError(f"cannot scan: the layers would be a stack, or named '0', '1', ...; there are {names[:3]}")
    count = len(names)
    _check_xs(xs, count)
    step = _step(function, remat, False, xs is None)
    each = [(child_named(layers, str(number)), layers_of(xs, (number,))) for number in range(count)]
    return _in_turn(step, carry, each, reverse)


def loop(
    step: Callable[..., tuple[Any, Any]],
    carry: PyTree,
    xs: PyTree,
    count: int,
    *,
    reverse: bool = False,
    unroll: int | bool = 1,
) -> tuple[Any, Any]:
    """`jax.lax.scan` over `count` steps, which takes arrays on a mesh with explicit axes too.

    There the layers of a stack that is sharded along its own axis are gathered first.
    """
    if explicit_mesh() is None:
        return jax.lax.scan(step, carry, xs, count, reverse=reverse, unroll=unroll)
    # JAX cannot stack what the unrolled steps of a scan keep for its gradient, if that is of `jax.sharding.auto_axes`.
    if unroll is True or unroll >= count:
        return _in_turn(step, carry, [layers_of(xs, (number,)) for number in range(count)], reverse)
    return jax.lax.scan(step, carry, with_whole_first_axis(xs), count, reverse=reverse)


def _in_turn(
    step: Callable[..., tuple[Any, Any]], carry: PyTree, xs: Sequence[PyTree], reverse: bool
) -> tuple[Any, Any]:
    """Run steps one after the other, as `jax.lax.scan` does."""
    ys: list[Any] = [None] * len(xs)
    for number in reversed(range(len(xs))) if reverse else range(len(xs)):
        carry, ys[number] = step(carry, xs[number])
    return carry, jax.tree.map(lambda *parts: jnp.stack(parts), *ys)


def _check_xs(xs: PyTree, count: int) -> None:
    for path, leaf in leaves(xs):
        if getattr(leaf, "shape", ())[:1] != (count,):
            where = f"{quoted(path)} in xs" if path else "xs"
            raise StructureError(
                f"cannot scan: expected {where} with an axis of {count} layers in front, got {describe(leaf)}"
            )


Step: TypeAlias = Callable[[PyTree, tuple[PyTree, PyTree]], tuple[Any, Any]]


def _step(function: Callable[..., tuple[Any, Any]], remat: Remat, rolled: bool, alone: bool) -> Step:
    """The function as `jax.lax.scan` calls it, `alone` without xs."""
    try:
        return _remembered_step(function, remat, rolled, alone)
    except TypeError:  # a function without a hash
        return _new_step(function, remat, rolled, alone)


def _new_step(function: Callable[..., tuple[Any, Any]], remat: Remat, rolled: bool, alone: bool) -> Step:
    function = checkpointed(function, remat, rolled)

    def step(carry: PyTree, layer_and_x: tuple[PyTree, PyTree]) -> tuple[Any, Any]:
        layer, x = layer_and_x
        new, y = function(carry, layer) if alone else function(carry, layer, x)
        return like_placed(new, carry), y

    return step


# the same object for the same function, or JAX would compile each call anew
_remembered_step = lru_cache(maxsize=256)(_new_step)


def is_rolled(unroll: int | bool) -> bool:
    """Whether a scan with this option stays a loop."""
    return unroll is not True and unroll <= 1


def checkpointed(function: Callable[..., Any], remat: Remat, rolled: bool) -> Callable[..., Any]:
    """The function, whose inside is computed again in the backward pass where `remat` says so."""
    if not remat:
        return function
    policy = remat if callable(remat) else None
    if policy is jax.checkpoint_policies.dots_saveable:
        policy = _saves_products
    # only the body of a loop may do without the barriers that keep XLA from finding the first computation
    return jax.checkpoint(function, policy=policy, prevent_cse=not rolled)


def _saves_products(primitive: Primitive, *inputs: Any, **options: Any) -> bool:
    """JAX's `dots_saveable`, which also saves convolutions by name: those of `ptree.nn` are not JAX's own primitive."""
    if primitive.name == "conv_general_dilated":
        return True
    return jax.checkpoint_policies.dots_saveable(primitive, *inputs, **options)


# -------------------------------------------------------------------------------- layers by shape


def stack_sizes(path: str, leaf: Leaf) -> tuple[int, ...]:
    """The number of layers of each stack on the way to a leaf, which are its first axes; () for a leaf in no stack.

    >>> stack_sizes("blocks/:/w", jax.ShapeDtypeStruct((12, 4, 8), jnp.float32))
    (12,)
    """
    return tuple(getattr(leaf, "shape", ()))[: stacked_axes(path)]


def layer_shape(path: str, leaf: Leaf) -> tuple[int, ...]:
    """The shape of one layer of a leaf: its own shape without the axes of the stacks that it is in.

    >>> layer_shape("blocks/:/w", jax.ShapeDtypeStruct((12, 4, 8), jnp.float32))
    (4, 8)
    """
    return tuple(getattr(leaf, "shape", ()))[stacked_axes(path) :]


def layer_ranks(tree: PyTree) -> PyTree:
    """For each leaf how many axes one layer of it has, in a tree of the same structure.

    >>> tree = stack(Tree({"blocks": [{"kernel": jnp.ones((4, 8)), "bias": jnp.ones(8)}] * 12}), "blocks")
    >>> ranks = layer_ranks(tree)
    >>> ranks["blocks/:/kernel"], ranks["blocks/:/bias"]
    (2, 1)

    Optimisers that treat matrices and vectors apart decide by the rank, and a stack has one axis more than its layers.
    As labels, `optax.partition({2: matrices, 1: vectors, 0: vectors}, layer_ranks)` treats both forms alike.

    Args:
        tree: any pytree of arrays, or a spec.

    Raises:
        StructureError: a stack has more axes than when it was made, as in an ensemble: put the tree under `:`.
    """
    check_tree_without_extra_axes(tree)
    return map_leaves(tree, lambda path, leaf: len(layer_shape(path, leaf)))


def muon_dimension_numbers(tree: PyTree) -> PyTree:
    """For `optax.contrib.muon`: the axes of each matrix, also in stacks; None for leaves that Muon leaves to Adam.

    >>> import optax
    >>> tree = stack(Tree({"blocks": [{"kernel": jnp.ones((4, 8)), "bias": jnp.ones(8)}] * 12}), "blocks")
    >>> muon_dimension_numbers(tree)["blocks/:/kernel"]
    MuonDimensionNumbers(reduction_axis=-2, output_axis=-1)
    >>> optimiser = optax.contrib.muon(1e-3, muon_weight_dimension_numbers=muon_dimension_numbers)

    A leaf is a matrix if one layer of it has two axes. So each layer of a stack is made orthogonal for itself, as if
    the layers were not stacked; without this Muon would see three axes and train the whole stack with Adam.

    Args:
        tree: any pytree of arrays, or a spec.

    Raises:
        StructureError: a stack has more axes than when it was made, as in an ensemble: put the tree under `:`.
    """
    from optax.contrib import MuonDimensionNumbers  # optional

    check_tree_without_extra_axes(tree)
    matrix = MuonDimensionNumbers(reduction_axis=-2, output_axis=-1)
    return map_leaves(tree, lambda path, leaf: matrix if len(layer_shape(path, leaf)) == 2 else None)
