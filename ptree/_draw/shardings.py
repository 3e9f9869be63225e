"""Shardings: where each leaf of a tree is to live, from a sharding, a tree of them, or rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
from jax.core import Tracer
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding

from .._edit import label, leaves
from .._errors import InitError, PatternError
from .._tree import Tree, opened
from .._words import describe, lines, listed, quoted

Shardings = Sharding | PartitionSpec | Mapping[Any, Any]
"""One for every leaf, a tree with one at each leaf's path, or rules selector -> one."""


def shardings_for(tree: Any, given: Shardings, mesh: Mesh | None = None) -> dict[str, Sharding]:
    """Path -> sharding for every leaf, checked against its shape.

    >>> from ptree import Param
    >>> mesh = jax.make_mesh((1,), ("data",))
    >>> found = shardings_for(Tree({"w": Param((4, 8))}), {"**": PartitionSpec("data")}, mesh)
    >>> found["w"].spec == PartitionSpec("data")
    True

    Raises:
        PatternError: a rule that takes no leaf, a leaf that has no sharding.
        InitError: what is no sharding, an axis that the mesh does not have or that does not divide the shape.
    """
    chosen = _by_path(tree, given)
    shardings: dict[str, Sharding] = {}
    problems: list[str] = []
    for path, leaf in leaves(tree):
        asked = f"cannot place {quoted(path)}, {describe(leaf)}, as {chosen[path]}"
        try:
            shardings[path] = _sharding(chosen[path], mesh)
            spec = getattr(shardings[path], "spec", ())
            if len(spec) > len(leaf.shape):
                raise ValueError(f"it says where {len(spec)} axes go, and the leaf has {len(leaf.shape)}")
            shardings[path].shard_shape(tuple(leaf.shape))
        except Exception as error:  # JAX has several kinds
            problems.append(f"{asked}: {error}")
    if problems:
        raise InitError(lines(problems))
    return shardings


def _by_path(tree: Any, given: Any) -> dict[str, Any]:
    paths = [path for path, _ in leaves(tree)]
    if _is_sharding(given):
        return dict.fromkeys(paths, given)
    if isinstance(given, Mapping) and type(given) is not Tree and not _nests(given):
        wrong = {key: value for key, value in given.items() if not _is_sharding(value)}
        if wrong:
            raise InitError(
                lines([f"{quoted(k)} is no Sharding and no PartitionSpec, but {describe(v)}" for k, v in wrong.items()])
            )
        return dict(leaves(label(tree, given)))
    if opened(given) is None:
        raise InitError(f"shardings are a Sharding, a PartitionSpec, a tree of them or rules; got {describe(given)}")
    found = dict(leaves(given))
    lost = [path for path in paths if path not in found]
    extra = [path for path in found if path not in paths]
    if lost or extra:
        told = [f"no sharding for {listed(lost)}"] * bool(lost) + [f"no leaf of its own for {listed(extra)}"] * bool(
            extra
        )
        raise PatternError(lines(told))
    return found


def _nests(given: Mapping[Any, Any]) -> bool:
    """Whether a dict is a tree of shardings, and not rules."""
    return any(map(opened, given.values())) and any(_is_sharding(leaf) for _, leaf in leaves(given))


def _is_sharding(value: Any) -> bool:
    return isinstance(value, (Sharding, PartitionSpec))


def _sharding(given: Any, mesh: Mesh | None) -> Sharding:
    if isinstance(given, Sharding):
        return given
    if not isinstance(given, PartitionSpec):
        raise TypeError("it is no Sharding and no PartitionSpec")
    if mesh is not None and not isinstance(mesh, Mesh):
        raise TypeError(f"mesh is to be a jax.sharding.Mesh, got {type(mesh).__name__}")
    known: Any = mesh or _context_mesh()
    if known.empty:
        raise ValueError("a PartitionSpec needs a mesh: give mesh=, or call it under jax.set_mesh(mesh)")
    return NamedSharding(known, given)


def _context_mesh() -> Any:
    try:
        return jax.sharding.get_mesh()
    except ValueError:  # inside of jit only its abstract form is known
        return jax.sharding.get_abstract_mesh()


def placement(leaf: Any) -> Sharding | None:
    """Where a leaf was put on purpose; None for what JAX may move, and what is no array.

    Inside of `jit` JAX knows it only on a mesh with explicit axes.
    """
    if isinstance(leaf, Tracer):
        sharding = getattr(jax.typeof(leaf), "sharding", None)
        return sharding if _explicit(sharding) else None
    return getattr(leaf, "sharding", None) if getattr(leaf, "committed", True) else None


def _explicit(sharding: Any) -> bool:
    return isinstance(sharding, NamedSharding) and AxisType.Explicit in sharding.mesh.axis_types


def constrained(value: Any, sharding: Sharding) -> Any:
    """The value with this sharding, inside of `jit`; the two kinds of mesh axes each have a function for it."""
    if _explicit(sharding):
        return jax.sharding.reshard(value, sharding)
    return jax.lax.with_sharding_constraint(value, sharding)
