"""Shardings: find and check the Sharding or PartitionSpec of each leaf, by rules, a tree or axes of stacks; constrain values
inside of jit."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
from jax.core import Tracer
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec, Sharding

from .._edit import Selector, assign, leaves
from .._errors import InitError, PatternError
from .._paths import STACKED, compile
from .._tree import Leaf, PyTree, Tree, opened
from .._words import describe, lines, listed, quoted

Shardings: TypeAlias = Sharding | PartitionSpec | Mapping[Any, Any]
"""One for every leaf, a tree with one at each leaf's path, or rules selector -> one."""


@dataclass(frozen=True)
class _Request:
    """The Sharding or PartitionSpec given for one leaf, and for which axes of its stacks it has an entry."""

    given: Sharding | PartitionSpec
    stack_axes: tuple[bool, ...]
    """For each stack on the way to the leaf, whether what was given has an entry for the stack's own axis."""

    @property
    def skipped_axes(self) -> list[int]:
        """The axes of stacks for which it has no entry."""
        return [axis for axis, has_entry in enumerate(self.stack_axes) if not has_entry]


@dataclass(frozen=True)
class _Rule:
    """A rule of shardings, as the label of the leaves that it takes."""

    selector: Selector
    given: Sharding | PartitionSpec


def shardings_for(tree: PyTree, given: Shardings, mesh: Mesh | None = None) -> dict[str, Sharding]:
    """Find the sharding of every leaf, and check it against its shape: path -> sharding.

    >>> from ptree import Param
    >>> mesh = jax.make_mesh((1,), ("data",))
    >>> tree = Tree({"w": Param((4, 8)), "blocks": {":": {"w": Param((12, 4, 8))}}})
    >>> found = shardings_for(tree, {"**": PartitionSpec("data")}, mesh)
    >>> found["w"].spec == PartitionSpec("data"), found["blocks/:/w"].spec == PartitionSpec(None, "data")
    (True, True)

    A `PartitionSpec` speaks of one layer: for a leaf in a stack, the stack's own axis is not split. A rule that spells
    this axis, `"blocks/:/w"`, gives a spec with an entry for it. A `NamedSharding` means what its spec means, except at
    a leaf's own place in a tree of shardings: there it is the sharding of the whole array, as `array.sharding` is.
    Shardings of other kinds are always those of the whole array.

    Args:
        tree: any pytree of arrays, or of leaves with a shape.
        given: one for every leaf, a tree with one at each leaf's path, or rules selector -> one.
        mesh: the mesh of the PartitionSpecs; by default that of `jax.set_mesh`.

    Raises:
        PatternError: a rule that takes no leaf, a leaf that has no sharding.
        InitError: what is no sharding, an axis that the mesh does not have or that does not divide the shape.
    """
    requests = _requests(tree, given)
    needs_mesh = any(isinstance(request.given, PartitionSpec) for request in requests.values())
    mesh_of_specs = _mesh_of_specs(mesh) if needs_mesh else None
    shardings: dict[str, Sharding] = {}
    problems: list[str] = []
    for path, leaf in leaves(tree):
        request = requests[path]
        try:
            shardings[path] = _sharding(request, tuple(leaf.shape), mesh_of_specs)
        except Exception as error:  # JAX raises several kinds
            shown = describe(leaf)
            if request.skipped_axes:
                shown += f", of layers {_layer_shape(request, leaf.shape)}"
            problems.append(f"cannot place {quoted(path)}, {shown}, as {request.given}: {error}")
    if problems:
        raise InitError(lines(problems))
    return shardings


# ------------------------------------------------------------- what is asked for each leaf


def _requests(tree: PyTree, given: Shardings) -> dict[str, _Request]:
    """Find the Sharding or PartitionSpec that is given for each leaf: path -> request."""
    if isinstance(given, (Sharding, PartitionSpec)):
        return _requests_by_rules(tree, {"**": given})
    if _is_rules(given):
        return _requests_by_rules(tree, given)
    return _requests_by_tree(tree, given)


def _is_rules(given: Shardings) -> bool:
    """Whether this is a dict of rules, selector -> sharding, rather than a tree of shardings, in which some value is a node."""
    if not isinstance(given, Mapping) or type(given) is Tree:
        return False
    has_nodes = any(opened(value) is not None for value in given.values())
    return not (has_nodes and any(_is_sharding(leaf) for _, leaf in leaves(given)))


def _is_sharding(value: object) -> bool:
    return isinstance(value, (Sharding, PartitionSpec))


def _requests_by_rules(tree: PyTree, rules: Mapping[Selector, Any]) -> dict[str, _Request]:
    wrong = [
        f"{quoted(selector)} is no Sharding and no PartitionSpec, but {describe(value)}"
        for selector, value in rules.items()
        if not _is_sharding(value)
    ]
    if wrong:
        raise InitError(lines(wrong))
    labels = {selector: _Rule(selector, value) for selector, value in rules.items()}
    rule_of = assign(tree, labels, for_axes=True)
    unruled = [path for path, _ in leaves(tree) if path not in rule_of]
    if unruled:
        raise PatternError(f"no sharding for {listed(unruled)}: add a rule for '**'")
    return {path: _Request(rule.given, _spelled(rule.selector, path)) for path, rule in rule_of.items()}


def _requests_by_tree(tree: PyTree, given: PyTree) -> dict[str, _Request]:
    if opened(given) is None:
        raise InitError(f"shardings are a Sharding, a PartitionSpec, a tree of them or rules; got {describe(given)}")
    sharding_at = dict(leaves(given))
    paths = [path for path, _ in leaves(tree)]
    _check_same_paths(paths, list(sharding_at))
    requests: dict[str, _Request] = {}
    for path in paths:
        whole_array = isinstance(sharding_at[path], Sharding)
        requests[path] = _Request(sharding_at[path], (whole_array,) * path.split("/").count(STACKED))
    return requests


def _check_same_paths(expected: Sequence[str], got: Sequence[str]) -> None:
    """Raise a PatternError unless a tree of shardings has exactly the paths of the tree to place."""
    expected_paths, got_paths = set(expected), set(got)
    missing = [path for path in expected if path not in got_paths]
    unexpected = [path for path in got if path not in expected_paths]
    problems: list[str] = []
    if missing:
        problems.append(f"no sharding for {listed(missing)}")
    if unexpected:
        problems.append(f"no leaf of its own for the sharding at {listed(unexpected)}")
    if problems:
        raise PatternError(lines(problems))


_ANY_NAME = "\0"
"""A name that only `*` and `**` match, where they may stand for the layers of a stack."""


def _spelled(selector: Selector, path: str) -> tuple[bool, ...]:
    """For each stack of a leaf, whether the rule of shardings spells the axis of the stack as `:`.

    >>> _spelled("groups/:/blocks/*/w", "groups/:/blocks/:/w"), _spelled("**/w", "groups/:/blocks/:/w")
    ((True, False), (False, False))
    """
    segments = path.split("/")
    pattern = _pattern_that_matches(selector, path)
    spelled: list[bool] = []
    for at, segment in enumerate(segments):
        if segment == STACKED:
            # a pattern that also matches another name in the place of `:` has a wildcard there
            other = "/".join([*segments[:at], _ANY_NAME, *segments[at + 1 :]])
            spelled.append(pattern is not None and not _matches(pattern, other))
    return tuple(spelled)


def _pattern_that_matches(selector: Selector, path: str) -> str | re.Pattern[str] | None:
    """Find the first pattern or regex in the selector of a rule that matches a path; predicates and exclusions have none."""
    if isinstance(selector, (str, re.Pattern)):
        return selector if _matches(selector, path) else None
    if not isinstance(selector, Sequence):
        return None
    for part in selector:
        pattern = _pattern_that_matches(part, path)
        if pattern is not None:
            return pattern
    return None


def _matches(pattern: str | re.Pattern[str], path: str) -> bool:
    if isinstance(pattern, re.Pattern):
        return pattern.fullmatch(path) is not None
    return not pattern.startswith("!") and compile(pattern).matches(path)


# ---------------------------------------------------------------- the sharding of an array


def _mesh_of_specs(mesh: Mesh | None) -> Mesh | AbstractMesh:
    """Find the mesh that each PartitionSpec is for: `mesh=`, or that of `jax.set_mesh`."""
    if mesh is None:
        found = _context_mesh()
        if found.empty:
            raise InitError("a PartitionSpec needs a mesh: give mesh=, or call it under jax.set_mesh(mesh)")
        return found
    if not isinstance(mesh, Mesh):
        raise InitError(f"mesh= takes a jax.sharding.Mesh, got {describe(mesh)}")
    return mesh


def _context_mesh() -> Mesh | AbstractMesh:
    try:
        return jax.sharding.get_mesh()
    except ValueError:  # inside of `jit` JAX gives only its abstract form
        return jax.sharding.get_abstract_mesh()


def _sharding(request: _Request, shape: tuple[int, ...], mesh: Mesh | AbstractMesh | None) -> Sharding:
    """Make the sharding of a whole array, and check it against its shape; JAX raises its own errors if it does not fit."""
    given = request.given
    if isinstance(given, PartitionSpec):
        given = NamedSharding(mesh, given)  # pyright: ignore[reportArgumentType]  it takes an AbstractMesh too
    if not isinstance(given, Sharding):
        raise InitError("it is no Sharding and no PartitionSpec")
    if not isinstance(given, NamedSharding):
        given.shard_shape(shape)  # raises unless it divides the shape
        return given
    layer_shape = _layer_shape(request, shape)
    _check_rank(given.spec, layer_shape, request)
    given.shard_shape(layer_shape)
    return given.update(spec=_with_stack_axes(given.spec, request.stack_axes))


def _layer_shape(request: _Request, shape: Sequence[int]) -> tuple[int, ...]:
    """The part of a shape that a PartitionSpec has entries for: one layer, and axes of stacks that a rule spells."""
    return tuple(size for axis, size in enumerate(shape) if axis not in request.skipped_axes)


def _check_rank(spec: PartitionSpec, shape: tuple[int, ...], request: _Request) -> None:
    """Raise an InitError if a PartitionSpec has more entries than the array, or one layer of it, has axes."""
    if len(spec) <= len(shape):
        return
    if not request.skipped_axes:
        raise InitError(f"its {len(spec)} entries are for {len(spec)} axes, and the leaf has {len(shape)}")
    raise InitError(
        f"its {len(spec)} entries are for {len(spec)} axes, and one layer has {len(shape)}. To split the axis of the"
        " stack, spell it ':' in the pattern of a rule"
    )


def _with_stack_axes(spec: PartitionSpec, stack_axes: tuple[bool, ...]) -> PartitionSpec:
    """Add None, which splits nothing, to a PartitionSpec for each axis of a stack that it has no entry for.

    >>> _with_stack_axes(PartitionSpec(None, "model"), (False,)) == PartitionSpec(None, None, "model")
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


# ------------------------------------------------------------------- where an array is


def placement(leaf: Leaf) -> Sharding | None:
    """The placement of an array, its sharding if that was chosen on purpose; None if JAX may move it, and for other leaves.

    Inside of `jit` JAX knows it only on a mesh with explicit axes.
    """
    if isinstance(leaf, Tracer):
        sharding = getattr(jax.typeof(leaf), "sharding", None)
        return sharding if _has_explicit_axes(sharding) else None
    # JAX moves arrays that are not committed to a device; a ShapeDtypeStruct has no such attribute
    is_committed = getattr(leaf, "committed", True)
    return getattr(leaf, "sharding", None) if is_committed else None


def _has_explicit_axes(sharding: Sharding | None) -> bool:
    return isinstance(sharding, NamedSharding) and AxisType.Explicit in sharding.mesh.axis_types


def constrained(value: jax.Array, sharding: Sharding) -> jax.Array:
    """Constrain a value to a sharding inside of `jit`; JAX has one function for explicit mesh axes, one for the others."""
    if _has_explicit_axes(sharding):
        return jax.sharding.reshard(value, sharding)
    return jax.lax.with_sharding_constraint(value, sharding)
