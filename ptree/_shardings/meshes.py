"""The mesh of PartitionSpecs: the one that is given or that of jax.set_mesh, with devices or abstract; two meshes compared."""

from __future__ import annotations

from typing import TypeAlias

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, Sharding

from .._errors import InitError
from .._words import describe
from .spec_fit import in_words

AnyMesh: TypeAlias = Mesh | AbstractMesh


class ShardingError(InitError):
    """Error for a leaf that cannot be placed where it should be.

    >>> import jax, ptree as pt
    >>> from jax.sharding import AbstractMesh, PartitionSpec as P
    >>> pt.shard.plan({"w": pt.Param((3,))}, P("data"), AbstractMesh((2,), ("data",)))
    Traceback (most recent call last):
        ...
    ptree.shard.ShardingError: cannot place 'w', f32[3], as P...('data',): dimension 0 of size 3 cannot be divided by data=2: 2 and
    4 can

    It is a `ptree.InitError`.
    """

    __module__ = "ptree.shard"


def mesh_for_plan(mesh: AnyMesh | None) -> AnyMesh:
    """Find the mesh to plan for: this one, with or without devices, or that of `jax.set_mesh`.

    Raises:
        ShardingError: there is none, something else was given, or it has more devices than JAX can count.
    """
    if mesh is None:
        mesh = context_mesh()
    if not isinstance(mesh, (Mesh, AbstractMesh)):
        raise ShardingError(f"mesh= takes a jax.sharding.Mesh, got {describe(mesh)}")
    if mesh.empty:
        raise ShardingError("a PartitionSpec needs a mesh: give mesh=, or call it under jax.set_mesh(mesh)")
    if mesh.size > _MOST_DEVICES:  # JAX would raise std::bad_cast
        raise ShardingError(
            f"the mesh {in_words(mesh.shape)} has {mesh.size:,} devices, and JAX has shardings over {_MOST_DEVICES:,} at most"
        )
    return mesh


_MOST_DEVICES = 2**31 - 1


def mesh_with_devices(mesh: AnyMesh | None) -> AnyMesh:
    """Find the mesh to place arrays on; inside of `jit` that of `jax.set_mesh` is abstract, and JAX knows its devices.

    Raises:
        ShardingError: there is none, or it has no devices.
    """
    if isinstance(mesh, AbstractMesh):
        raise ShardingError(f"mesh= is {no_devices(mesh)}")
    return mesh_for_plan(mesh)


def no_devices(mesh: AnyMesh) -> str:
    """What to do with a mesh that has no devices, for an error."""
    return (
        f"an AbstractMesh ({in_words(mesh.shape)}), which has no devices to place arrays on; ptree.shard.plan plans for it."
        " Give a mesh of jax.make_mesh(...)"
    )


def context_mesh() -> AnyMesh:
    """The mesh of `jax.set_mesh`, which is empty where there is none; inside of `jit` in its abstract form."""
    try:
        return jax.sharding.get_mesh()
    except ValueError:  # inside of `jit` JAX gives only its abstract form
        return jax.sharding.get_abstract_mesh()


def difference_to_context(expected: AnyMesh) -> str:
    """In what the mesh of `jax.set_mesh` differs from another, in words; empty if there is none, or if it does not differ."""
    here = context_mesh()
    if here.empty:
        return ""
    why = difference(expected, here)
    # inside of `jit` the mesh is abstract, and JAX would find other devices only when it compiles
    devices = None if isinstance(here, Mesh) else _mesh_inside_jit()
    if why or devices is None or devices.empty or not isinstance(expected, Mesh):
        return why
    is_moved = devices.devices.tolist() != expected.devices.tolist()
    return _OTHER_DEVICES if is_moved else ""


def _mesh_inside_jit() -> Mesh | None:
    """The mesh of `jax.set_mesh` with its devices, which no public function gives inside of `jit`; None if JAX does not say it."""
    try:
        from jax._src.mesh import get_concrete_mesh
    except ImportError:
        return None
    return get_concrete_mesh()


_OTHER_DEVICES = "it is over other devices, or over these in another order"


def abstract_form(mesh: AnyMesh) -> AbstractMesh:
    """A mesh without its devices."""
    return mesh if isinstance(mesh, AbstractMesh) else mesh.abstract_mesh


def has_devices(sharding: Sharding) -> bool:
    """Whether a sharding says on which devices the parts are."""
    return not (isinstance(sharding, NamedSharding) and isinstance(sharding.mesh, AbstractMesh))


def difference(expected: AnyMesh, got: AnyMesh) -> str:
    """In what two meshes differ, in words; empty if the same shardings are valid on both."""
    if dict(expected.shape) != dict(got.shape):
        return f"it has the axes {in_words(expected.shape)}, the other {in_words(got.shape)}"
    if [*expected.shape] != [*got.shape]:
        return f"its axes are in the order {[*expected.shape]}, those of the other in the order {[*got.shape]}"
    if expected.axis_types != got.axis_types:
        return f"its axes are {_types_in_words(expected)}, those of the other {_types_in_words(got)}"
    if isinstance(expected, Mesh) and isinstance(got, Mesh) and expected != got:
        return _OTHER_DEVICES
    return ""


def _types_in_words(mesh: AnyMesh) -> str:
    return ", ".join(f"{name}={kind.name}" for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True))
