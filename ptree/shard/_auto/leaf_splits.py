"""How each leaf is split: by the role of its layer over the tensor axis, and by size over the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Literal, NamedTuple, TypeAlias

from jax.sharding import PartitionSpec

from ..._tree import Entry, plain
from .layer_roles import Kind, Names, Part, Role, Shape, layer_roles, part_of
from .mesh_roles import MeshAxes, MeshRoles

KernelAxes: TypeAlias = Literal["in_out", "out_in"]
"""The order of the axes of a kernel: of input and of output features."""


EXPERTS = frozenset({"experts", "expert"})
"""Names of nodes whose layers are experts."""


class Split(NamedTuple):
    """How a leaf is split, and what is to be said about it."""

    spec: PartitionSpec
    comment: str = ""
    is_expert: bool = False
    """Whether the first entry is for the axis of a stack of experts."""


@dataclass(frozen=True)
class LayerLeaf:
    """A leaf as one layer has it, without axes of stacks."""

    names: Names
    shape: Shape
    experts: int | None = None
    """The size of the stack of experts that it is in."""


def splits_of(
    leaves: Mapping[str, LayerLeaf], roles: MeshRoles, min_size: int, kernels: KernelAxes | None
) -> dict[str, Split]:
    """Choose how to split each leaf: path -> split."""
    parts = {path: part_of(leaf.names) for path, leaf in leaves.items()}
    kernel_of: dict[Names, tuple[str, Shape]] = {}
    for path, part in parts.items():
        if not part.is_bias:
            kernel_of.setdefault(part.layer, (part.leaf, leaves[path].shape))
    role_of = layer_roles(kernel_of) if roles.tensor is not None else {}
    orders = _Orders(kernel_of, role_of, kernels)
    chooser = _Chooser(roles, min_size)
    splits: dict[str, Split] = {}
    for path, leaf in leaves.items():
        part = parts[path]
        role = role_of.get(part.layer)
        axis = None if role is None else _tensor_axis(role, part, leaf.shape, orders.of(part.layer, role))
        splits[path] = chooser.split(leaf.shape, axis, role, part.is_bias, leaf.experts)
    return splits


class _Orders:
    """In which order the axes of kernels are; a leaf named `weight` does not say it."""

    def __init__(
        self, kernel_of: Mapping[Names, tuple[str, Shape]], role_of: Mapping[Names, Role], given: KernelAxes | None
    ):
        self._kernel_of = kernel_of
        self._given: KernelAxes | None = given
        self._of_weights: KernelAxes = "out_in"  # as PyTorch's Linear
        if self._seen(role_of) == {"in_out"}:
            self._of_weights = "in_out"

    def _seen(self, role_of: Mapping[Names, Role]) -> set[KernelAxes]:
        """The orders that shapes of leaves named `weight` tell."""
        weights: set[tuple[Role, Shape]] = set()
        for layer, role in role_of.items():
            leaf, shape = self._kernel_of[layer]
            if leaf == "weight":
                weights.add((role, shape))
        told: set[KernelAxes | None] = {_order_by_shape(role, shape) for role, shape in weights}
        return {order for order in told if order is not None}

    def of(self, layer: Names, role: Role) -> KernelAxes:
        if self._given is not None:
            return self._given
        leaf, shape = self._kernel_of[layer]
        if leaf != "weight":
            return "in_out"
        if role.kind is Kind.HEAD:  # a Linear also in GPT-2, whose other kernels are (in, out)
            return "out_in"
        return _order_by_shape(role, shape) or self._of_weights


def _order_by_shape(role: Role, shape: Shape) -> KernelAxes | None:
    """The order that a shape tells: the layers before the narrow one of an MLP widen; None of square ones, and of attention."""
    if len(shape) < 2 or role.kind not in (Kind.COLUMN, Kind.ROW) or shape[-1] == shape[-2]:
        return None
    first_is_less = shape[-2] < shape[-1]
    if role.has_heads:
        # of attention only q, k and v in one kernel widen surely
        is_fused = role.kind is Kind.COLUMN and max(shape[-2:]) == 3 * min(shape[-2:])
        if not is_fused:
            return None
    return "in_out" if first_is_less == (role.kind is Kind.COLUMN) else "out_in"


def _tensor_axis(role: Role, part: Part, shape: Shape, order: KernelAxes) -> int | None:
    """The axis that is split over the tensor axis of the mesh; None where the leaf has none."""
    rank = len(shape)
    if part.is_bias:
        return _bias_axis(role, rank)
    if rank < 2:
        return None
    if role.kind is Kind.TABLE:
        return 0
    has_axis_of_heads = role.has_heads and rank > 2
    if has_axis_of_heads:
        return rank - 2 if role.kind is Kind.COLUMN else rank - 3
    is_last = (role.kind is not Kind.ROW) == (order == "in_out")
    return rank - 1 if is_last else rank - 2


def _bias_axis(role: Role, rank: int) -> int | None:
    if rank == 0 or role.kind is Kind.ROW:
        return None
    return rank - 2 if role.has_heads and rank > 1 else rank - 1


class _Chooser:
    """Chooses the split of a leaf by its shape and role; leaves that are alike are chosen for once."""

    def __init__(self, roles: MeshRoles, min_size: int):
        self._roles, self._min_size = roles, min_size
        self.split = lru_cache(maxsize=None)(self._split)

    def _split(
        self, shape: Shape, tensor_axis: int | None, role: Role | None, is_bias: bool, experts: int | None
    ) -> Split:
        entries: list[Entry] = [None] * len(shape)
        comments: list[str] = []
        tensor, expert = self._roles.tensor, self._roles.expert
        if tensor is not None and role is not None and tensor_axis is not None:
            size = shape[tensor_axis]
            if size % tensor.size == 0:
                entries[tensor_axis] = tensor.entry
                comments.append(role.kind.value.split()[0])
            elif not is_bias:
                comments.append(f"{_noun(role, shape)}{size} is not divisible by {tensor}")
        comments += self._split_by_size(shape, entries)
        is_expert = expert is not None and experts is not None and experts % expert.size == 0
        if is_expert and expert is not None:
            entries.insert(0, expert.entry)
        return Split(plain(PartitionSpec(*entries)), "; ".join(comments), is_expert)

    def _split_by_size(self, shape: Shape, entries: list[Entry]) -> list[str]:
        """Split the largest axis that is left over the axes for it, and say why it is not."""
        fsdp = self._roles.fsdp
        if fsdp is None or prod(shape) < self._min_size:
            return []
        free = [at for at, entry in enumerate(entries) if entry is None]
        if not free:
            return []
        axis = _largest_divisible(shape, fsdp, free)
        if axis is None:
            return [f"no axis of {list(shape)} that is left is divisible by {fsdp}"]
        entries[axis] = fsdp.entry
        return []


def _largest_divisible(shape: Shape, axes: MeshAxes, free: Iterable[int]) -> int | None:
    fitting = [axis for axis in free if shape[axis] and shape[axis] % axes.size == 0]
    return max(fitting, key=lambda axis: shape[axis], default=None)


def _noun(role: Role, shape: Shape) -> str:
    if role.kind in (Kind.TABLE, Kind.HEAD):
        return "vocabulary: "
    return "heads: " if role.has_heads and len(shape) > 2 else ""
