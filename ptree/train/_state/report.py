"""Carried, the report of what became of the slots of each parameter when the state of an optimiser was carried over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..._words import SHOWN, listed, printable_path


@dataclass(frozen=True)
class Carried:
    """What became of the slots of each parameter, by its path; print it for a list.

    A parameter without slots, of an optimiser that keeps none, is in none of the lists.
    """

    kept: tuple[str, ...] = ()
    """Parameters of the new model whose slots go on."""
    fresh: Mapping[str, str] = field(default_factory=dict)
    """Parameters of the new model whose slots, or some of them, start anew -> why."""
    dropped: tuple[str, ...] = ()
    """Parameters of the old model whose slots nothing takes."""

    __module__ = "ptree.train"

    def __str__(self) -> str:
        shown: list[str] = []
        if self.kept:
            shown.append(f"kept {len(self.kept)}: {listed(self.kept)}")
        if self.fresh:
            shown.append(f"fresh {len(self.fresh)}:")
            reasons = [f"  {printable_path(path)}: {why}" for path, why in self.fresh.items()]
            shown += reasons[:SHOWN]
            if len(reasons) > SHOWN:
                shown.append(f"  and {len(reasons) - SHOWN} more")
        if self.dropped:
            shown.append(f"dropped {len(self.dropped)}: {listed(self.dropped)}")
        return "\n".join(shown) or "nothing"
