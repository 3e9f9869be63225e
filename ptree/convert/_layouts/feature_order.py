"""FeatureOrder: in which order each layer of a model reads flattened features, and the layers for which it is not known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from .framework import Shape

_Note = TypeVar("_Note")


class FeatureOrder:
    """The orders of features by paths of layers; it notes layers that are called with features in two orders."""

    def __init__(self) -> None:
        self._sizes: dict[str, Shape | None] = {}
        self._refused: dict[str, str] = {}
        self._first: dict[tuple[int, tuple[int, ...]], str] = {}
        # an `id` holds as long as its object is there
        self._objects: list[object] = []

    def sizes_at(self, path: str) -> Shape | None:
        """The sizes (space..., channels) of the features that a layer reads flattened; None where their order is the same."""
        return self._sizes.get(path)

    def refusal_at(self, path: str) -> str | None:
        """Why there are no rows for a layer; None where there are."""
        return self._refused.get(path)

    def note(self, path: str, layer: object, repetition: tuple[int, ...], sizes: Shape | None) -> None:
        """Note one call of a layer object, in a repetition of each Repeat around it."""
        self._objects.append(layer)
        first = self._first.setdefault((id(layer), repetition), path)
        self._sizes.setdefault(path, sizes)
        if self._sizes[first] == sizes:
            return
        if path == first:
            self.refuse(path, "it is called twice, with features that are flattened in another order the second time")
        else:
            self.refuse(
                path, f"it is the layer at '{first}', which reads features in another order: make two layers of it"
            )

    def refuse(self, path: str, reason: str) -> None:
        self._refused.setdefault(path, reason)

    def copy(self, path: str, other: str) -> None:
        """Note for a layer and those inside what is noted for another one."""
        self._sizes.update(_copied(self._sizes, path, other))
        self._refused.update(_copied(self._refused, path, other))


def _copied(notes: Mapping[str, _Note], path: str, other: str) -> dict[str, _Note]:
    """The notes of a layer and those inside, for another path."""
    return {other + inside.removeprefix(path): note for inside, note in notes.items() if is_at_or_below(inside, path)}


def is_at_or_below(path: str, other: str) -> bool:
    """Whether a path is another one, or below it."""
    return not other or path == other or path.startswith(f"{other}/")
