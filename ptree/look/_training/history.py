"""History: record what `observe` gives at each step of a training run, in bounded memory; read it by statistic and path."""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..._errors import FileError, PathError, StructureError
from ..._numbers import whole_number
from ..._words import describe, listed, quoted, suggestion
from .history_columns import Columns, leaves_of_parts, select_paths, statistic_names, stored_for
from .history_parts import STATISTICS, Group, Part, add_part, drop_from, part_files, read_parts
from .history_writers import write_csv, write_parquet, write_tensorboard

if TYPE_CHECKING:
    from ..._paths import Selector
    from .observe import Observed

Scalar: TypeAlias = Any
"""A number of Python, or an array of one number."""

_MOST_WAITING = 64
"""Steps whose numbers may be on their way from the device before `record` waits for the first of them."""
_MOST_STEPS, _MOST_BYTES, _MOST_SECONDS = 256, 4 << 20, 30.0
"""Of these, what is reached first decides when steps are written: a crash loses no more than that."""


@dataclass(frozen=True)
class _Row:
    """One step, on its way from the device."""

    step: int
    groups: tuple[Group, ...]
    numbers: Any
    """An array of JAX or NumPy, `[leaf, 3]`."""
    scalars: Mapping[str, Scalar]

    def arrays(self) -> list[Any]:
        return [self.numbers, *self.scalars.values()]


class History:
    """The numbers that `observe` gives at each step of a run, kept in a folder.

    >>> import tempfile, jax.numpy as jnp
    >>> from ptree.look import observe
    >>> folder = tempfile.mkdtemp()
    >>> with History(folder) as history:
    ...     for step in range(3):
    ...         params = {"enc": {"w": jnp.full(4, 1.0 * step)}, "b": jnp.ones(1)}
    ...         history.record(step, observe(params), loss=1 / (step + 1))
    >>> history.values("params/norm", "enc/**")
    array([[0.],
           [2.],
           [4.]])
    >>> History(folder).steps, History(folder).statistics
    (array([0, 1, 2]), ['params/mean', 'params/norm', 'params/largest', 'params/std', 'loss'])

    `record` copies one small array from the device and does not wait for it; steps are written in another thread, every
    256 steps or 30 seconds, which is what a crash can lose. A run that goes on from an earlier checkpoint records steps
    again: what was recorded from there on is dropped. The files are safetensors, `[step, leaf]` for each statistic, and
    `ptree.load` reads them. Opening a folder that is there goes on in it; reading it does not import JAX.

    Args:
        folder: it is made if it is not there. One process writes to it: of several only that with the index 0 should
            record, and what is observed must be replicated.
    """

    __module__ = "ptree.look"

    def __init__(self, folder: str | os.PathLike[str]):
        if not isinstance(folder, (str, os.PathLike)):
            raise FileError(f"expected a folder for a history, got {describe(folder)}")
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise FileError(f"expected a folder for a history, got a file: {quoted(str(folder))}")
        files = part_files(self.folder)
        self._last = files[-1].last if files else -1
        self._on_the_way: deque[_Row] = deque()
        self._rows: list[_Row] = []
        self._writing: Future[None] | None = None
        self._written_at = time.monotonic()
        self._pool: Any = None

    # ------------------------------------------------------------------------------- recording

    def record(self, step: int, observed: Observed, **scalars: Scalar) -> None:
        """Keep what was observed at a step, with numbers such as the loss, on the device or not.

        Args:
            step: the number of the step, from 0 on.
            observed: what `observe` returned.
            **scalars: numbers by name.

        Raises:
            StructureError: the step is no whole number from 0 on; `observed` is not what `observe` returns, or has more axes than `[leaf, 3]`.
            FileError, OSError: the steps before could not be written.
        """
        number = whole_number(step)
        if number is None or number < 0:
            raise StructureError(f"expected a step, a whole number from 0 on, got {quoted(step)}")
        from .observe import Observed  # with JAX, which reading a history does without

        if not isinstance(observed, Observed):
            raise StructureError(
                f"expected what ptree.look.observe(params, ...) returns, got {describe(observed)}."
                " Numbers such as the loss are given by name: record(step, observed, loss=loss)"
            )
        if len(observed.numbers.shape) != 2:
            raise StructureError(
                f"expected what one step observed, got an array of {describe(observed.numbers)}."
                " Inside of scan take it apart: jax.tree.map(lambda array: array[i], observed)"
            )
        for name, scalar in scalars.items():
            if np.shape(scalar) != ():
                raise StructureError(f"expected one number for {name!r}, got {describe(scalar)}")
        if number <= self._last:
            self._drop_from(number)
        row = _Row(number, observed.names, observed.numbers, scalars)
        for array in row.arrays():
            if _is_on_device(array):
                array.copy_to_host_async()
        self._on_the_way.append(row)
        self._last = number
        self._fetch(most=_MOST_WAITING)
        if self._is_time_to_write():
            self._write()

    def _fetch(self, most: int) -> None:
        """Take over the steps that have arrived; wait for the first of them while more than so many are on the way."""
        while self._on_the_way:
            row = self._on_the_way[0]
            has_arrived = all(array.is_ready() for array in row.arrays() if _is_on_device(array))
            if not has_arrived and len(self._on_the_way) <= most:
                return
            self._on_the_way.popleft()
            scalars = {name: float(scalar) for name, scalar in row.scalars.items()}
            self._rows.append(_Row(row.step, row.groups, np.asarray(row.numbers), scalars))

    def _is_time_to_write(self) -> bool:
        if not self._rows:
            return False
        size = len(self._rows) * self._rows[0].numbers.nbytes
        is_late = time.monotonic() - self._written_at > _MOST_SECONDS
        return len(self._rows) >= _MOST_STEPS or size >= _MOST_BYTES or is_late

    def _write(self) -> None:
        """Begin to write the steps that have arrived, after those before are written."""
        self._wait()
        rows, self._rows = self._rows, []
        self._written_at = time.monotonic()
        if not rows:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._writing = self._threads().submit(_write_rows, self.folder, rows)
        except RuntimeError:  # Python ends, and begins no new threads
            _write_rows(self.folder, rows)

    def _threads(self) -> Any:
        if self._pool is None:
            from ...files._threads import thread_pool

            self._pool = thread_pool("ptree.history")
        return self._pool

    def _wait(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _drop_from(self, step: int) -> None:
        self._fetch(most=0)
        self._wait()
        self._rows = [row for row in self._rows if row.step < step]
        drop_from(self.folder, step)

    def flush(self) -> None:
        """Wait until all that was recorded is on the disk."""
        self._fetch(most=0)
        self._write()
        self._wait()

    def close(self) -> None:
        """Write all that was recorded, and end the thread that writes; the history can be read, and gone on with."""
        self.flush()
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def __enter__(self) -> History:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --------------------------------------------------------------------------------- reading

    def parts(self, only: Collection[str] | None = None) -> Iterator[Part]:
        """All that was recorded, by step, at most 32 MiB of it at a time.

        Args:
            only: the names of the statistics that are read; all by default.
        """
        self._fetch(most=0)
        self._wait()
        yield from read_parts(self.folder, only)
        yield from parts_of_rows(self._rows)

    @property
    def steps(self) -> np.ndarray:
        """The steps that were recorded, `i64[step]`."""
        return np.concatenate([np.zeros(0, np.int64), *(part.steps for part in self.parts(()))])

    @property
    def paths(self) -> list[str]:
        """The paths of the leaves that were observed."""
        return list(leaves_of_parts(self.parts(())))

    @property
    def statistics(self) -> list[str]:
        """The names of what `values` gives: `grads/norm`, `updates/ratio`, `loss`."""
        return statistic_names(self.parts(()))

    def values(self, statistic: str, selector: Selector | None = None) -> np.ndarray:
        """A statistic at each step: `f64[step, leaf]`, or `f64[step]` of a scalar; NaN where it was not recorded.

        >>> History("no/such/folder").values("loss")
        Traceback (most recent call last):
        ptree.PathError: no statistic 'loss' in the history in 'no/such/folder': there are []

        `updates/ratio` is |update| / |parameter|: of a leaf of zeros, such as a bias at the first step, NaN, undefined, and 0
        where that leaf is not updated. `grads/std` is the standard deviation of the numbers of a leaf.

        Args:
            statistic: its name, from `statistics`.
            selector: which leaves: a pattern, a regex, a predicate, a mask of the parameters, or a sequence of these; all by
                default. A predicate gets the path and an object whose `count` is how many numbers the leaf has.

        Raises:
            PathError: there is no such statistic.
            PatternError: the selector is malformed, or a part of it matches nothing.
        """
        names = self.statistics
        if statistic not in names:
            where = f"no statistic {quoted(statistic)} in the history in {quoted(str(self.folder))}"
            raise PathError(f"{where}: there are {listed(names)}.{suggestion(statistic, names)}".rstrip("."))
        if "/" not in statistic:
            return np.concatenate([_scalar(part, statistic) for part in self.parts(())])
        paths = select_paths(leaves_of_parts(self.parts(())), selector)
        parts = self.parts(stored_for(statistic))
        return np.concatenate([Columns(part).values(statistic, paths) for part in parts])

    def are_recorded(self, statistic: str) -> np.ndarray:
        """Whether a statistic of each leaf was recorded at each step, `bool[step, leaf]` for all `paths`.

        It tells a leaf that was not observed, such as the gradient of a frozen one, from one that is NaN: `values` has NaN for both.

        Args:
            statistic: the name of a statistic of leaves, such as "grads/norm".
        """
        paths = self.paths
        found = [np.zeros((0, len(paths)), bool)]
        for part in self.parts(()):
            recorded = Columns(part).are_recorded(statistic, paths)
            found.append(np.broadcast_to(recorded, (len(part.steps), len(paths))))
        return np.concatenate(found)

    def to_csv(self, file: str | os.PathLike[str]) -> None:
        """Write a line for each step and leaf, with a column for each statistic: `step,path,params/mean,...`.

        Args:
            file: the file, which is replaced.
        """
        write_csv(file, self.statistics, self.paths, self.parts())

    def to_tensorboard(self, folder: str | os.PathLike[str]) -> None:
        """Write scalars that TensorBoard shows, tagged `grads/norm/enc/w`; it takes about 0.1 ms for each number.

        Args:
            folder: where TensorBoard looks for runs.

        Raises:
            ImportError: the package is not installed: `pip install 'ptree-jax[tensorboard]'`.
        """
        write_tensorboard(folder, self.statistics, self.paths, self.parts())

    def to_parquet(self, file: str | os.PathLike[str]) -> None:
        """Write the table of `to_csv` as Parquet, for pandas, polars and DuckDB.

        Args:
            file: the file, which is replaced.

        Raises:
            ImportError: pyarrow is not installed: `pip install 'ptree-jax[parquet]'`.
        """
        write_parquet(file, self.statistics, self.paths, self.parts())

    def __repr__(self) -> str:
        steps = self.steps
        shown = f"steps {steps[0]} to {steps[-1]}" if len(steps) else "no steps"
        return f"<History {quoted(str(self.folder))}: {shown}, {len(self.paths)} leaves>"


def _is_on_device(array: Any) -> bool:
    return hasattr(array, "copy_to_host_async")  # of a jax.Array: reading a history does not import JAX


def _scalar(part: Part, name: str) -> np.ndarray:
    return part.scalars.get(name, np.full(len(part.steps), math.nan))


# --------------------------------------------------------------------------- from rows to parts


def _write_rows(folder: Path, rows: Sequence[_Row]) -> None:
    for part in parts_of_rows(rows):
        add_part(folder, part)


def parts_of_rows(rows: Sequence[_Row]) -> Iterator[Part]:
    """Rows as parts; a new one begins where other leaves or scalars are recorded."""
    alike: list[_Row] = []
    for row in rows:
        if alike and (row.groups != alike[0].groups or row.scalars.keys() != alike[0].scalars.keys()):
            yield _part(alike)
            alike = []
        alike.append(row)
    if alike:
        yield _part(alike)


def _part(rows: Sequence[_Row]) -> Part:
    """`[step, leaf]` for each statistic, from the sums that were observed."""
    sums = np.stack([row.numbers for row in rows])
    numbers: dict[str, np.ndarray] = {}
    first = 0
    for name, paths, counts in rows[0].groups:
        of_group = sums[:, first : first + len(paths)]
        first += len(paths)
        with np.errstate(all="ignore"):  # NaN and inf are what one looks for later
            found = (of_group[..., 0] / np.maximum(counts, 1), np.sqrt(of_group[..., 1]), of_group[..., 2])
        numbers |= {f"{name}/{kind}": array.astype(np.float32) for kind, array in zip(STATISTICS, found)}
    scalars = {name: np.array([row.scalars[name] for row in rows]) for name in rows[0].scalars}
    return Part(np.array([row.step for row in rows], np.int64), rows[0].groups, numbers, scalars)
