"""Changes: how parameters have changed, and why the slots of one cannot go on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

from ..._edit import Selector
from ..._edit import paths as selected_paths
from ..._tree import PyTree, leaves
from .moved_slots import Shape, piece_shape
from .origins import Origin, shape_of


@dataclass(frozen=True)
class Changes:
    """How the parameters have changed."""

    old_shapes: Mapping[str, Shape]
    new_shapes: Mapping[str, Shape]
    origins: Mapping[str, Origin]
    resized: Collection[str] = ()
    """Paths of new parameters of which another size means more or fewer rows, not another parameter."""

    @cached_property
    def are_names_alone(self) -> bool:
        """Whether the leaves are the same ones in the same order, so that an array over all of them stays as it is."""
        old, new = list(self.old_shapes), list(self.new_shapes)
        if len(old) != len(new):
            return False
        for before, after in zip(old, new, strict=True):
            origin = self.origins.get(after)
            if origin is None or origin.grid or origin.pieces[0] != (before, (), ()):
                return False
            if self.old_shapes[before] != self.new_shapes[after]:
                return False
        return True

    def why_new(self, param: str) -> str:
        """Why the old slots of a parameter cannot be those of the new one; "" if its name and shape say that they can."""
        origin = self.origins.get(param)
        if origin is None:
            return "a new parameter"
        if param in self.resized:
            return ""
        new = self.new_shapes[param]
        for piece in origin.pieces:
            old = (*origin.grid, *piece_shape(piece, self.old_shapes[piece.path]))
            if old != new:
                return f"its shape is {new} now, {old} before"
        return ""


def resized_paths(new: PyTree, resized: Selector | None) -> frozenset[str]:
    """The leaves that a selector says to have another size."""
    return frozenset() if resized is None else frozenset(selected_paths(new, resized))


def changes_of(old: PyTree, new: PyTree, found: Mapping[str, Origin], resized: frozenset[str]) -> Changes:
    """What has changed between parameters, or the same parts of them, from the origins of all of them."""
    old_shapes, new_shapes = shapes_of(old), shapes_of(new)
    there: dict[str, Origin] = {}
    for path, origin in found.items():
        if path in new_shapes and all(piece.path in old_shapes for piece in origin.pieces):
            there[path] = origin
    return Changes(old_shapes, new_shapes, there, resized & new_shapes.keys())


def shapes_of(tree: PyTree) -> dict[str, tuple[int, ...]]:
    return {path: shape_of(leaf) for path, leaf in leaves(tree)}
