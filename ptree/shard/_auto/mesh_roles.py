"""What the axes of a mesh are for, by their names or as given: to shard parameters by size, for tensor parallel layers, for experts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..._shardings import AnyMesh, ShardingError
from ..._words import describe, lines, quoted, suggestion

NAMES = {
    "fsdp": ("fsdp", "data", "dp"),
    "tensor": ("model", "tensor", "tp"),
    "expert": ("expert", "ep"),
}
"""Role -> the names of axes that have it, the first one that the mesh has."""


@dataclass(frozen=True)
class MeshAxes:
    """One or several axes of a mesh that split a dimension together."""

    names: tuple[str, ...]
    size: int

    @property
    def entry(self) -> str | tuple[str, ...]:
        """The entry of a PartitionSpec."""
        return self.names[0] if len(self.names) == 1 else self.names

    def __str__(self) -> str:
        return f"{'*'.join(self.names)}={self.size}"


@dataclass(frozen=True)
class MeshRoles:
    """The axes of a mesh by their roles; None where no axis has a role."""

    fsdp: MeshAxes | None
    tensor: MeshAxes | None
    expert: MeshAxes | None
    unused: tuple[str, ...]
    """Axes without a role, over which every leaf is replicated."""


def mesh_roles(mesh: AnyMesh, axes: Mapping[str, str | Sequence[str]] | None) -> MeshRoles:
    """Find the role of each axis of a mesh.

    >>> from jax.sharding import AbstractMesh
    >>> mesh_roles(AbstractMesh((8, 4), ("data", "model")), None).tensor
    MeshAxes(names=('model',), size=4)

    Raises:
        ShardingError: no axis has a role, or a role or an axis that does not exist, or two roles for one axis.
    """
    chosen = _by_name(mesh) if axes is None else _as_given(mesh, axes)
    if not chosen:
        raise ShardingError(_no_axis_fits(mesh))
    found = {role: MeshAxes(names, math.prod(mesh.shape[name] for name in names)) for role, names in chosen.items()}
    used = {name for names in chosen.values() for name in names}
    unused = tuple(name for name in mesh.axis_names if name not in used)
    return MeshRoles(found.get("fsdp"), found.get("tensor"), found.get("expert"), unused)


def _by_name(mesh: AnyMesh) -> dict[str, tuple[str, ...]]:
    chosen: dict[str, tuple[str, ...]] = {}
    for role, names in NAMES.items():
        there = [name for name in names if name in mesh.axis_names]
        if there:
            chosen[role] = (there[0],)
    return chosen


def _as_given(mesh: AnyMesh, axes: Mapping[str, str | Sequence[str]]) -> dict[str, tuple[str, ...]]:
    if not isinstance(axes, Mapping):
        raise ShardingError(
            f'axes= is a dict, role -> axis of the mesh, such as {{"fsdp": "data"}}; got {describe(axes)}'
        )
    chosen = {role: (names,) if isinstance(names, str) else tuple(names) for role, names in axes.items()}
    problems = [_no_role(role) for role in chosen if role not in NAMES]
    role_of: dict[str, str] = {}
    for role, names in chosen.items():
        for name in names:
            if name not in mesh.axis_names:
                near = suggestion(str(name), list(mesh.axis_names))
                problems.append(f"axes=: the mesh has no axis {name!r} for {role!r}; it has {_shown(mesh)}.{near}")
            elif name in role_of:
                problems.append(
                    f"axes=: the axis {name!r} is for both {role_of[name]!r} and {role!r}; one role is enough"
                )
            role_of[name] = role
    if problems:
        raise ShardingError(lines(problems))
    return {role: names for role, names in chosen.items() if names}


def _no_role(role: object) -> str:
    near = suggestion(str(role), list(NAMES))
    return f"axes=: there is no role {role!r}; the roles are {', '.join(map(repr, NAMES))}.{near}"


def _no_axis_fits(mesh: AnyMesh) -> str:
    known = "; ".join(f"{role} {', '.join(map(quoted, names))}" for role, names in NAMES.items())
    first = mesh.axis_names[0] if mesh.axis_names else "data"
    return (
        f"no axis of the mesh {_shown(mesh)} has a name that says what it is for ({known})."
        f' Say it: axes={{"fsdp": "{first}"}}'
    )


def _shown(mesh: AnyMesh) -> str:
    return f"({', '.join(f'{name}={size}' for name, size in mesh.shape.items())})"
