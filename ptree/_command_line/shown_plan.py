"""A plan of shardings as the command plan writes it: text, JSON or CSV."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from jax.sharding import PartitionSpec

from .. import shard
from .._shardings import on_device
from .._shardings.plan_explanation import why_replicated
from .._shardings.plan_rows import Row, rows_of, spec_in_words
from .._words import SHOWN, in_bytes, short_dtype, shortened, table
from ..look._plain_values import csv_text
from .sharding_rules_file import entries_as_json, rules_as_json

_BIGGEST = 5
_NARROW = 60
_COLUMNS = ("path", "shape", "dtype", "loaded_as", "spec", "bytes", "bytes_per_device", "rule", "undivided")


class ShownPlan:
    """A plan as a command writes it: text, JSON or CSV."""

    def __init__(self, plan: shard.Plan, rules: Mapping[Any, PartitionSpec]):
        self._plan, self._rules = plan, rules

    def text(self, width: int = 80, *, color: bool = False) -> str:
        """The table of the plan, the biggest leaves, and what every device holds whole, within `width` columns."""
        plan = self._plan
        rows = sorted(rows_of(plan.leaves), key=lambda row: -row.bytes_per_device)
        shown = [plan.table(width)]
        if len(rows) > _BIGGEST:
            shown += ["", *_rows_of_table("biggest", rows[:_BIGGEST], width)]
        whole = [row for row in rows if row.leaf.is_replicated]
        if whole:
            shown += ["", *_rows_of_table("on every device", whole[:SHOWN], width, with_reasons=True)]
        if len(whole) > SHOWN:
            shown.append(f"and {len(whole) - SHOWN} more")
        narrowed = [leaf for leaf in plan.leaves if on_device(leaf.dtype) != leaf.dtype]
        if narrowed:
            shown.append(f"sizes of {short_dtype(narrowed[0].dtype)} are of 32 bits, as JAX loads it: JAX_ENABLE_X64=1")
        return "\n".join(shown)

    def to_dict(self) -> dict[str, object]:
        """The plan as plain dicts and lists."""
        plan = self._plan
        return {
            "mesh": dict(plan.mesh.shape),
            "devices": plan.devices,
            "bytes": plan.bytes,
            "bytes_per_device": plan.bytes_per_device,
            "replicated_bytes": plan.replicated_bytes,
            "rules": rules_as_json(self._rules),
            "leaves": [dict(zip(_COLUMNS, self._cells(leaf), strict=True)) for leaf in plan.leaves],
        }

    def to_csv(self) -> str:
        """A line for each leaf."""
        rows: list[tuple[Any, ...]] = []
        for leaf in self._plan.leaves:
            *cells, undivided = self._cells(leaf)
            cells[_COLUMNS.index("spec")] = json.dumps(entries_as_json(leaf.sharding.spec))
            rows.append((*cells, "; ".join(undivided)))
        return csv_text(_COLUMNS, rows)

    def _cells(self, leaf: shard.PlannedLeaf) -> tuple[Any, ...]:
        dtypes = short_dtype(leaf.dtype), short_dtype(on_device(leaf.dtype))  # sizes are of the latter
        spec = entries_as_json(leaf.sharding.spec)
        return leaf.path, leaf.shape, *dtypes, spec, leaf.bytes, leaf.bytes_per_device, leaf.rule, [*leaf.undivided]


def _rows_of_table(title: str, rows: Iterable[Row], width: int, *, with_reasons: bool = False) -> list[str]:
    head = (title, "per device", "why" if with_reasons else "divided by")
    cells: list[tuple[str, ...]] = [head]
    for row in rows:
        path = row.path if row.leaves == 1 else f"{row.path} x{row.leaves}"
        why = why_replicated(row.leaf) if with_reasons else spec_in_words(row.leaf.sharding)
        # half of the line at most, so that the title and the paths can be read
        cells.append((path, in_bytes(row.bytes_per_device), shortened(why, width // 2)))
    if width < _NARROW:  # the paths say more
        cells = [row[:2] for row in cells]
    return table(cells, right={1}, width=width)
