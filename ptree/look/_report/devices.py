"""Where parameters live, for a report: what each device holds of each leaf, from a plan or from arrays on several devices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
from jax.sharding import NamedSharding, Sharding

from ..._errors import StructureError
from ..._shardings import Plan, check_is_plan
from ..._shardings.plan_explanation import why_replicated
from ..._shardings.plan_rows import spec_in_words
from ..._shardings.spec_fit import in_words
from ..._words import in_bytes, lines, quoted
from .._sources.source import LeafInfo, Source
from .._sources.tree_source import TreeSource

DIVIDED, WHOLE, ALONE = range(3)
"""Each device holds a part of a leaf, or all of it; or one device alone has it."""


@dataclass(frozen=True)
class PlacedLeaf:
    """Where one leaf lives."""

    kind: int
    divided_by: str
    part: tuple[int, ...]
    """The shape of what a device holds."""
    bytes: int
    """What a device holds."""
    why: str = ""
    """Which rule says so, or why it is not divided."""


@dataclass(frozen=True)
class Placement:
    """Where all leaves live."""

    totals: str
    leaves: Mapping[str, PlacedLeaf]


def placement_of_plan(plan: Plan, infos: Iterable[LeafInfo]) -> Placement:
    """What a plan says of these leaves.

    Raises:
        TypeError: it is no plan.
        StructureError: it is for another tree.
    """
    check_is_plan(plan, "report(plan=)")
    planned = {leaf.path: leaf for leaf in plan.leaves}
    problems: list[str] = []
    for info in infos:
        leaf = planned.get(info.path)
        if info.shape is not None and (leaf is None or leaf.shape != info.shape):
            expected = "no such leaf" if leaf is None else list(leaf.shape)
            problems.append(f"  {quoted(info.path)}: in the plan {expected}, in the tree {list(info.shape)}")
    if problems:
        raise StructureError(lines(["the plan is for another tree:", *problems]))
    sizes = plan.mesh.shape
    leaves: dict[str, PlacedLeaf] = {}
    for path, leaf in planned.items():
        kind = WHOLE if leaf.is_replicated else DIVIDED
        why = why_replicated(leaf) if leaf.is_replicated else f"by {leaf.rule!r}" if leaf.rule else ""
        part = leaf.sharding.shard_shape(leaf.shape)
        leaves[path] = PlacedLeaf(kind, spec_in_words(leaf.sharding), part, leaf.bytes_per_device, why)
    totals = _totals(f"{plan.devices:,} devices: {in_words(sizes)}", leaves, plan.bytes, plan.bytes_per_device)
    return Placement(totals, leaves)


def placement_of_arrays(source: Source) -> Placement | None:
    """Where the arrays of a tree are; None if all are on one device, and for what is no tree."""
    if not isinstance(source, TreeSource):
        return None
    arrays = {path: value for path, value in source.values_by_path.items() if isinstance(value, jax.Array)}
    shardings = {path: array.sharding for path, array in arrays.items()}
    devices = {device for sharding in shardings.values() for device in sharding.device_set}
    if len(devices) < 2:
        return None
    held: Counter[Any] = Counter()
    leaves: dict[str, PlacedLeaf] = {}
    for path, sharding in shardings.items():
        leaves[path] = placed = _placed_array(arrays[path].shape, source.leaves[path].nbytes, sharding)
        for device in sharding.device_set:
            held[device] += placed.bytes
    meshes = {sharding.mesh for sharding in shardings.values() if isinstance(sharding, NamedSharding)}
    axes = in_words(next(iter(meshes)).shape) if len(meshes) == 1 else f"{len(meshes)} meshes"
    size = sum(source.leaves[path].nbytes for path in leaves)
    return Placement(_totals(f"{len(devices):,} devices: {axes}", leaves, size, max(held.values())), leaves)


def _placed_array(shape: tuple[int, ...], nbytes: int, sharding: Sharding) -> PlacedLeaf:
    part = sharding.shard_shape(shape)
    share = prod(part) / prod(shape) if prod(shape) else 1
    by = spec_in_words(sharding) if isinstance(sharding, NamedSharding) else type(sharding).__name__
    if len(sharding.device_set) == 1:
        [device] = sharding.device_set
        return PlacedLeaf(ALONE, "on one device", part, nbytes, f"only on {device}")
    return PlacedLeaf(WHOLE if part == shape else DIVIDED, by, part, round(nbytes * share))


def _totals(devices: str, leaves: Mapping[str, PlacedLeaf], size: int, on_each: int) -> str:
    """The sums as a line."""
    whole = sum(leaf.bytes for leaf in leaves.values() if leaf.kind == WHOLE)
    alone = sum(leaf.bytes for leaf in leaves.values() if leaf.kind == ALONE)
    words = [devices, f"{in_bytes(on_each)} of {in_bytes(size)} on each device"]
    if alone:
        words[1] = f"{in_bytes(on_each)} of {in_bytes(size)} on the fullest device"
        words.append(f"{in_bytes(alone)} on one device alone")
    share = f"{whole / on_each:.1%}" if on_each else "0%"
    words.append(f"{in_bytes(whole)} ({share}) of it the same on every device")
    return " · ".join(words)
