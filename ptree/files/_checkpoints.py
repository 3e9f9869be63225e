"""Checkpoints: a folder with the last or best states of a training run, saved in the background, to resume from after a crash."""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax

from .._errors import FileError
from .._numbers import whole_number
from .._stored.locations import checked_location
from .._stored.steps import LAST_STEP, SavedStep
from .._stored.urls import is_url, shown_url
from .._tree import PyTree
from .._words import describe, lines, quoted
from ._background import Background
from ._load import load
from ._metrics import NAME, Mode, checked_best, checked_metrics, metrics_text
from ._orbax import begin_save, orbax
from ._save import described, planned
from ._step_folders import step_folder
from ._steps import read_metrics
from ._turns import Turn

if TYPE_CHECKING:
    from orbax.checkpoint import AsyncCheckpointer

_TRIES = 100
"""How often to look for a step to load while another process removes those that were found."""


class Checkpoints:
    """A folder with the last states of a training run, each saved in the background while training goes on.

    >>> import tempfile, jax, jax.numpy as jnp, ptree as pt
    >>> folder = tempfile.mkdtemp()
    >>> def train(last):
    ...     with pt.Checkpoints(folder, keep=2, every=10) as checkpoints:
    ...         state = {"params": {"w": jnp.zeros(2)}, "key": jax.random.key(0)}
    ...         step, state = checkpoints.load(like=state) if checkpoints.steps() else (0, state)
    ...         while step < last:
    ...             key, noise = jax.random.split(state["key"])
    ...             state = {"params": {"w": state["params"]["w"] + jax.random.normal(noise, 2)}, "key": key}
    ...             step += 1
    ...             checkpoints.save(step, state, always=step == last)
    ...     return state, checkpoints.steps()
    >>> train(25)[1]
    [20, 25]
    >>> _, steps = train(40)         # goes on from step 25, with the same numbers as without the interruption
    >>> steps
    [30, 40]

    A state is any tree: parameters, the optimiser's state, statistics, PRNG keys, the position in the data. A step is in
    the folder as a whole or not at all, whenever the process is killed. If the newest step is damaged, `load` warns and
    takes the one before. Use it in `with`, or close it: that waits for the last step, and warns if the run has ended with
    steps that `every` passed over.

    With `best`, the best steps by a metric stay instead of the newest, and the newest one beside them, to go on from:

    >>> with pt.Checkpoints(tempfile.mkdtemp(), keep=2, best=("loss", "min")) as checkpoints:
    ...     for step, loss in enumerate([0.5, 0.2, 0.3, 0.4, float("nan")]):
    ...         _ = checkpoints.save(step, {"w": jnp.full(2, loss)}, metrics={"loss": loss})
    >>> checkpoints.steps(), checkpoints.load(step="best")[0], checkpoints.metrics(1)
    ([1, 2, 4], 1, {'loss': 0.2})

    Args:
        folder: for this run alone; it is made with the first step.
        keep: how many of the newest steps stay, or of the best ones; None keeps all.
        every: which steps `save` writes; it passes over the others. With every=100, a run of 1,050 steps loses the last
            50, unless the last one is saved with `always=True`.
        best: a metric, and whether its "min" or "max" is best. Each `save` must give it. A step with NaN, or an older one
            without the metric, is worse than all with a number; of equal ones the later is better. Metrics are kept in the files: a run that goes on knows them.
        backend: `"ptree"` writes a safetensors file for each step, `step_100.safetensors`, from one process.
            `"orbax"` writes a folder `step_100` with Orbax, for arrays that are sharded over several hosts; all
            processes call `save` and `load`. It needs `pip install 'ptree-jax[orbax]'`, and arrays sharded over several
            hosts get no checksum. Its folder may be at a URL that Orbax takes, `gs://bucket/run` or `s3://bucket/run`, with the
            packages and credentials for these. Each backend loads what the other wrote.
        max_shard_size: as in `ptree.save`.
        only_arrays: leave out what is no array and no number, as in `ptree.save`; `load(like=state)` keeps those of `like`.

    Raises:
        FileError: an option that cannot be, or a folder that is not on this machine.
    """

    __module__ = "ptree"

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        keep: int | None = 3,
        every: int = 1,
        best: tuple[str, Mode] | None = None,
        backend: Literal["ptree", "orbax"] = "ptree",
        max_shard_size: int | str | None = None,
        only_arrays: bool = False,
    ):
        folder = checked_location(folder, "Checkpoints(folder)")
        if backend not in ("ptree", "orbax"):
            raise FileError(f"expected backend 'ptree' or 'orbax', got {quoted(backend)}")
        _check_count("keep", 1 if keep is None else keep)
        _check_count("every", every)
        if is_url(folder) and backend != "orbax":
            raise FileError(
                f"{quoted(shown_url(folder))} is no folder of this machine: mount it, or use backend='orbax', which takes gs://"
                " and s3://"
            )
        self.folder = folder if is_url(folder) else Path(folder)
        self.keep, self.every = keep, every
        self._folder = step_folder(folder)
        self._best = checked_best(best)
        self._max_shard_size = max_shard_size
        self._only_arrays = only_arrays
        self._damaged: set[int] = set()  # steps that `load` has passed over
        self._metrics: dict[SavedStep, dict[str, float]] = {}  # read before
        self._skipped: int | None = None  # the last step, if `every` passed over it
        self._closed = False
        self._saver: AsyncCheckpointer | None = None
        if backend == "orbax":
            self._saver = orbax().AsyncCheckpointer(orbax().StandardCheckpointHandler())
        self._pending: Background[None] | None = None

    def steps(self) -> list[int]:
        """The steps in the folder, the newest last; a step that is still being written is not listed."""
        return sorted({saved.number for saved in self._folder.steps()})

    def metrics(self, step: int) -> dict[str, float]:
        """The metrics that a step was saved with; {} if it was saved without.

        Args:
            step: the number of the step.

        Raises:
            FileError: the step is not there.
        """
        self.wait()
        return self._metrics_of(self._existing(step)[0]) or {}

    def best_step(self) -> int | None:
        """The best step in the folder by the metric of `best`; None if no step has it, or all have NaN.

        Raises:
            FileError: these Checkpoints have no `best`.
        """
        self.wait()
        ranked = self._best_first()
        return ranked[0].number if ranked else None

    def save(self, step: int, tree: PyTree, *, metrics: Mapping[str, Any] | None = None, always: bool = False) -> bool:
        """Write a state in the background, if `every` divides the step; the tree is taken as it is now, and may be donated.

        It waits until the step before is written.

        Args:
            step: how many steps of training are done.
            tree: any tree that `ptree.save` takes.
            metrics: numbers by name, such as `{"loss": 0.3}`, kept with the step. With `best`, its metric must be among
                them; give NaN where it is not measured.
            always: write it whatever `every` says, as after the last step: `always=step == last`.

        Returns:
            Whether it is written.

        Raises:
            FileError: a step that is no whole number from 0 on; leaves that a file cannot hold; metrics that are no numbers,
                or lack that of `best`; the folder has later steps, which `load` would take for the newest; or these
                Checkpoints are closed.
            OSError: what went wrong when the step before was written.
        """
        step = _checked_step(step, tree)
        if self._closed:
            raise FileError(f"cannot save step {step}: these Checkpoints are closed")
        if step % self.every and not always:
            self._skipped = step
            return False
        metadata = {"step": str(step), **self._metrics_metadata(step, metrics)}
        self.wait()
        # other Checkpoints of this process may be writing to the same folder
        turn = Turn(self._folder.key())
        try:
            turn.wait()
            self._prepare_folder(step)
            write = self._begin(step, tree, metadata)
        except BaseException:
            turn.end()
            raise
        self._skipped = None
        self._pending = Background(self._path_by_backend(step), lambda: self._finish(step, write, turn))
        return True

    def _metrics_metadata(self, step: int, metrics: Mapping[str, Any] | None) -> dict[str, str]:
        """Check metrics, and encode them for the metadata of the step's file."""
        try:
            checked = None if metrics is None else checked_metrics(metrics)
            if self._best is not None:
                self._best.refuse_without_metric(checked)
        except FileError as error:
            raise FileError(f"cannot save step {step}: {error}") from None
        return {} if checked is None else {NAME: metrics_text(checked)}

    def _prepare_folder(self, step: int) -> None:
        """Raise FileError for undamaged later steps, of which the next `load` would take one for the newest; make the folder."""
        later = [number for number in self.steps() if number > step and number not in self._damaged]
        if later:
            raise FileError(
                f"cannot save step {step} in {str(self.folder)!r}: it has later ones, {_joined(later)}."
                " Remove them with Checkpoints.remove(step), or use another folder"
            )
        if not jax.process_index():  # of several processes the first one alone makes and sweeps the folder
            self._folder.prepare()

    def load(
        self, like: PyTree = None, *, step: int | Literal["best"] | None = None, **options: Any
    ) -> tuple[int, PyTree]:
        """Load the newest step: its number and its tree.

        Another process may train meanwhile, and remove old steps.

        Args:
            like: the template, as in `ptree.load`; arrays go where those of `like` are.
            step: load this step, and no other; "best" for the best one by the metric of `best`.
            **options: more of `ptree.load`'s.

        Returns:
            The step and the tree, as they were given to `save`.

        Raises:
            FileError: no step is there, or each is damaged. With `step`, that one is not there, or is damaged. A file that
                only a newer ptree can read, or that needs Orbax where it is not installed, is not passed over.
            StructureError: leaves that do not fit `like`.
        """
        self.wait()
        for _ in range(_TRIES):
            loaded = self._first_whole(self._candidates(step), like, options)
            if loaded is not None:
                return loaded
        raise FileError(f"the steps in {str(self.folder)!r} are removed by another process before they can be read")

    def _candidates(self, step: int | str | None) -> list[SavedStep]:
        """The steps to try to load, the first choice first; at least one."""
        if step == "best":
            found = self._best_first()
        elif step is None:
            found = self._folder.steps()
        else:
            found = self._existing(step)
        if found:
            return found
        if self._best is None or step is None:
            raise FileError(f"no step in {str(self.folder)!r}")
        raise self._no_best_step(self._best.metric)

    def _no_best_step(self, metric: str) -> FileError:
        """The error for steps that all lack the metric of `best`, or have NaN for it."""
        diverged = {saved.number for saved in self._folder.steps() if metric in (self._metrics_of(saved) or {})}
        if not diverged:
            return FileError(f"no step with the metric {metric!r} in {str(self.folder)!r}")
        which = "all steps" if diverged == {*self.steps()} else "all steps that have it"
        return FileError(
            f"no best step in {str(self.folder)!r}: the metric {metric!r} is NaN in {which}, {_joined(sorted(diverged))}"
        )

    def _first_whole(
        self, candidates: list[SavedStep], like: PyTree, options: Mapping[str, Any]
    ) -> tuple[int, PyTree] | None:
        """Load the first of these steps that is not damaged; None if another process has removed one meanwhile."""
        for saved in candidates:
            try:
                tree = load(saved.path, like, **options)
            except (FileError, OSError) as error:
                if self._folder.has_gone(saved):
                    return None
                # an older step would hide that ptree or Orbax is too old or missing; for the last there is no older one
                if not _is_damage(error) or saved is candidates[-1]:
                    raise
                self._damaged.add(saved.number)
                warnings.warn(f"step {saved.number} is passed over: {error}", stacklevel=3)
                continue
            self._damaged.discard(saved.number)
            return saved.number, tree
        return None

    def remove(self, step: int) -> None:
        """Remove one step.

        Args:
            step: the number of the step.

        Raises:
            FileError: it is not there.
        """
        self.wait()
        for saved in self._existing(step):
            self._folder.remove(saved)

    def wait(self) -> None:
        """Wait until all is written; raises what went wrong."""
        pending, self._pending = self._pending, None  # an error is raised once
        if pending is not None and pending.is_of_this_process:
            pending.result()

    def close(self) -> None:
        """Wait until all is written; nothing more can be saved. Warns if `every` passed over the last steps: see `always`."""
        self._end()
        self._warn_of_skipped()

    def _end(self) -> None:
        self._closed = True
        try:
            self.wait()
        finally:
            if self._saver is not None:
                self._saver.close()

    def _warn_of_skipped(self) -> None:
        if self._skipped is not None:
            newest = self.steps()[-1:]
            warnings.warn(
                f"step {self._skipped} is not saved, as every={self.every} passes over it; the newest that is:"
                f" {_joined(newest) or 'none'}. Save the last step with save(step, tree, always=True)",
                stacklevel=3,
            )

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._end()
        if kind is None:  # a run that an exception ends tells that alone
            self._warn_of_skipped()

    def __repr__(self) -> str:
        return f"Checkpoints({str(self.folder)!r}, keep={self.keep}, every={self.every})"

    def _existing(self, step: int | str) -> list[SavedStep]:
        """A step in each of its forms, the newest first; raises FileError if it is not there."""
        saved = self._folder.steps()
        number = whole_number(step)
        found = [one for one in saved if one.number == number]
        if not found:
            others = sorted({one.number for one in saved})
            raise FileError(f"no step {quoted(step)} in {str(self.folder)!r}: it has {_joined(others) or 'none'}")
        return found

    def _metrics_of(self, saved: SavedStep) -> dict[str, float] | None:
        """The metrics of a step, read once; None if they cannot be read."""
        if saved not in self._metrics:
            found = read_metrics(saved)
            if found is None:
                return None
            self._metrics[saved] = found
        return self._metrics[saved]

    def _best_first(self) -> list[SavedStep]:
        """The steps that have the metric of `best`, the best first."""
        if self._best is None:
            raise FileError("the best step is of Checkpoints(folder, best=('loss', 'min')), with a metric of yours")
        ranked = self._ranked(self._folder.steps())  # in each of its forms, to have another if one is damaged
        return [saved for saved in ranked if self._best.has_score(self._metrics_of(saved) or {})]

    def _ranked(self, steps: Iterable[SavedStep]) -> list[SavedStep]:
        """Sort steps: the best first, or the newest where there is no `best`."""
        newest_first = sorted(steps, key=lambda saved: -saved.number)
        best = self._best
        if best is None:
            return newest_first
        # sorted() keeps the order of equal ones
        return sorted(newest_first, key=lambda saved: best.rank(self._metrics_of(saved) or {}), reverse=True)

    def _path_by_backend(self, step: int) -> str:
        """The path that this backend writes a step to."""
        return self._folder.path_of(f"step_{step}" if self._saver else f"step_{step}.safetensors")

    def _begin(self, step: int, tree: PyTree, metadata: Mapping[str, str]) -> Callable[[], object]:
        """Check the tree and take its values as they are now; return a function that writes them."""
        path = self._path_by_backend(step)
        if self._saver is not None:
            if self._folder.is_taken(path):
                raise FileError(f"cannot save {path!r}: what is there is no checkpoint by Orbax, and is not replaced")
            leaves, facts = described(tree, may_be_spread=True, only_arrays=self._only_arrays)
            return begin_save(self._saver, path, leaves, facts, metadata)
        # in each process, so that all raise the same errors
        plan = planned(Path(path), tree, metadata, max_shard_size=self._max_shard_size, only_arrays=self._only_arrays)
        if jax.process_index():  # the backend "ptree" writes from the first process alone
            return lambda: None
        snapshot = plan.snapshot()
        return lambda: snapshot.write(show_bar=False)

    def _finish(self, step: int, write: Callable[[], object], turn: Turn) -> None:
        """Write a step, then remove what it replaces and steps that are too old; runs in the thread."""
        with turn:
            write()  # first: a crash must not leave fewer steps than before
            self._damaged.discard(step)
            if jax.process_index():
                return
            saved = self._folder.steps()
            written = self._path_by_backend(step)
            replaced = [one for one in saved if one.number == step and os.fspath(one.path) != written]
            kept = [one for one in saved if one not in replaced]
            for one in [*replaced, *self._expired(kept)]:
                self._folder.remove(one)

    def _expired(self, saved: list[SavedStep]) -> list[SavedStep]:
        """The steps that are neither the newest nor among the best `keep`; damaged ones do not count for these.

        A damaged step goes when it is older than all that stay. One whose metrics cannot be read now stays.
        """
        if self.keep is None:
            return []
        whole = _one_form_each(one for one in saved if one.number not in self._damaged)
        newest = max(one.number for one in whole)
        if self._best is not None:
            whole = [one for one in whole if self._metrics_of(one) is not None]
        staying = {one.number for one in self._ranked(whole)[: self.keep]}
        staying.add(newest)
        expired = {one.number for one in whole if one.number not in staying}
        expired |= {number for number in self._damaged if number < min(staying)}
        return [one for one in saved if one.number in expired]


def _one_form_each(saved: Iterable[SavedStep]) -> list[SavedStep]:
    """List each step once: of its forms (a file, a folder by Orbax) the first one."""
    first: dict[int, SavedStep] = {}
    for one in saved:
        first.setdefault(one.number, one)
    return [*first.values()]


class _StepTypeError(FileError, TypeError):
    """Error for a step that is no number; a caller may expect a TypeError, as of any argument of a wrong type."""


def _check_count(name: str, count: int) -> None:
    number = whole_number(count)
    if number is None or number < 1:
        raise FileError(f"expected {name} to be a whole number of at least 1, got {quoted(count)}")


def _checked_step(step: int, tree: PyTree) -> int:
    number = whole_number(step)
    if number is None:
        fix = ". The two are swapped" if whole_number(tree) is not None else ""
        given = quoted(step) if isinstance(step, (str, float, bool)) else describe(step)
        raise _StepTypeError(f"Checkpoints.save(step, tree): the step comes first, a whole number; got {given}{fix}")
    if number < 0:
        raise FileError(f"cannot save step {quoted(number)}: expected one from 0 on")
    if number > LAST_STEP:
        raise FileError(f"cannot save step {quoted(number)}: expected one up to {LAST_STEP:,}")
    return number


def _is_damage(error: FileError | OSError) -> bool:
    """Whether an error means damage: the saved bytes have changed since, or the disk is broken there."""
    return error.is_damage if isinstance(error, FileError) else error.errno == errno.EIO


def _joined(steps: list[int]) -> str:
    return lines([*map(str, steps)], ", ")
