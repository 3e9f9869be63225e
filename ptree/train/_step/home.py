"""The devices that a run is on, those of its parameters; refuse leaves and batches that were put on others, before anything is compiled."""

from __future__ import annotations

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, Sharding

from ..._edit import leaves
from ..._errors import StructureError
from ..._shardings import home_of, is_on_several, is_spread, mesh_text
from ..._tree import Leaf, PyTree
from ..._words import lines, listed, quoted
from .train_state import TrainState


def is_elsewhere(sharding: Sharding, home: Sharding) -> bool:
    """Whether an array on one device has to be moved to the others."""
    if is_on_several(sharding):
        return False
    if isinstance(home, NamedSharding) and not isinstance(sharding, NamedSharding):
        return True
    return sharding.device_set != home.device_set


# ------------------------------------------------------------------------------ what is refused


def refuse_parameters_apart(params: PyTree) -> None:
    """Raise if parameters were put on different meshes, or on different devices where there is no mesh.

    Raises:
        StructureError: they were; one compiled step runs on the same devices in the same order.
    """
    home = home_of(params)
    if home is None:
        return
    is_on_mesh = is_on_several(home)
    apart: list[tuple[str, Leaf]] = []
    for path, leaf in leaves(params):
        if not isinstance(leaf, jax.Array) or not leaf.committed:
            continue
        if is_on_mesh and not is_spread(leaf):  # it is moved to the mesh
            continue
        if not _has_same_devices(leaf.sharding, home):
            apart.append((path, leaf))
    if apart:
        raise StructureError(f"the parameters are on different devices: {_apart(params, home, apart)}")


def refuse_state_apart(state: TrainState) -> None:
    """Raise if the parts of a state are on different meshes; what is on one device follows the parameters.

    Raises:
        StructureError: they are.
    """
    refuse_parameters_apart(state.params)
    home = home_of(state)
    if home is None:
        return
    apart = [
        (path, leaf) for path, leaf in leaves(state) if is_spread(leaf) and not _has_same_devices(leaf.sharding, home)
    ]
    if apart:
        raise StructureError(
            f"the parts of the state are on different devices: {_apart(state, home, apart)}. Of a state:"
            " shard.place(state, shard.like(state, plan))"
        )


def _apart(tree: PyTree, home: Sharding, apart: list[tuple[str, Leaf]]) -> str:
    first = next(path for path, leaf in leaves(tree) if isinstance(leaf, jax.Array) and _is_at(leaf, home))
    rows = [f"{_named(path)} is on {_place(leaf.sharding)}" for path, leaf in apart]
    fix = "ptree.shard.place(params, ptree.shard.plan(params, rules, mesh))"
    if not is_on_several(home):
        fix = "jax.device_put(params, device)"
    return f"{_named(first)} is on {_place(home)}, but {lines(rows, ', ')}. Put all of them on the same: {fix}"


def _is_at(leaf: jax.Array, home: Sharding) -> bool:
    return leaf.committed and _has_same_devices(leaf.sharding, home)


def refuse_batch_elsewhere(state: TrainState, batch: PyTree) -> None:
    """Raise if arrays of a batch were put on other devices than those of the state, or on these in another order.

    Raises:
        StructureError: they were; JAX moves only what was put nowhere.
    """
    home = next(leaf.sharding for _, leaf in leaves(state.params))
    elsewhere = [
        f"{_named(path)} is on {_place(leaf.sharding)}"
        for path, leaf in leaves(batch)
        if isinstance(leaf, jax.Array) and leaf.committed and not _has_same_devices(leaf.sharding, home)
    ]
    if not elsewhere:
        return
    fix = "Put it there, jax.device_put(batch, device), or the parameters on its mesh: ptree.shard.place(params, plan)"
    if isinstance(home, NamedSharding):
        axis = quoted(home.mesh.axis_names[0])
        fix = f"Divide its rows over the same mesh: jax.device_put(batch, NamedSharding(mesh, P({axis})))"
    raise StructureError(
        f"the batch is on other devices than the state, which is on {_place(home)}: {lines(elsewhere, ', ')}. {fix}"
    )


def refuse_host_memory(state: TrainState, error: Exception) -> None:
    """Raise with their paths if an error of JAX comes from leaves that are not in the memory of their devices.

    Raises:
        StructureError: that is what JAX refuses.
    """
    if "memory" not in str(error):
        return
    kinds: dict[str, list[str]] = {}
    for path, leaf in leaves(state):
        kind = leaf.sharding.memory_kind
        default = next(iter(leaf.sharding.device_set)).default_memory().kind
        if kind is not None and kind != default:
            kinds.setdefault(kind, []).append(path)
    if not kinds:
        return
    found = "; ".join(f"in {kind} {listed(paths)}" for kind, paths in kinds.items())
    raise StructureError(
        f"the step computes with leaves that are not in the memory of their devices: {found}. Move what is trained"
        " before step.init, jax.device_put(leaf, leaf.sharding.with_memory_kind('device')); frozen leaves may also be moved so inside of"
        " the loss, with a sharding of the mesh"
    ) from error


# ------------------------------------------------------------------------------------- in words


def _has_same_devices(sharding: Sharding, home: Sharding) -> bool:
    """Whether two shardings are over the same devices in the same order, as JAX compiles a function for these."""
    if isinstance(sharding, NamedSharding) and isinstance(home, NamedSharding):
        # meshes that are equal are one object, so of 4,096 devices only those of another mesh are compared
        return sharding.mesh is home.mesh or _in_order(sharding) == _in_order(home)
    return sharding.device_set == home.device_set


def _in_order(sharding: NamedSharding) -> list[object]:
    return [] if isinstance(sharding.mesh, AbstractMesh) else [*sharding.mesh.devices.flat]


def _place(sharding: Sharding) -> str:
    """The devices of a sharding."""
    if isinstance(sharding, NamedSharding) and isinstance(sharding.mesh, Mesh):
        return mesh_text(sharding.mesh)
    numbers = sorted(device.id for device in sharding.device_set)
    return f"the device {numbers[0]}" if len(numbers) == 1 else f"{len(numbers)} devices"


def _named(path: str) -> str:
    return quoted(path) if path else "the array"
