"""Write a history for other programs: CSV, TensorBoard event files, Parquet."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import Any

import numpy as np

from .._plain_values import csv_value
from .history_columns import Columns
from .history_parts import Part

_TABLE_ROWS = 1 << 16


def write_csv(file: str | os.PathLike[str], names: list[str], paths: list[str], parts: Iterable[Part]) -> None:
    with open(file, "w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        writer.writerow(["step", "path", *names])
        shown = {path: csv_value(path) for path in paths}
        for steps, names_of_leaves, columns in _tables(names, paths, parts):
            texts = [np.char.mod("%.7g", column).tolist() for column in columns]
            writer.writerows(zip(steps.tolist(), map(shown.__getitem__, names_of_leaves), *texts))


def _tables(
    names: list[str], paths: list[str], parts: Iterable[Part]
) -> Iterator[tuple[np.ndarray, list[str], list[np.ndarray]]]:
    """Steps, paths and a column for each statistic, a row for each step and leaf; some thousand rows at a time."""
    at_once = max(1, _TABLE_ROWS // max(len(paths), 1))
    for part in parts:
        columns = [_column(part, name, paths) for name in names]
        for first in range(0, len(part.steps), at_once):
            steps = part.steps[first : first + at_once]
            cut = [column[first : first + at_once].reshape(-1) for column in columns]
            yield np.repeat(steps, len(paths)), paths * len(steps), cut


def _column(part: Part, name: str, paths: list[str]) -> np.ndarray:
    """`[step, leaf]`; a scalar is the same for each leaf."""
    if "/" in name:
        return Columns(part).values(name, paths)
    scalar = part.scalars.get(name, np.full(len(part.steps), np.nan))
    return np.repeat(scalar[:, None], len(paths), axis=1)


def write_tensorboard(
    folder: str | os.PathLike[str], names: list[str], paths: list[str], parts: Iterable[Part]
) -> None:
    events = _optional("tensorboard.summary.writer.event_file_writer", "tensorboard")
    protos = _optional("tensorboard.compat.proto.event_pb2", "tensorboard")
    summaries = _optional("tensorboard.compat.proto.summary_pb2", "tensorboard")
    writer = events.EventFileWriter(str(folder))
    try:
        for part in parts:
            series = dict(_series(part, names, paths))
            for row, step in enumerate(part.steps.tolist()):
                values = [
                    summaries.Summary.Value(tag=tag, simple_value=float(numbers[row]))
                    for tag, numbers in series.items()
                ]
                event = protos.Event(step=step, wall_time=time.time(), summary=summaries.Summary(value=values))
                writer.add_event(event)
    finally:
        writer.close()


def _series(part: Part, names: list[str], paths: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Each tag with its numbers by step: `grads/norm/enc/w`, `loss`; without those that were not recorded."""
    for name in names:
        numbers = Columns(part).values(name, paths) if "/" in name else _column(part, name, [name])
        tags = [f"{name}/{path}" for path in paths] if "/" in name else [name]
        for tag, column in zip(tags, numbers.T):
            if not np.isnan(column).all():
                yield tag, column


def write_parquet(file: str | os.PathLike[str], names: list[str], paths: list[str], parts: Iterable[Part]) -> None:
    arrow = _optional("pyarrow", "parquet")
    parquet = _optional("pyarrow.parquet", "parquet")
    schema = arrow.schema(
        [("step", arrow.int64()), ("path", arrow.string()), *((name, arrow.float64()) for name in names)]
    )
    with parquet.ParquetWriter(str(file), schema) as writer:
        for steps, names_of_leaves, columns in _tables(names, paths, parts):
            writer.write_table(arrow.table([steps, names_of_leaves, *columns], schema=schema))


def _optional(module: str, extra: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        package = "pyarrow" if extra == "parquet" else extra
        raise ImportError(
            f"this needs the package {package!r}, which is not installed: pip install 'ptree-jax[{extra}]'"
        ) from error
