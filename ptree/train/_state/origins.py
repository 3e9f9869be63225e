"""Where the numbers of each leaf of a changed model come from: old leaves by path, through renames, ties and stacks."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any, NamedTuple

import jax

from ..._edit import rename
from ..._errors import StructureError
from ..._paths import STACKED
from ..._tree import Leaf, PyTree, Tie, Tree, entries, layer_number, leaves, stacked_axes
from ..._tree.transform import Transform
from ..._words import describe


class Piece(NamedTuple):
    """An old leaf, or one layer of it, and how it is turned to be the new one."""

    path: str
    layer: tuple[int, ...] = ()
    """The index of one layer; () unless the old leaf is stacked and the new one is not."""
    via: tuple[Transform, ...] = ()


class Origin(NamedTuple):
    """The pieces that make a new leaf: one, or one for each layer of the stack that it is in now."""

    pieces: tuple[Piece, ...]
    grid: tuple[int, ...] = ()
    """The numbers of layers of the new stacks; () for one piece."""


def origins(old: PyTree, new: PyTree, renames: Mapping[Any, str] | None) -> dict[str, Origin]:
    """The origin of each leaf of `new` that has one in `old`, by path; shapes are not compared.

    A leaf is found by its own path, or else by one of its aliases.
    """
    names = _OldNames(old, renames)
    by_source: dict[str, list[tuple[str, tuple[Transform, ...]]]] = {}
    for path, value in entries(new).items():
        if type(value) is Tie:
            by_source.setdefault(value.source, []).append((path, value.back(path).via))
    found: dict[str, Origin] = {}
    for path, leaf in leaves(new):
        for name, via in [(path, ()), *by_source.get(path, [])]:
            origin = names.origin(name, leaf)
            if origin is not None:
                found[path] = _seen_through(origin, via)
                break
    return found


def _seen_through(origin: Origin, via: tuple[Transform, ...]) -> Origin:
    if not via:
        return origin
    pieces: list[Piece] = []
    for piece in origin.pieces:
        pieces.append(piece._replace(via=Tie(piece.path, piece.via).then(via).via))
    return origin._replace(pieces=tuple(pieces))


class _OldNames:
    """Old leaves by the names that they have after the renames."""

    def __init__(self, old: PyTree, renames: Mapping[Any, str] | None):
        self._shapes = {path: shape_of(leaf) for path, leaf in leaves(old)}
        self._whole = _renamed_names(old, renames)
        self._layers: dict[str, Piece] | None = None

    def origin(self, name: str, leaf: Leaf) -> Origin | None:
        """The origin of a new leaf by one of its names."""
        whole = self._whole.get(name)
        if whole is not None:
            return Origin((whole,))
        depth = stacked_axes(name)
        if not depth:
            if not any(layer_number(part) is not None for part in name.split("/")):
                return None
            piece = self._single_layers().get(name)
            return None if piece is None else Origin((piece,))
        grid = shape_of(leaf)[:depth]
        pieces: list[Piece] = []
        for index in product(*map(range, grid)):
            layer = _with_numbers(name, index)
            piece = self._whole.get(layer) or self._single_layers().get(layer)
            if piece is None:
                return None
            pieces.append(piece)
        return Origin(tuple(pieces), grid)

    def _single_layers(self) -> dict[str, Piece]:
        """The layers of the old stacks, by the path that each would have alone; made when first needed."""
        if self._layers is None:
            self._layers = {}
            for name, piece in self._whole.items():
                grid = self._shapes[piece.path][: stacked_axes(name)]
                for index in product(*map(range, grid)):
                    if index:
                        self._layers[_with_numbers(name, index)] = piece._replace(layer=index)
        return self._layers


def shape_of(leaf: Leaf) -> tuple[int, ...]:
    """The shape of an array or of what stands for one."""
    return tuple(getattr(leaf, "shape", ()))


def _with_numbers(path: str, index: tuple[int, ...]) -> str:
    """The path of one layer: each `:` is replaced by a number."""
    numbers = iter(index)
    return "/".join(str(next(numbers)) if part == STACKED else part for part in path.split("/"))


def _renamed_names(old: PyTree, renames: Mapping[Any, str] | None) -> dict[str, Piece]:
    """Each name of the old leaves, after the renames -> the leaf that it reads."""
    paths: dict[str, str | Tie] = {}
    for path, value in entries(old).items():
        is_place = type(value) is Tie or bool(jax.tree.leaves(value))
        if is_place:
            paths[path] = value if type(value) is Tie else path
    if "" in paths:
        if renames:
            raise StructureError(f"cannot rename: the old parameters are a single leaf, {describe(old)}")
        return {"": Piece("")}
    named = entries(rename(Tree(paths), renames)) if renames else paths
    found: dict[str, Piece] = {}
    for name, value in named.items():
        if type(value) is Tie:
            found[name] = Piece(str(named[value.source]), (), value.via)
        else:
            found[name] = Piece(str(value))
    return found
