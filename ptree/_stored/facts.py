"""Facts: what ptree writes about a tree into the metadata of a file, as JSON: order, ties, kinds, checksums (see FORMAT.md)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from .._errors import FileError
from .dtypes import LACKING
from .stored_leaf import StoredLeaf

VERSION = 1
_SIZE_LIMIT = 1 << 64
_TABLES = ("empty", "kinds", "dtypes", "containers", "sums", "shards")


class StoredTie(NamedTuple):
    """A tie as a file states it: the path of the source, and the names of the transforms that the alias is seen through."""

    source: str
    transforms: tuple[str, ...]

    @classmethod
    def of(cls, source: str, transforms: Iterable[str]) -> StoredTie:
        return cls(source, tuple(transforms))


class StoredParts(NamedTuple):
    """The parts of a leaf that several processes wrote: its shape, and the first place of each part along all axes."""

    shape: tuple[int, ...]
    starts: dict[str, tuple[int, ...]]
    """Name of the part's tensor -> its first place."""


@dataclass(frozen=True)
class Facts:
    """Facts that the metadata of a file state about a tree; each field is one key of the JSON, in this order."""

    order: list[str] = field(default_factory=list)
    ties: dict[str, StoredTie] = field(default_factory=dict)
    empty: dict[str, str] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    dtypes: dict[str, str] = field(default_factory=dict)
    containers: dict[str, str] = field(default_factory=dict)
    sums: dict[str, str] = field(default_factory=dict)
    shards: dict[str, str] = field(default_factory=dict)
    replaced: list[str] = field(default_factory=list)
    index: str = ""
    parts: dict[str, StoredParts] = field(default_factory=dict)

    def about(self, leaves: Iterable[StoredLeaf]) -> Facts:
        """Add to these facts the kind, dtype and checksum of each leaf, where there is something to state."""
        leaves = list(leaves)
        return replace(
            self,
            kinds={leaf.name: leaf.kind for leaf in leaves if leaf.kind},
            dtypes={leaf.name: leaf.dtype.name for leaf in leaves if leaf.dtype in LACKING},
            sums={leaf.name: leaf.checksum for leaf in leaves if leaf.checksum},
        )

    def to_json(self) -> str:
        ties = {alias: [tie.source, [*tie.transforms]] for alias, tie in self.ties.items()}
        parts = {name: [[*about.shape], about.starts] for name, about in self.parts.items()}
        fields = {**vars(self), "ties": ties, "parts": parts}
        # empty fields are left out, to keep the metadata of a plain tree short
        stated = {name: value for name, value in fields.items() if value}
        return json.dumps({"version": VERSION, "order": [], **stated})

    @staticmethod
    def from_json(text: str) -> Facts:
        """Read what `to_json` wrote; raises ValueError, TypeError, KeyError or AttributeError for any other text."""
        table = json.loads(text)
        # before all else: a newer version may have other keys, and "damaged" would be the wrong message
        version = table.pop("version")
        if version > VERSION:
            raise FileError(f"it has version {version} of the format; this ptree reads up to {VERSION}")
        ties = {alias: StoredTie.of(*about) for alias, about in table.pop("ties", {}).items()}
        facts = Facts(
            order=list(table.get("order", ())),
            replaced=list(table.get("replaced", ())),
            index=str(table.get("index", "")),
            ties=ties,
            parts={name: _parts_of(*about) for name, about in table.get("parts", {}).items()},
            **{name: dict(table.get(name, {})) for name in _TABLES},  # pyright: ignore[reportArgumentType]
        )
        facts._check_texts()
        return facts

    def _check_texts(self) -> None:
        texts = [*self.order, *self.replaced]
        for tie in self.ties.values():
            texts += [tie.source, *tie.transforms]
        for name in _TABLES:
            texts += vars(self)[name].values()
        # a file from a stranger may hold any JSON; the code behind this point relies on strings
        for text in texts:
            if type(text) is not str or not text:
                raise TypeError("a name in its metadata is not a string, or is empty")


def _parts_of(shape: list[int], starts: dict[str, list[int]]) -> StoredParts:
    parts = StoredParts(tuple(shape), {name: tuple(start) for name, start in starts.items()})
    for number in (*parts.shape, *(number for start in parts.starts.values() for number in start)):
        # by type: to isinstance True is an int
        if type(number) is not int or not 0 <= number < _SIZE_LIMIT:
            raise TypeError("a size or a place of a part is no whole number from 0 on, or is too large")
    return parts
