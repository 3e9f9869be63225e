"""What differs between two trees or files, as data: rows, rules of what is renamed, counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from .differences import Difference
from .pairs import RenameRule


@dataclass(frozen=True, repr=False, eq=False)
class DiffData:
    """Differences between two trees or files, largest first, with the rules of what is renamed."""

    before: str
    """The name of the first: of a file its name, of a tree its type."""
    after: str
    """The name of the other one."""
    rows: tuple[Difference, ...]
    """The differences, sorted by kind and size."""
    same: tuple[str, ...]
    """The paths of the leaves that are the same under the same name."""
    rules: tuple[RenameRule, ...] = ()
    """Rules that leaves are renamed by."""
    ruled: frozenset[str] = frozenset()
    """The paths before of the leaves that a rule renames."""
    tolerance: float = 0.0
    """The tolerance that was given."""
    within: int = 0
    """How many of `same` differ, by no more than the tolerance."""
    has_numbers: bool = True
    """False where one side is a spec: only shapes and dtypes were compared."""
    declared: int = 0
    """Of how many pairs only the shapes and dtypes were compared, as one of the two has no numbers yet."""

    @property
    def unchanged(self) -> int:
        """How many leaves are the same, under the same name or another."""
        return self.counts["same"] + self.counts.get("renamed", 0)

    @cached_property
    def counts(self) -> dict[str, int]:
        """How many leaves are of each kind; `same` are those under the same name, `renamed` those under another."""
        return {"same": len(self.same), **Counter(row.kind for row in self.rows)}
