"""Planned leaves: the sharding of each leaf on a mesh, what one device holds of it, and all that does not fit, as one error."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from .._edit import assign
from .._errors import StructureError
from .._tree import Leaf, Leaves, PyTree, leaves, plain, undivided, with_stack_axes
from .._words import describe, lines, listed, quoted
from .meshes import AnyMesh, ShardingError, difference
from .request import Request
from .spec_fit import Misfit, Shape, misfit, part_shape

Otherwise: TypeAlias = str | Mapping[Any, str]
"""What becomes of dimensions that cannot be divided: "error" or "replicate", or rules selector -> one of these."""

POLICIES = ("error", "replicate")


Source: TypeAlias = Literal["given", "parameter", "nothing"]
"""Whence a placement comes: it was given, by a rule or in a tree; it is that of a slot's parameter; the leaf is of no parameter."""
_REASON_OF_SOURCE: dict[Source, str] = {"given": "", "parameter": "as its parameter", "nothing": "of no parameter"}


class PlannedLeaf(NamedTuple):
    """Where a leaf lives on a mesh, and what one device holds of it."""

    path: str
    shape: Shape
    dtype: Any
    sharding: NamedSharding
    bytes_per_device: int
    rule: str
    """The selector of the rule that takes it; empty where none does."""
    undivided: tuple[str, ...] = ()
    """For each dimension that was to be divided and stays whole, why."""
    source: Source = "given"
    host_bytes_per_device: int = 0
    """What is in the memory of the host for each device, of a sharding with such a memory kind; it is not in `bytes_per_device`."""

    @property
    def bytes(self) -> int:
        """The size of the whole leaf."""
        return math.prod(self.shape) * itemsize(self.dtype)

    @property
    def reason(self) -> str:
        """The rule, or in words why a leaf of a state lives there; empty where it was given at the leaf's place in a tree."""
        return self.rule or _REASON_OF_SOURCE[self.source]

    @property
    def is_replicated(self) -> bool:
        """Whether each device holds all of it, in its own memory or in that of the host."""
        return self.bytes_per_device + self.host_bytes_per_device == self.bytes


_HOST_MEMORY = ("pinned_host", "unpinned_host")


def is_on_host(sharding: NamedSharding) -> bool:
    """Whether the parts are in the memory of the host, not in that of the devices."""
    return sharding.memory_kind in _HOST_MEMORY


def in_memory(leaf: PlannedLeaf) -> PlannedLeaf:
    """The leaf with the bytes of its part where its sharding's memory kind puts them."""
    if not is_on_host(leaf.sharding):
        return leaf
    return leaf._replace(bytes_per_device=0, host_bytes_per_device=leaf.bytes_per_device)


def itemsize(dtype: Any) -> int:
    """The bytes of one number on a device, where JAX has 64 bits only if that is configured, or of one PRNG key."""
    return _itemsize(dtype, jax.config.jax_enable_x64)  # pyright: ignore[reportAttributeAccessIssue]


@lru_cache(maxsize=256, typed=True)
def _itemsize(dtype: Any, has_64_bits: bool) -> int:
    if jnp.issubdtype(dtype, jax.dtypes.extended):
        return dtype.itemsize
    return jax.dtypes.canonicalize_dtype(dtype).itemsize


_NO_NUMBERS = "OSUMm"
"""The kinds of NumPy's dtypes that no device holds: objects, texts, dates."""


def shape_and_dtype(leaf: Leaf) -> tuple[Shape, Any] | None:
    """The shape and dtype of an array, of what stands for one, or of a number; None for what no device can hold."""
    if isinstance(leaf, bool | int | float | complex):
        return (), jax.dtypes.canonicalize_dtype(type(leaf))
    shape, dtype = getattr(leaf, "shape", None), getattr(leaf, "dtype", None)
    if shape is None or dtype is None or isinstance(leaf, type):
        return None
    if isinstance(dtype, np.dtype) and dtype.kind in _NO_NUMBERS:
        return None
    return tuple(shape), dtype


def array_leaves(tree: PyTree) -> Leaves:
    """The leaves of a tree by path, each with a shape and a dtype: a number as that of an array.

    Raises:
        StructureError: with the paths of leaves that have none.
    """
    pairs = leaves(tree)
    kinds = {(type(leaf), getattr(leaf, "dtype", None)): leaf for _, leaf in pairs}  # few, where leaves are many
    if not any(shape_and_dtype(leaf) is None or type(leaf) in _NUMBERS for leaf in kinds.values()):
        return pairs
    others = [(path, leaf) for path, leaf in pairs if shape_and_dtype(leaf) is None]
    if others:
        shown = lines([f"{quoted(path)} is {describe(leaf)}" for path, leaf in others], "; ")
        raise StructureError(
            f"only arrays live on devices, but {shown}. Keep what is no array apart: arrays, static ="
            " eqx.partition(model, eqx.is_array)"
        )
    return [(path, _as_array(leaf)) for path, leaf in pairs]


_NUMBERS = {bool, int, float, complex}


def _as_array(leaf: Leaf) -> Leaf:
    if type(leaf) not in _NUMBERS:
        return leaf
    return jax.ShapeDtypeStruct((), jax.dtypes.canonicalize_dtype(type(leaf)))


# --------------------------------------------------------------------------------- one leaf


class Fit(NamedTuple):
    """How a request fits a shape on a mesh."""

    sharding: NamedSharding | None
    part: Shape
    undivided: tuple[str, ...]
    problems: tuple[str, ...]


_SPELL_THE_STACK = "To split the axis of the stack, spell it ':' in the pattern of a rule"
_OF_PARAMETER = "The spec of a slot is for the axes of one layer of its parameter"


def fit(request: Request, shape: Shape, mesh: AnyMesh | None, policy: str = "error") -> Fit:
    """Fit a PartitionSpec or NamedSharding, which speak of one layer, to the shape of a whole leaf, in the one spelling.

    Args:
        request: what is given for the leaf.
        shape: its shape, with the axes of the stacks that it is in.
        mesh: that of PartitionSpecs; a NamedSharding has its own.
        policy: "replicate" for a leaf whose dimensions stay whole where they cannot be divided.
    """
    given = request.given
    if isinstance(given, PartitionSpec):
        assert mesh is not None
        sizes, spec = mesh.shape, given
    else:
        assert isinstance(given, NamedSharding)
        sizes, spec = given.mesh.shape, given.spec
    layer = request.layer_shape(shape)
    found = misfit(spec, layer, sizes, _rank_hint(request))
    undivided_because: tuple[str, ...] = ()
    if policy == "replicate":
        found, spec, undivided_because = _replicated(found, spec, layer)
    if found.problems:
        return Fit(None, (), (), tuple(found.problems))
    spec = plain(with_stack_axes(spec, request.stack_axes))
    if isinstance(given, PartitionSpec):
        sharding = NamedSharding(mesh, spec)  # pyright: ignore[reportArgumentType]  it takes an AbstractMesh too
    else:
        sharding = given.update(spec=spec)
    return Fit(sharding, part_shape(spec, shape, sizes), undivided_because, ())


def _rank_hint(request: Request) -> str:
    if not request.skipped_axes:
        return ""
    return _OF_PARAMETER if request.of_parameter else _SPELL_THE_STACK


def _replicated(found: Misfit, spec: PartitionSpec, shape: Shape) -> tuple[Misfit, PartitionSpec, tuple[str, ...]]:
    """What is left to refuse, and the spec, when what cannot be divided stays whole; and why it does."""
    if not shape and len(spec):  # a single number has no dimension to divide
        return found._replace(wrong=()), PartitionSpec(), ("a single number cannot be divided",)
    dimensions = [dimension for dimension, _ in found.indivisible]
    reasons = tuple(why for _, why in found.indivisible)
    return found._replace(indivisible=()), undivided(spec, dimensions), reasons


# ------------------------------------------------------------------------------- all leaves


class Problems:
    """What does not fit, with leaves of one request and shape together."""

    def __init__(self) -> None:
        self._paths: dict[tuple[Request, str, tuple[str, ...]], list[str]] = {}

    def add(self, path: str, leaf: Leaf, request: Request, why: Iterable[str]) -> None:
        """Note that a leaf cannot be placed."""
        shown = describe(leaf)
        if request.skipped_axes:
            shown += f", of layers {request.layer_shape(leaf.shape)}"
        self._paths.setdefault((request, shown, tuple(why)), []).append(path)

    def raise_if_any(self) -> None:
        """Raise one error for all of them.

        Raises:
            ShardingError: there are some.
        """
        texts: list[str] = []
        for (request, shown, why), paths in self._paths.items():
            named = quoted(paths[0]) if len(paths) == 1 else listed(paths)
            texts.append(f"cannot place {named}, {shown}, as {request.given}: {'; '.join(why)}")
        if texts:
            raise ShardingError(lines(texts))


def planned_leaves(
    tree: PyTree, pairs: Leaves, requests: Mapping[str, Request], mesh: AnyMesh, otherwise: Otherwise
) -> list[PlannedLeaf]:
    """Plan where each leaf lives; leaves of one request and shape share the work and the sharding.

    Raises:
        ShardingError: a spec that does not fit its leaf, a sharding on another mesh; all of them at once.
        PatternError: rules of `otherwise` that take no leaf.
    """
    policy_of = _policies(tree, otherwise)
    default = otherwise if isinstance(otherwise, str) else "error"
    fits: dict[tuple[int, Shape, str], Fit] = {}
    problems = Problems()
    planned: list[PlannedLeaf] = []
    for path, leaf in pairs:
        request, policy = requests[path], policy_of.get(path, default)
        shape, dtype = leaf.shape, leaf.dtype
        key = id(request), shape, policy
        if key not in fits:
            fits[key] = _fit_on(mesh, request, shape, policy)
        fitted = fits[key]
        if fitted.sharding is None:
            problems.add(path, leaf, request, fitted.problems)
            continue
        size = math.prod(fitted.part) * itemsize(dtype)
        planned.append(
            in_memory(PlannedLeaf(path, shape, dtype, fitted.sharding, size, request.rule, fitted.undivided))
        )
    problems.raise_if_any()
    return planned


def _fit_on(mesh: AnyMesh, request: Request, shape: Shape, policy: str) -> Fit:
    """`fit` on the one mesh of a plan."""
    why = _not_on(mesh, request.given)
    if why:
        return Fit(None, (), (), (why,))
    return fit(request, shape, mesh, policy)


def _not_on(mesh: AnyMesh, given: Sharding | PartitionSpec) -> str:
    if isinstance(given, PartitionSpec):
        return ""
    if not isinstance(given, NamedSharding):
        return "a plan is of PartitionSpecs and NamedShardings, on one mesh"
    why = difference(mesh, given.mesh)
    return f"it is on another mesh than that of the plan: {why}" if why else ""


def _policies(tree: PyTree, otherwise: Otherwise) -> Mapping[str, str]:
    """The policy of each leaf that a rule matches for what cannot be divided: path -> "error" or "replicate".

    Raises:
        ShardingError: it is none of these.
        PatternError: a rule that takes no leaf.
    """
    by_rule = {"**": otherwise} if isinstance(otherwise, str) else otherwise
    if not isinstance(by_rule, Mapping):
        raise ShardingError(
            f"otherwise= is 'error', 'replicate' or rules selector -> one of these; got {describe(otherwise)}"
        )
    wrong = [value for value in by_rule.values() if value not in POLICIES]
    if wrong:
        raise ShardingError(f"otherwise= is 'error' or 'replicate', got {quoted(wrong[0])}")
    return {} if isinstance(otherwise, str) else assign(tree, by_rule)
