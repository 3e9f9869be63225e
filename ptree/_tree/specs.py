"""PartitionSpecs: the entries of one, the mesh axes that an entry names, stack axes, its one spelling; whether axes are explicit."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, TypeAlias, TypeGuard

from jax.sharding import AxisType, NamedSharding, PartitionSpec, Sharding

Entry: TypeAlias = str | tuple[str, ...] | None
"""What a PartitionSpec says of one axis of an array: the mesh axes that split it, or None."""


def axes_of(entry: object) -> tuple[str, ...]:
    """The axes of a mesh that an entry of a PartitionSpec names: those that divide one dimension."""
    if entry is None or entry is PartitionSpec.UNCONSTRAINED:
        return ()
    return entry if isinstance(entry, tuple) else (entry,)  # pyright: ignore[reportReturnType]


def spec_entries(spec: PartitionSpec, dimensions: int) -> list[Any]:
    """The entries of a spec, one for each dimension: JAX lets the last ones be left out."""
    return [*spec, *[None] * (dimensions - len(spec))]


def with_stack_axes(spec: PartitionSpec, stack_axes: tuple[bool, ...]) -> PartitionSpec:
    """Add None, which splits nothing, to a PartitionSpec for each axis of a stack that it has no entry for.

    >>> with_stack_axes(PartitionSpec(None, "model"), (False,)) == PartitionSpec(None, None, "model")
    True
    """
    entries = list(spec)
    # an empty spec stays as it was given
    if not entries or all(stack_axes):
        return spec
    front: list[Any] = []
    for has_entry in stack_axes:
        takes_entry = has_entry and entries  # the last entries of a spec may be left out
        front.append(entries.pop(0) if takes_entry else None)
    return PartitionSpec(*front, *entries)


def permuted_entries(entries: Sequence[Any], axes: Sequence[int]) -> list[Any]:
    """The entries of a spec, one for each dimension, when the last dimensions are in another order."""
    first = len(entries) - len(axes)
    return [*entries[:first], *(entries[first + axis] for axis in axes)]


def undivided(spec: PartitionSpec, dimensions: Collection[int]) -> PartitionSpec:
    """The PartitionSpec without what divides these dimensions."""
    return PartitionSpec(*(None if at in dimensions else entry for at, entry in enumerate(spec)))


def plain(spec: PartitionSpec) -> PartitionSpec:
    """The one spelling of a PartitionSpec: without None at its end, which JAX compiles a step for again.

    >>> plain(PartitionSpec("data", None)) == PartitionSpec("data"), plain(PartitionSpec(None)) == PartitionSpec()
    (True, True)
    """
    entries = list(spec)
    if not entries or entries[-1] is not None:
        return spec
    while entries and entries[-1] is None:
        entries.pop()
    return PartitionSpec(*entries)


def has_explicit_axes(sharding: Sharding | None) -> TypeGuard[NamedSharding]:
    """Whether JAX knows inside of `jit` where an array with this sharding is: it is on a mesh with explicit axes."""
    return isinstance(sharding, NamedSharding) and AxisType.Explicit in sharding.mesh.axis_types
