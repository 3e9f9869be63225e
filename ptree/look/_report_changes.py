"""Changes between two sources, leaf by leaf, for the rows of a report."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ._sources import Source


@dataclass(frozen=True)
class Change:
    """What became of a leaf, under its name after; of a removed leaf, under its name before."""

    kinds: tuple[str, ...]
    """`same`, or one or several of changed, renamed, reshaped, retyped, transposed, added, removed."""
    before: str | None = None
    """Its name before, where that is another."""
    relative: float | None = None
    """The norm of the difference, divided by the norm before."""
    largest: float | None = None
    cosine: float | None = None
    note: str = ""


def changes_of(before: Source, after: Source) -> dict[str, Change]:
    """The change of each leaf of two sources, by its name after, or before if it was removed."""
    changes: dict[str, Change] = {}
    for path in after.leaves:
        changes[path] = _change(before, after, path) if path in before.leaves else Change(("added",))
    for path in before.leaves:
        if path not in after.leaves:
            changes[path] = Change(("removed",))
    return changes


def _change(before: Source, after: Source, path: str) -> Change:
    old, new = before.leaves[path], after.leaves[path]
    if old.shape != new.shape:
        return Change(("reshaped",), note=f"{old.shape} -> {new.shape}")
    kinds: list[str] = [] if old.dtype == new.dtype else ["retyped"]
    note = f"{old.dtype} -> {new.dtype}" if kinds else ""
    if old.problem or new.problem or old.shape is None:
        return Change(tuple(kinds) or ("same",), note=note)
    one, other = (np.ravel(source.values(path)).astype(np.float64) for source in (before, after))
    if np.array_equal(one, other, equal_nan=True):
        return Change(tuple(kinds) or ("same",), note=note, relative=0.0 if kinds else None)
    difference = other - one
    norms = float(np.linalg.norm(one)), float(np.linalg.norm(other))
    relative = float(np.linalg.norm(difference)) / norms[0] if norms[0] else float("inf")
    cosine = float(one @ other) / (norms[0] * norms[1]) if norms[0] * norms[1] else float("nan")
    return Change((*kinds, "changed"), None, relative, float(np.abs(difference).max()), cosine, note)
