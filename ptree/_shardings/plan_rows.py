"""Rows of a plan for tables: leaves that differ by the numbers in their paths alone are one row."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from jax.sharding import NamedSharding

from .._tree import axes_of
from .._words import in_bytes, number_ranges
from .planned_leaves import PlannedLeaf, is_on_host
from .spec_fit import Shape


class Sums(NamedTuple):
    """The sums of a plan."""

    devices: int
    axes: str
    """Those of the mesh: `data=4, model=2`."""
    leaves: int
    bytes: int
    """The size of the tree, each leaf once."""
    bytes_per_device: int
    replicated_bytes: int
    """The size of the leaves that each device holds whole."""
    host_bytes_per_device: int
    """What is in the memory of the host for each device."""


class Row(NamedTuple):
    """A leaf of a plan, or several with one shape, sharding and rule, whose paths differ by numbers alone."""

    path: str
    """`blocks/{0..11}/kernel` for several."""
    leaves: int
    leaf: PlannedLeaf
    """The first of them."""

    @property
    def bytes_per_device(self) -> int:
        """What each device holds of all of them."""
        return self.leaves * self.leaf.bytes_per_device

    @property
    def host_bytes_per_device(self) -> int:
        """What the host holds of all of them for each device."""
        return self.leaves * self.leaf.host_bytes_per_device


_LONGEST_RANGES = 36  # characters
_NUMBER = re.compile(r"\d+")


def rows_of(leaves: Iterable[PlannedLeaf]) -> list[Row]:
    """The rows of some leaves of a plan, in listing order."""
    alike: dict[tuple[str, Shape, object, NamedSharding, str, tuple[str, ...]], list[PlannedLeaf]] = {}
    for leaf in leaves:
        form = _NUMBER.sub("*", leaf.path)
        key = form, leaf.shape, leaf.dtype, leaf.sharding, leaf.reason, leaf.undivided
        alike.setdefault(key, []).append(leaf)
    rows: list[Row] = []
    for group in alike.values():
        path = group[0].path if len(group) == 1 else _folded([leaf.path for leaf in group])
        rows.append(Row(path, len(group), group[0]))
    return rows


def _folded(paths: Sequence[str]) -> str:
    """Paths that differ by numbers, as one.

    >>> _folded(["blocks/0/w", "blocks/1/w", "blocks/3/w"])
    'blocks/{0..1,3}/w'
    """
    columns = list(zip(*(_NUMBER.findall(path) for path in paths), strict=True))
    numbers = [sorted(set(column), key=int) for column in columns]
    is_product = math.prod(map(len, numbers)) == len(paths)
    shown = iter([_ranges(some, is_product) for some in numbers])
    return _NUMBER.sub(lambda _: next(shown), paths[0])


def _ranges(numbers: Sequence[str], is_product: bool) -> str:
    """Numbers in braces; `*` for too many, or where not each of them is there with each number of another place."""
    if len(numbers) == 1:
        return numbers[0]
    if not is_product or any(number != str(int(number)) for number in numbers):
        return "*"
    shown = number_ranges([int(number) for number in numbers])
    return shown if len(shown) <= _LONGEST_RANGES else "*"


def spec_in_words(sharding: NamedSharding) -> str:
    """The entries of a spec in short: `-, data, model+expert`; `replicated` where nothing is divided; with the memory of the host."""
    entries = ["+".join(axes_of(entry)) or "-" for entry in sharding.spec]
    divided = ", ".join(entries) or "replicated"
    return f"{divided} in {sharding.memory_kind}" if is_on_host(sharding) else divided


def size_in_words(row: Row) -> str:
    """What each device holds of a row; `host` behind it where it is in the memory of the host."""
    if row.host_bytes_per_device:
        return f"{in_bytes(row.host_bytes_per_device)} host"
    return in_bytes(row.bytes_per_device)
