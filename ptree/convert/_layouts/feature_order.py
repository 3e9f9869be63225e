"""FeatureOrder: in which order parameters go with flattened features, and those for which it is not known."""

from __future__ import annotations

from .framework import Shape


class FeatureOrder:
    """The orders of features by paths of parameters; it notes parameters that are used with features in two orders."""

    def __init__(self) -> None:
        self._sizes: dict[str, Shape | None] = {}
        self._refused: dict[str, str] = {}

    def sizes_at(self, path: str) -> Shape | None:
        """The sizes (space..., channels) of the flattened features that a parameter goes with; None where their order is the same."""
        return self._sizes.get(path)

    def refusal_at(self, path: str) -> str | None:
        """Why the order is not known; None where it is."""
        return self._refused.get(path)

    def note(self, path: str, sizes: Shape | None) -> None:
        """Note one use of a parameter."""
        if self._sizes.setdefault(path, sizes) != sizes:
            self.refuse(
                path,
                "it is called twice, with features that are flattened in another order the second time: make two layers of it",
            )

    def refuse(self, path: str, reason: str) -> None:
        self._refused.setdefault(path, reason)
