"""Fit what is requested for a leaf to its shape: the sharding and the shape of a part, or all that does not fit, as one error."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from jax.sharding import NamedSharding, PartitionSpec

from .._tree import Leaf, plain, undivided, with_stack_axes
from .._words import describe, lines, listed, quoted
from .meshes import AnyMesh, ShardingError
from .request import Request
from .spec_fit import Misfit, Shape, misfit, part_shape


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
