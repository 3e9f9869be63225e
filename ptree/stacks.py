"""Stacks: layers of one structure kept as one, each leaf with an axis more in front, and scanned."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._edit import aliases, differences, everything, get, leaves, map_leaves, put, structure_error
from ._errors import StructureError, TieError
from ._paths import STACKED, join, split
from ._tree import Leaf, PyTree, Tree, child_named, layer_at, layers_of, names_in, same
from ._words import describe, lines, quoted, with_fixes

__all__ = ["layer_ranks", "muon_dimension_numbers", "scan", "stack", "unstack"]


def stack(tree: Any, path: str | int) -> Any:
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

    Raises:
        PathError: there is no such path.
        StructureError: no layers from "0" on, or layers that differ; it names the paths in which the first does.
        TieError: a tie into or out of single layers.
    """
    segments = _place(tree, path, "stack")
    layers = _layers(tree, segments)
    axis = segments.count(STACKED)
    found = [dict(leaves(layer)) for layer in layers]
    problems: list[str] = []

    def stacked(name: str, _: Any) -> Any:
        return _stacked([known[name] for known in found], axis, join("/".join(segments), name), problems)

    whole = map_leaves(layers[0], stacked)
    if problems:
        raise StructureError(lines(problems))
    return _put(tree, segments, {STACKED: whole})


def unstack(tree: Any, path: str | int, size: int | None = None) -> Any:
    """The inverse of `stack`: the layers of the node at a path as "0", "1", ...

    >>> tree = stack(Tree({"blocks": [{"w": jnp.ones(2)}, {"w": jnp.zeros(2)}]}), "blocks")
    >>> unstack(tree, "blocks")
    Tree(
      blocks/0/w  f32[2]
      blocks/1/w  f32[2]
    )

    Arrays are copied.

    Args:
        size: how many layers, for a tree whose leaves have no shape, such as a mask.

    Raises:
        PathError: there is no such path.
        StructureError: no stack, or one whose leaves do not have the same number of layers.
    """
    segments = _place(tree, path, "unstack")
    node, axis, shown = get(tree, "/".join(segments)), segments.count(STACKED), quoted("/".join(segments))
    if [*(names_in(node) or ())] != [STACKED]:
        raise StructureError(f"cannot unstack {shown}: it is no stack, whose one name would be ':'")
    whole = child_named(node, STACKED)
    sizes = {
        leaf.shape[axis]: join("/".join(segments), join(STACKED, name))
        for name, leaf in leaves(whole)
        if len(getattr(leaf, "shape", ())) > axis
    }
    if len({*sizes} | ({size} - {None})) > 1:
        told = ", ".join(f"{count} layers in {name!r}" for count, name in sizes.items())
        raise StructureError(f"cannot unstack {shown}: {told}{'' if size is None else f', and size={size}'}")
    if not sizes and size is None:
        raise StructureError(f"cannot unstack {shown}: its leaves do not say how many layers there are; give size=")
    count = size if size is not None else next(iter(sizes))
    before = (slice(None),) * axis
    return _put(tree, segments, {str(at): layers_of(whole, (*before, at)) for at in range(count)})


def numbered(names: Collection[str]) -> bool:
    """Whether these are the names of layers that are not stacked: "0", "1", ..."""
    return bool(names) and {*names} == {str(at) for at in range(len(names))}


def _place(tree: Any, path: str | int, verb: str) -> list[str]:
    segments = [*split(path)]
    if (layer := layer_at(tree, segments)) is not None:
        whole = "/".join(layer[0])
        raise StructureError(
            f"cannot {verb} {quoted('/'.join(segments))}: it is in one layer of a stack; name {whole!r}"
        )
    return segments


def _put(tree: Any, segments: Sequence[str], node: Any) -> Any:
    if segments:
        return put(tree, "/".join(segments), node)
    return Tree(node) if type(tree) is Tree else node


def _layers(tree: Any, segments: Sequence[str]) -> list[Any]:
    """The layers of a node, which are alike."""
    path = "/".join(segments)
    asked = f"cannot stack {quoted(path)}"
    node = get(tree, path)
    names = [*(names_in(node) or ())]
    if names == [STACKED]:
        raise StructureError(f"{asked}: it is a stack already")
    if not numbered(names):
        there = f"its names are {sorted(names)[:3]}" if names else f"it is {describe(node)}"
        raise StructureError(f"{asked}: its layers would be named '0', '1', ...; {there}")
    layers = [child_named(node, str(at)) for at in range(len(names))]
    _refuse_ties(tree, asked, len(segments), path)
    first = everything(layers[0])
    for at, layer in enumerate(layers):
        got = everything(layer)
        what = f"{asked}: layer {at} is not like layer 0"
        if any(found := differences(first, got)):
            raise structure_error(what, *found, first, got, prefix=join(path, f"{at}/"))
        if aliases(layer) != aliases(layers[0]):
            raise TieError(f"{what}: other names are tied in it")
    return layers


def _refuse_ties(tree: Any, asked: str, depth: int, path: str) -> None:
    """A tie stays if both its ends are in one layer, or both outside of the stack."""

    def layer(end: str) -> str | None:
        segments = end.split("/")
        return segments[depth] if "/".join(segments[:depth]) == path and len(segments) > depth else None

    crossing = [
        f"{asked}: {alias!r} is tied to {tie.shown()!r}, and a stack has no tie into a single layer"
        for alias, tie in aliases(tree).items()
        if layer(alias) != layer(tie.source)
    ]
    if crossing:
        raise TieError(
            with_fixes(crossing, ["Untie it first; one layer that is used n times is nn.Repeat(layer, n, shared=True)"])
        )


def _stacked(values: Sequence[Any], axis: int, path: str, problems: list[str]) -> Any:
    first = values[0]
    if all(isinstance(value, (np.ndarray, np.generic)) for value in values):
        return np.stack(values, axis)
    if hasattr(first, "__array__"):
        return jnp.stack(values, axis)
    shape = getattr(first, "shape", None)
    other = next((at for at, value in enumerate(values) if not same(value, first)), None)
    if other is not None:
        problems.append(f"cannot stack: in layer {other} {path!r} is {_differing(values[other], first)} in layer 0")
    if shape is None:
        return first
    shape = (*shape[:axis], len(values), *shape[axis:])
    if isinstance(first, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(shape, first.dtype)
    return replace(first, shape=shape)  # a Param


def _differing(value: Any, first: Any) -> str:
    """What sets a leaf apart from that of the first layer; of what is declared, the first difference."""
    for field in fields(value) if is_dataclass(value) and type(value) is type(first) else ():
        ours, theirs = (getattr(leaf, field.name) for leaf in (value, first))
        if ours != theirs:
            return f"declared with {field.name}={ours!r}, but with {field.name}={theirs!r}"
    return f"{describe(value)}, but {describe(first)}"


def scan(
    function: Callable[..., Any],
    carry: Any,
    layers: Any,
    xs: Any = None,
    *,
    reverse: bool = False,
    remat: bool | Callable[..., bool] = False,
    unroll: int | bool = 1,
) -> tuple[Any, Any]:
    """Run a function over the layers of a stack, each with its own parameters: `jax.lax.scan` for a model.

    >>> params = stack(Tree({"blocks": [{"w": jnp.full(2, 2.0)}] * 10}), "blocks")
    >>> def block(x, own):
    ...     return x * own["w"], None
    >>> x, _ = scan(block, jnp.ones(2), params["blocks"])
    >>> x.tolist()
    [1024.0, 1024.0]

    The block is compiled once, however many layers there are. Layers that are not stacked, "0", "1", ..., run one
    after the other with the same result.

    Args:
        function: `(carry, layer) -> (carry, y)`, or with `xs` `(carry, layer, x) -> (carry, y)`, where `layer` are the
            parameters of one layer; `carry` keeps its structure, shapes and dtypes.
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
    names = [*(names_in(layers) or ())]
    stacked = names == [STACKED]
    if not stacked and not numbered(names):
        raise StructureError(f"cannot scan: the layers would be a stack, or named '0', '1', ...; there are {names[:3]}")
    count = len(names)
    if stacked:
        layers = child_named(layers, STACKED)
        count = next((leaf.shape[0] for leaf in jax.tree.leaves(layers) if leaf.shape), 0)
    for path, leaf in leaves(xs):
        if getattr(leaf, "shape", ())[:1] != (count,):
            where = f"{path!r} in xs" if path else "xs"
            raise StructureError(
                f"cannot scan: expected {where} with an axis of {count} layers in front, got {describe(leaf)}"
            )
    rolled = stacked and is_rolled(unroll)
    try:
        step = _step(function, remat, rolled, xs is None)
    except TypeError:  # a function without a hash
        step = _step.__wrapped__(function, remat, rolled, xs is None)
    if stacked:
        return jax.lax.scan(step, carry, (layers, xs), reverse=reverse, unroll=unroll)
    ys: list[Any] = [None] * count
    for at in reversed(range(count)) if reverse else range(count):
        more = jax.tree.map(lambda leaf, at=at: leaf[at], xs)
        carry, ys[at] = step(carry, (child_named(layers, str(at)), more))
    return carry, jax.tree.map(lambda *parts: jnp.stack(parts), *ys)


@lru_cache(maxsize=256)
def _step(function: Callable[..., Any], remat: Any, rolled: bool, alone: bool) -> Callable[[Any, Any], tuple[Any, Any]]:
    """What `jax.lax.scan` calls: the same object for the same function, or JAX would compile each call anew."""
    function = checkpointed(function, remat, rolled)

    def step(carry: Any, given: tuple[Any, Any]) -> tuple[Any, Any]:
        layer, x = given
        return function(carry, layer) if alone else function(carry, layer, x)

    return step


def is_rolled(unroll: int | bool) -> bool:
    """Whether a scan with this option stays a loop."""
    return unroll is not True and unroll <= 1


def checkpointed(function: Callable[..., Any], remat: bool | Callable[..., bool], rolled: bool) -> Callable[..., Any]:
    """The function, whose inside is computed again in the backward pass: True, or a policy of what is kept.

    Only the body of a loop may do without the barriers that keep XLA from finding the first computation.
    """
    if not remat:
        return function
    return jax.checkpoint(function, policy=remat if callable(remat) else None, prevent_cse=not rolled)


# ------------------------------------------------------------------- one layer of a leaf


def stack_sizes(path: str, leaf: Leaf) -> tuple[int, ...]:
    """The number of layers of each stack on the way to a leaf, which are its first axes; () for a leaf in no stack.

    >>> stack_sizes("blocks/:/w", jax.ShapeDtypeStruct((12, 4, 8), jnp.float32))
    (12,)
    """
    return tuple(getattr(leaf, "shape", ()))[: path.split("/").count(STACKED)]


def layer_shape(path: str, leaf: Leaf) -> tuple[int, ...]:
    """The shape of one layer of a leaf: its own shape without the axes of the stacks that it is in.

    >>> layer_shape("blocks/:/w", jax.ShapeDtypeStruct((12, 4, 8), jnp.float32))
    (4, 8)
    """
    return tuple(getattr(leaf, "shape", ()))[path.split("/").count(STACKED) :]


def layer_ranks(tree: PyTree) -> PyTree:
    """For each leaf how many axes one layer of it has, in a tree of the same structure.

    >>> tree = stack(Tree({"blocks": [{"kernel": jnp.ones((4, 8)), "bias": jnp.ones(8)}] * 12}), "blocks")
    >>> ranks = layer_ranks(tree)
    >>> ranks["blocks/:/kernel"], ranks["blocks/:/bias"]
    (2, 1)

    Optimisers that treat matrices and vectors apart decide by the rank, and a stack has one axis more than its layers.
    As labels, `optax.partition({2: matrices, 1: vectors, 0: vectors}, layer_ranks)` treats both forms alike.
    """
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
    """
    from optax.contrib import MuonDimensionNumbers  # optional

    matrix = MuonDimensionNumbers(reduction_axis=-2, output_axis=-1)
    return map_leaves(tree, lambda path, leaf: matrix if len(layer_shape(path, leaf)) == 2 else None)
