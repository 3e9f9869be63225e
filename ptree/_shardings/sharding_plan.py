"""Plan: where each leaf of a tree lives on the devices of a mesh, with what each of them holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import jax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from .._edit import aliases, differences, entries, leaves, structure_error
from .._errors import PathError
from .._garbage_collection import collection_paused
from .._paths import STACKED, split
from .._tree import (
    Leaf,
    PyTree,
    Tie,
    layer_number,
    permuted_entries,
    plain,
    spec_entries,
    stacked_axes,
    with_leaves,
)
from .._words import describe, in_bytes, listed, quoted, suggestion
from .array_leaves import shape_and_dtype
from .meshes import AnyMesh, ShardingError, context_mesh, difference, difference_to_context, no_devices
from .plan_explanation import PlanExplanation, explanation_of
from .plan_rows import Sums
from .plan_table import table_of
from .planned_leaves import PlannedLeaf
from .spec_fit import in_words


class Plan:
    """Where each leaf of a tree lives on a mesh; `ptree.shard.plan` makes one.

    >>> import jax, ptree as pt
    >>> from jax.sharding import AbstractMesh, PartitionSpec as P
    >>> plan = pt.shard.plan({"w": pt.Param((8, 4))}, P("data"), AbstractMesh((2,), ("data",)))
    >>> plan["w"].spec == P("data"), plan.bytes, plan.bytes_per_device
    (True, 128, 64)

    `plan.shardings` is a tree of `NamedSharding` with the structure of the planned tree, which `jax.jit` and `jax.device_put` take;
    `plan[path]` is that of one leaf, of an alias, also one through a transpose, or of one layer of a stack. Print it for a table.
    """

    __module__ = "ptree.shard"

    def __init__(self, mesh: AnyMesh, planned: Sequence[PlannedLeaf], like: PyTree):
        self.mesh: AnyMesh = mesh
        """The mesh that it is for."""
        self.leaves: tuple[PlannedLeaf, ...] = tuple(planned)
        """Each leaf in listing order."""
        self._like = like

    @cached_property
    def shardings(self) -> Any:
        """A NamedSharding in the place of each leaf of the planned tree, with its ties.

        An alias through a transpose cannot be read in it, as a sharding does not say how many axes there are: take `plan[alias]`.
        """
        with collection_paused():  # of the time for 100,000 leaves it would take half
            return with_leaves(self._like, [leaf.sharding for leaf in self.leaves])

    @cached_property
    def by_path(self) -> dict[str, PlannedLeaf]:
        """Path -> leaf."""
        return {leaf.path: leaf for leaf in self.leaves}

    # ------------------------------------------------------------------------------ one leaf

    def __getitem__(self, path: str) -> NamedSharding:
        """The sharding of the leaf at a path, as its aliases and single layers show it.

        Raises:
            PathError: there is no leaf.
        """
        found = self.by_path.get(path)
        if found is not None:
            return found.sharding
        segments = split(path)
        sharding = self._of_alias_or_layer("/".join(segments))
        if sharding is None:
            raise self._no_leaf(path)
        return sharding

    def __iter__(self) -> Iterator[str]:
        """The paths of the leaves, in listing order."""
        return iter(self.by_path)

    def __len__(self) -> int:
        return len(self.leaves)

    def keys(self) -> Iterable[str]:
        """The paths of the leaves, so that `dict(plan)` is path -> sharding."""
        return self.by_path.keys()

    def __contains__(self, path: object) -> bool:
        return isinstance(path, str) and (path in self.by_path or self._of_alias_or_layer(path) is not None)

    def _of_alias_or_layer(self, path: str) -> NamedSharding | None:
        stacked, layers = self._in_stacks(path.split("/"))
        tie = self._aliases.get(stacked)
        found = self.by_path.get(stacked if tie is None else tie.source)
        if found is None or any(number >= found.shape[axis] for axis, number in layers.items()):
            return None
        spec = spec_entries(found.sharding.spec, len(found.shape))
        for transform in () if tie is None else tie.via:
            spec = permuted_entries(spec, transform.axes)
        kept = [entry for axis, entry in enumerate(spec) if axis not in layers]
        return found.sharding.update(spec=plain(PartitionSpec(*kept)))

    @cached_property
    def _aliases(self) -> dict[str, Tie]:
        return aliases(self._like)

    @cached_property
    def _names(self) -> frozenset[str]:
        """The paths of all leaves and aliases, and of the nodes above them."""
        names: set[str] = set()
        for path in entries(self._like):
            while path and path not in names:
                names.add(path)
                path = path.rpartition("/")[0]
        return frozenset(names)

    def _in_stacks(self, segments: Sequence[str]) -> tuple[str, dict[int, int]]:
        """A path with `:` for the numbers of layers, and the axis of each stack that there was a number for -> the number."""
        path = ""
        layers: dict[int, int] = {}
        for segment in segments:
            number = layer_number(segment)
            stack = f"{path}{STACKED}"
            if number is not None and stack in self._names:
                layers[stacked_axes(path)] = number
                segment = STACKED
            path += f"{segment}/"
        return path[:-1], layers

    def _no_leaf(self, path: str) -> PathError:
        if path in self._names:
            return PathError(f"{quoted(path)} is a node: plan.shardings has the shardings below it")
        near = suggestion(path, self.by_path)
        return PathError(f"the plan has no leaf {quoted(path)}, among {len(self.leaves)}.{near}")

    # -------------------------------------------------------------------------------- in sum

    @cached_property
    def sums(self) -> Sums:
        """What the leaves are together."""
        return Sums(
            devices=self.mesh.size,
            axes=in_words(self.mesh.shape),
            leaves=len(self.leaves),
            bytes=sum(leaf.bytes for leaf in self.leaves),
            bytes_per_device=sum(leaf.bytes_per_device for leaf in self.leaves),
            replicated_bytes=sum(leaf.bytes_per_device for leaf in self.leaves if leaf.is_replicated),
            host_bytes_per_device=sum(leaf.host_bytes_per_device for leaf in self.leaves),
        )

    @property
    def bytes_per_device(self) -> int:
        """What each device holds in its own memory."""
        return self.sums.bytes_per_device

    @property
    def host_bytes_per_device(self) -> int:
        """What the host holds for each device, of leaves with a memory kind such as `pinned_host`."""
        return self.sums.host_bytes_per_device

    @property
    def bytes(self) -> int:
        """The size of the tree, each leaf once."""
        return self.sums.bytes

    @property
    def replicated_bytes(self) -> int:
        """The size of the leaves that each device holds whole, in its own memory."""
        return self.sums.replicated_bytes

    @property
    def devices(self) -> int:
        """How many devices the mesh has."""
        return self.mesh.size

    def table(self, width: int | None = None) -> str:
        """Each leaf with its shape, the axes that divide it, what each device holds and its rule; and the sums.

        Leaves that differ by numbers in their paths alone are one line, `blocks/{0..11}/kernel x12`. `*` marks what was to be
        divided and stays whole.

        Args:
            width: the most columns of a line; by default those of the terminal. Shape and rule are left out where it is narrow.
        """
        return table_of(self.leaves, self.sums, width)

    def explain(self) -> PlanExplanation:
        """Which leaves each rule applies to, which are on every device and why, and which are the biggest; print it for tables."""
        return explanation_of(self.leaves, self.sums, {alias: tie.source for alias, tie in self._aliases.items()})

    def __str__(self) -> str:
        return self.table()

    def __repr__(self) -> str:
        return f"<Plan of {len(self.leaves)} leaves on {in_words(self.mesh.shape)}: {in_bytes(self.bytes_per_device)} per device>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Plan):
            return NotImplemented
        return self.mesh == other.mesh and self.leaves == other.leaves

    def __hash__(self) -> int:
        return hash((self.mesh, self.leaves))

    # ------------------------------------------------------------------------ on other meshes

    def on(self, mesh: AnyMesh) -> Plan:
        """The same plan on another mesh with the same axes: one with devices, for a plan that was made on an AbstractMesh.

        Args:
            mesh: the other mesh.

        Raises:
            ShardingError: its axes have other names or sizes, so that this is not the same plan.
        """
        if not isinstance(mesh, (Mesh, AbstractMesh)):
            raise ShardingError(f"plan.on takes a jax.sharding.Mesh, got {quoted(mesh)}")
        if list(self.mesh.shape.items()) != list(mesh.shape.items()):
            raise ShardingError(
                f"the plan is for a mesh with {in_words(self.mesh.shape)}, and this one has {in_words(mesh.shape)}: plan again for it"
            )
        if mesh == self.mesh:
            return self
        moved: dict[NamedSharding, NamedSharding] = {}
        planned: list[PlannedLeaf] = []
        for leaf in self.leaves:
            before = leaf.sharding
            if before not in moved:
                moved[before] = NamedSharding(mesh, before.spec, memory_kind=before.memory_kind)
            planned.append(leaf._replace(sharding=moved[before]))
        return Plan(mesh, planned, self._like)

    def with_devices(self, mesh: AnyMesh | None = None) -> Plan:
        """The plan on the mesh with devices that arrays are placed on: its own, or `mesh`, or that of `jax.set_mesh`.

        Args:
            mesh: a mesh with devices.

        Raises:
            ShardingError: there is no such mesh, or it differs from that of the plan.
        """
        here = context_mesh() if mesh is None else mesh
        if isinstance(self.mesh, AbstractMesh):
            if here.empty or isinstance(mesh, AbstractMesh):
                raise ShardingError(f"the plan is for {no_devices(self.mesh)}, or call it under jax.set_mesh(mesh)")
            return self.on(here)
        if mesh is None and AxisType.Manual in here.axis_types:
            raise ShardingError(
                "inside of jax.shard_map axes of the mesh are manual, and nothing is placed by a plan: place it outside"
            )
        why = difference_to_context(self.mesh) if mesh is None else difference(self.mesh, mesh)
        if why:
            which = "that of jax.set_mesh" if mesh is None else "the one that is given"
            raise ShardingError(
                f"the plan is for another mesh than {which}: {why}. Plan again for this mesh, or take plan.on(mesh)"
            )
        return self

    # ------------------------------------------------------------------------- for other trees

    def check_fits(self, tree: PyTree) -> None:
        """Raise unless a tree has just the leaves that were planned, with their shapes.

        Args:
            tree: any pytree of arrays.

        Raises:
            StructureError: paths that are missing or unexpected, other shapes.
        """
        got = leaves(tree)
        planned = self.by_path
        if len(got) == len(planned) and all(_is_planned(planned.get(path), leaf) for path, leaf in got):
            return
        expected = {path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for path, leaf in planned.items()}
        shapes = {path: _abstract(leaf) for path, leaf in got}
        found = differences(expected, shapes)._replace(mistyped=())
        raise structure_error(
            "the plan is for another tree",
            found,
            expected,
            shapes,
            sides=(" in the plan", " in the tree"),
            fix=self._fix_of_ties(tree, shapes),
        )

    def _fix_of_ties(self, tree: PyTree, shapes: Mapping[str, Leaf]) -> str:
        """What to do if leaves are tied in the plan and apart in a tree, or the other way round; empty if there are none."""
        apart = [alias for alias in self._aliases if alias in shapes]
        tied = [alias for alias in aliases(tree) if alias in self.by_path]
        texts = [f"tied in the plan and apart in the tree: {listed(apart)}"] if apart else []
        texts += [f"tied in the tree and apart in the plan: {listed(tied)}"] if tied else []
        return f"{'; '.join(texts)}. Plan again, for the tree as it is now" if texts else ""

    def of_part(self, tree: PyTree) -> Plan:
        """The plan of those of its leaves that are in a tree, such as a selection of the tree that was planned.

        Args:
            tree: a tree whose leaves have the same paths.
        """
        paths = {path for path, _ in leaves(tree)}
        return Plan(self.mesh, [leaf for leaf in self.leaves if leaf.path in paths], tree)


def check_is_plan(plan: object, attempt: str) -> None:
    """Raise unless it is a plan.

    Raises:
        TypeError: it is something else, such as the rules of one.
    """
    if not isinstance(plan, Plan):
        raise TypeError(f"{attempt}: expected what ptree.shard.plan(tree, rules, mesh) makes, got {describe(plan)}")


def _is_planned(planned: PlannedLeaf | None, leaf: Leaf) -> bool:
    if planned is None:
        return False
    found = shape_and_dtype(leaf)
    return found is not None and found[0] == planned.shape


def _abstract(leaf: Leaf) -> Leaf:
    found = shape_and_dtype(leaf)
    return leaf if found is None else jax.ShapeDtypeStruct(*found)
