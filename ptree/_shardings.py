"""Shardings: where each leaf of a tree is to live, from a sharding, a tree of them, or rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
from jax.core import Tracer
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding

from ._errors import InitError, PatternError, lines, listed, quoted
from ._leaf import describe
from ._rules import label
from ._select import leaves
from ._tree import Tree

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
            shardings[path].shard_shape(tuple(leaf.shape))
        except (ValueError, TypeError, LookupError) as error:
            problems.append(f"{asked}: {error}")
    if problems:
        raise InitError(lines(problems))
    return shardings


def _by_path(tree: Any, given: Any) -> dict[str, Any]:
    paths = [path for path, _ in leaves(tree)]
    if _is_sharding(given):
        return dict.fromkeys(paths, given)
    if isinstance(given, Mapping) and type(given) is not Tree and all(map(_is_sharding, given.values())):
        return dict(leaves(label(tree, given)))
    found = dict(leaves(given))
    lost = [path for path in paths if path not in found]
    if lost:
        raise PatternError(f"no sharding for {listed(lost)}")
    return found


def _is_sharding(value: Any) -> bool:
    return isinstance(value, (Sharding, PartitionSpec))


def _sharding(given: Any, mesh: Mesh | None) -> Sharding:
    if isinstance(given, Sharding):
        return given
    if not isinstance(given, PartitionSpec):
        raise TypeError("it is no jax.sharding.Sharding and no PartitionSpec")
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
    """Where a leaf was put on purpose; None for what JAX may move, what is traced, and what is no array."""
    if isinstance(leaf, Tracer) or not getattr(leaf, "committed", True):
        return None
    return getattr(leaf, "sharding", None)


def constrained(value: Any, sharding: Sharding) -> Any:
    """The value with this sharding, inside of `jit`; the two kinds of mesh axes each have a function for it."""
    mesh = sharding.mesh if isinstance(sharding, NamedSharding) else None
    if mesh is not None and AxisType.Explicit in mesh.axis_types:
        return jax.sharding.reshard(value, sharding)
    return jax.lax.with_sharding_constraint(value, sharding)
