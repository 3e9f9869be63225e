"""Layers on a mesh with explicit axes: inside of a layer JAX's compiler splits the work, and the layer says how its output is
split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, TypeAlias

import jax
from jax.sharding import PartitionSpec

from .._tree import Entry, PyTree, automatic, axes_of, entries_of, explicit_mesh

Entries: TypeAlias = Sequence[Entry]
"""What splits each axis of an array."""
Method: TypeAlias = Callable[..., Any]
"""A method of a layer, `(layer, params, x, **options)`."""


def splits_output(specs: Callable[..., PyTree]) -> Callable[[Method], Method]:
    """Decorate a layer's method, which under explicit axes then runs with automatic ones, and whose output is split as said.

    Without a mesh of `jax.set_mesh` that has explicit axes the method is called as it is.

    Args:
        specs: with the arguments of the method the PartitionSpecs of its output, one or a tree. It may be called
            with an input that does not fit, for which the method then raises.
    """

    def decorate(method: Method) -> Method:
        @wraps(method)
        def run(layer: Any, params: Mapping[str, PyTree], x: PyTree, *more: PyTree, **options: PyTree) -> PyTree:
            if explicit_mesh() is None:
                return method(layer, params, x, *more, **options)
            inner = lambda inputs, options: method(layer, *inputs, **options)  # noqa: E731
            return automatic(inner, specs(layer, params, x, *more, **options), (params, x, *more), options)

        return run

    return decorate


def computed_by_part_of_batch(
    batch: Callable[..., Entries], is_needed: Callable[[Any], bool]
) -> Callable[[Method], Method]:
    """Decorate a layer's method so that under explicit axes each device runs it on its part of the batch.

    This is for what JAX's compiler does not split well: for a grouped convolution with automatic axes it warns of an "involuntary full
    rematerialization" and gathers whole arrays where batch and features are split over different axes (jax 0.10). Here all axes but
    those of the batch are gathered.

    Args:
        batch: with the arguments of the method, what splits the batch, which are the first axes of input and output.
        is_needed: whether a layer needs it.
    """

    def decorate(method: Method) -> Method:
        @wraps(method)
        def run(layer: Any, params: Mapping[str, PyTree], x: PyTree) -> PyTree:
            mesh = explicit_mesh()
            if mesh is None or not is_needed(layer):
                return method(layer, params, x)
            part, whole = PartitionSpec(*batch(layer, params, x)), PartitionSpec()
            by_part = jax.shard_map(
                lambda params, x: method(layer, params, x),
                in_specs=(whole, part),
                out_specs=part,
                axis_names={*mesh.explicit_axes},
            )
            params = jax.tree.map(lambda leaf: jax.sharding.reshard(leaf, whole), params)
            return by_part(params, jax.sharding.reshard(x, part))

        return run

    return decorate


def split_along(batch: Entries, features: Entries = ()) -> PartitionSpec:
    """The PartitionSpec of an output: its batch as that of the input, its features by what does not split the batch.

    >>> tuple(split_along(("data", None), ("model",))), tuple(split_along(("data",), (("data", "model"),)))
    (('data', None, 'model'), ('data', 'model'))
    """
    used: set[str] = set()
    entries: list[Entry] = []
    for entry in (*batch, *features):
        free = tuple(name for name in axes_of(entry) if name not in used)
        used.update(free)
        entries.append(free[0] if len(free) == 1 else free or None)
    return PartitionSpec(*entries)


def like_input(layer: Any, params: Mapping[str, PyTree], x: PyTree, **options: PyTree) -> PartitionSpec:
    """The output is split as the input is."""
    return PartitionSpec(*entries_of(x))


def entries_at(params: PyTree, *names: str) -> tuple[Entry, ...]:
    """What splits each axis of the parameter at a path; () where there is none, which the layer itself refuses."""
    for name in names:
        if not isinstance(params, Mapping) or name not in params:
            return ()
        params = params[name]
    return entries_of(params)


def those_that_divide(entries: Entries, sizes: Sequence[int]) -> tuple[Entry, ...]:
    """Entries for axes of these sizes, without those that do not divide them."""
    mesh = explicit_mesh()
    kept: list[Entry] = []
    for entry, size in zip(entries, sizes):
        parts = 1
        for name in axes_of(entry):
            parts *= 1 if mesh is None else mesh.shape[name]
        kept.append(entry if size % parts == 0 else None)
    return tuple(kept)
