"""Run the command plan: where the parameters of a file live on the devices of a mesh, from its header alone."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import AbstractMesh, PartitionSpec

from .. import shard
from .._errors import FileError, PatternError
from .._shardings import itemsize
from .._shardings.plan_explanation import why_replicated
from .._shardings.plan_rows import Row, rows_of, spec_in_words
from .._stored.drafts import draft
from .._stored.dtypes import DTYPES, LACKING
from .._tree import Tie, Tree
from .._tree.transform import permuted
from .._words import SHOWN, in_bytes, lines, printable, printable_path, quoted, short_dtype, table
from ..look._plain_values import csv_text
from ..look._sources.source import LeafInfo, Source
from ..look._sources.source_of import source_of
from .damage import code_of_files, code_of_leaves
from .output import refuse_existing, write

_BIGGEST = 5
_NARROW = 60
_DTYPES = {short_dtype(dtype): dtype for dtype in [*DTYPES.values(), *LACKING]}
_COLUMNS = ("path", "shape", "dtype", "spec", "bytes", "bytes_per_device", "rule", "undivided")


def run_plan(given: argparse.Namespace) -> int:
    _check_options(given)
    mesh = AbstractMesh(tuple(given.mesh.values()), tuple(given.mesh))
    rules = None if given.auto else rules_in(given.rules)
    with source_of(given.file) as source:
        tree, left_out = _tree_of(source)
        code = code_of_files(source) or code_of_leaves(source, source.leaves)
    for info in left_out:
        print(f"ptree: {printable_path(info.path)} is not in the plan: {printable(info.problem)}", file=sys.stderr)
    if rules is None:
        options = {} if given.min_size is None else {"min_size": given.min_size}
        try:
            rules = shard.auto(tree, mesh, axes=given.axes, kernels=given.kernels, **options)
        except shard.ShardingError as error:
            raise shard.ShardingError(_with_options(str(error))) from error
    plan = shard.plan(tree, rules, mesh, otherwise="replicate" if given.replicate else "error")
    if given.out is not None:
        _write_rules(given.out, rules)
    write(_Shown(plan, rules), given)
    return code


def _with_options(message: str) -> str:
    """The message of an error of `auto`, which names an argument of Python, with the option of the command."""
    named = re.sub(r'axes=\{"(\w+)": "([^"]*)"\}', r"--axes \1=\2", message)
    return named.replace("axes=:", "--axes:")


def _check_options(given: argparse.Namespace) -> None:
    options = {"--min-size": given.min_size, "--axes": given.axes, "--kernels": given.kernels, "--out": given.out}
    without_effect = [name for name, value in options.items() if value is not None]
    if without_effect and not given.auto:
        raise FileError(f"{', '.join(without_effect)}: only with --auto, and with --rules without effect")
    if given.out is not None:
        refuse_existing(given.out)


# ----------------------------------------------------------------------------------- rules


def rules_in(path: str) -> dict[str, PartitionSpec]:
    """Read rules of shardings from a JSON file: selector -> a list with an axis, null or a list of axes for each dimension.

    Raises:
        FileError: it is no JSON, or no such rules; with all problems.
        OSError: it cannot be read.
    """
    try:
        pairs = json.loads(Path(path).read_text(encoding="utf-8"), object_pairs_hook=_Pairs)
    except ValueError as error:
        raise FileError(f"{quoted(path)} is no JSON: {error}") from error
    if not isinstance(pairs, _Pairs):
        raise FileError(f'{quoted(path)}: rules are an object, such as {{"**/kernel": ["data", null], "**": []}}')
    problems: list[str] = []
    rules: dict[str, PartitionSpec] = {}
    for selector, entries in pairs:
        if selector in rules:
            problems.append(f"{quoted(path)}: the selector {quoted(selector)} is there twice")
        spec = _spec_of(entries)
        if spec is None:
            shown = json.dumps(entries)
            problems.append(
                f"{quoted(path)}: {quoted(selector)} has {shown}; expected a list with an axis, null or a list of axes"
                " for each dimension"
            )
        rules[selector] = spec or PartitionSpec()
    if problems:
        raise FileError(lines(problems))
    return rules


class _Pairs(list[tuple[str, Any]]):
    """The members of a JSON object, of which several may have one name."""


def _spec_of(entries: Any) -> PartitionSpec | None:
    """The PartitionSpec of a list in JSON; None if it is none."""
    if entries is None:
        return PartitionSpec()
    if not isinstance(entries, list) or isinstance(entries, _Pairs):
        return None
    made: list[str | tuple[str, ...] | None] = []
    for entry in entries:
        if isinstance(entry, list) and entry and all(isinstance(name, str) for name in entry):
            made.append(tuple(entry))
        elif entry is None or isinstance(entry, str):
            made.append(entry)
        else:
            return None
    return PartitionSpec(*made)


def _as_json(rules: Mapping[Any, PartitionSpec]) -> dict[str, list[Any]]:
    return {str(selector): _entries(spec) for selector, spec in rules.items()}


def _entries(spec: PartitionSpec) -> list[Any]:
    return [list(entry) if isinstance(entry, tuple) else entry for entry in spec]


def _write_rules(path: str, rules: Mapping[Any, PartitionSpec]) -> None:
    rows = [f"  {json.dumps(selector)}: {json.dumps(entries)}" for selector, entries in _as_json(rules).items()]
    text = "{\n" + ",\n".join(rows) + "\n}\n"
    with draft(Path(path)) as descriptor, open(descriptor, "wb", closefd=False) as file:
        file.write(text.encode())


# -------------------------------------------------------------------------------- the tree


@dataclass(frozen=True)
class _FileLeaf:
    """A leaf of a file without its numbers."""

    shape: tuple[int, ...]
    dtype: np.dtype


def _tree_of(source: Source) -> tuple[Tree, list[LeafInfo]]:
    """The leaves of a file with their ties, and those of which the shape is not known."""
    left_out = [info for info in source.leaves.values() if info.shape is None and info.is_damaged]
    values: dict[str, Any] = {}
    for info in source.leaves.values():
        if info.shape is not None:
            values[info.path] = _FileLeaf(info.shape, _dtype_of(info))
    for alias in source.aliases.values():
        if alias.source in values and alias.axes is not None:
            values[alias.path] = Tie(alias.source, tuple(map(permuted, alias.axes)))
    if not values:
        raise PatternError(f"there is nothing to plan: {printable(source.title)} has no arrays")
    return Tree({path: values[path] for path in source.order if path in values}), left_out


def _dtype_of(info: LeafInfo) -> np.dtype:
    """The dtype of a leaf; of one that NumPy lacks raw bytes of its size."""
    found = _DTYPES.get(info.dtype)
    if found is not None:
        return found
    return np.dtype((np.void, info.nbytes // info.count if info.count else 1))


# ------------------------------------------------------------------------------- its table


class _Shown:
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
        narrowed = [leaf for leaf in plan.leaves if itemsize(leaf.dtype) < np.dtype(leaf.dtype).itemsize]
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
            "rules": _as_json(self._rules),
            "leaves": [dict(zip(_COLUMNS, self._cells(leaf), strict=True)) for leaf in plan.leaves],
        }

    def to_csv(self) -> str:
        """A line for each leaf."""
        rows: list[tuple[Any, ...]] = []
        for leaf in self._plan.leaves:
            *cells, undivided = self._cells(leaf)
            cells[_COLUMNS.index("spec")] = json.dumps(_entries(leaf.sharding.spec))
            rows.append((*cells, "; ".join(undivided)))
        return csv_text(_COLUMNS, rows)

    def _cells(self, leaf: shard.PlannedLeaf) -> tuple[Any, ...]:
        spec, dtype = _entries(leaf.sharding.spec), short_dtype(leaf.dtype)
        return leaf.path, leaf.shape, dtype, spec, leaf.bytes, leaf.bytes_per_device, leaf.rule, [*leaf.undivided]


def _rows_of_table(title: str, rows: Iterable[Row], width: int, *, with_reasons: bool = False) -> list[str]:
    head = (title, "per device", "why" if with_reasons else "divided by")
    cells: list[tuple[str, ...]] = [head]
    for row in rows:
        path = row.path if row.leaves == 1 else f"{row.path} x{row.leaves}"
        why = why_replicated(row.leaf) if with_reasons else spec_in_words(row.leaf.sharding)
        cells.append((path, in_bytes(row.bytes_per_device), why))
    if width < _NARROW:  # the paths say more
        cells = [row[:2] for row in cells]
    return table(cells, right={1}, width=width)
