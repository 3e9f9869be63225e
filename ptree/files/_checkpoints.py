"""Checkpoints: a folder with the last states of a training run, saved in the background, to resume from after a crash."""

from __future__ import annotations

import operator
import os
import re
import shutil
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax

from .._errors import FileError
from .._tree import PyTree
from .._words import describe, lines, quoted
from ._drafts import sweep
from ._load import load
from ._locations import INDEX_SUFFIX, index_path, is_orbax
from ._orbax import begin_save, orbax
from ._save import described, planned
from ._shards import remove_tree, sweep_shards

if TYPE_CHECKING:
    from orbax.checkpoint import AsyncCheckpointer

_FILE = rf"\.safetensors({re.escape(INDEX_SUFFIX)})?"
# no leading zeros: each step has one name
_STEP = re.compile(rf"step_(0|[1-9]\d*)({_FILE})?")
# what a crash leaves: drafts of ptree, and temporary folders of Orbax
_DRAFT = re.compile(rf"\.?(step_\d+)({_FILE}\.[0-9a-f]{{32}}\.tmp|\.orbax-checkpoint-tmp.*)")


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
    ...             checkpoints.save(step, state)
    ...     return state, checkpoints.steps()
    >>> train(25)[1]
    [10, 20]
    >>> _, steps = train(40)         # goes on from step 20, with the same numbers as without the interruption
    >>> steps
    [30, 40]

    A state is any tree: parameters, the optimiser's state, statistics, PRNG keys, the position in the data. A step is in
    the folder as a whole or not at all, whenever the process is killed. If the newest step is damaged, `load` warns and
    takes the one before. Use it in `with`, or close it: that waits for the last step.

    Args:
        folder: for this run alone; it is made with the first step.
        keep: how many of the newest steps stay; None keeps all.
        every: which steps `save` writes; it passes over the others.
        backend: `"ptree"` writes a safetensors file for each step, `step_100.safetensors`, from one process.
            `"orbax"` writes a folder `step_100` with Orbax, for arrays that are sharded over several hosts; all
            processes call `save` and `load`. It needs `pip install 'ptree-jax[orbax]'`, and arrays sharded over several
            hosts get no checksum. Each backend loads what the other wrote.
        max_shard_size: as in `ptree.save`.

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
        backend: Literal["ptree", "orbax"] = "ptree",
        max_shard_size: int | str | None = None,
    ):
        if backend not in ("ptree", "orbax"):
            raise FileError(f"expected backend 'ptree' or 'orbax', got {quoted(backend)}")
        _check_count("keep", 1 if keep is None else keep)
        _check_count("every", every)
        # pathlib would make a local folder "gs:" of "gs://bucket/run"
        if re.match(r"\w+://", os.fspath(folder)):
            raise FileError(f"{quoted(folder)} is no folder of this machine: mount it")
        self.folder, self.keep, self.every = Path(folder), keep, every
        self._max_shard_size = max_shard_size
        self._passed_over: set[int] = set()
        self._closed = False
        self._saver: AsyncCheckpointer | None = None
        if backend == "orbax":
            self._saver = orbax().AsyncCheckpointer(orbax().StandardCheckpointHandler())
        # one thread: steps are written one after the other
        self._pool = ThreadPoolExecutor(1, "ptree.checkpoints")
        self._pending: Future[None] | None = None

    def steps(self) -> list[int]:
        """The steps in the folder, the newest last; a step that is being written is not one of them."""
        if not self.folder.is_dir():  # it is made with the first step
            return []
        found: set[int] = set()  # a step may be there as a file and as a folder by Orbax
        for name in os.listdir(self.folder):
            step = _STEP.fullmatch(name)
            if step is None:
                continue
            is_file = step[2] is not None
            if is_file or is_orbax(self.folder / name):
                found.add(int(step[1]))
        return sorted(found)

    def save(self, step: int, tree: PyTree, *, always: bool = False) -> bool:
        """Write a state in the background, if `every` divides the step; the tree is taken as it is now, and may be donated.

        It waits until the step before is written.

        Args:
            step: how many steps of training are done.
            tree: any tree that `ptree.save` takes.
            always: write it whatever `every` says, as after the last step.

        Returns:
            Whether it is written.

        Raises:
            FileError: leaves that a file cannot hold; the folder has later steps, which `load` would take for the newest; or
                these Checkpoints are closed.
            TypeError: a step that is not a whole number.
            OSError: what went wrong when the step before was written.
        """
        step = _checked_step(step)
        if self._closed:
            raise FileError(f"cannot save step {step}: these Checkpoints are closed")
        if step % self.every and not always:
            return False
        self.wait()
        self._refuse_later_steps(step)
        if not jax.process_index():  # of several processes the first one alone makes and sweeps the folder
            self.folder.mkdir(parents=True, exist_ok=True)
            self._sweep()
        write = self._begin(step, tree)
        self._pending = self._pool.submit(self._finish, step, write)
        return True

    def _refuse_later_steps(self, step: int) -> None:
        """Raise FileError for undamaged later steps: the next `load` would take one of those for the newest."""
        later = [saved for saved in self._undamaged_steps() if saved > step]
        if later:
            raise FileError(
                f"cannot save step {step} in {str(self.folder)!r}: it has later ones, {_joined(later)}."
                " Remove them with Checkpoints.remove(step), or use another folder"
            )

    def load(self, like: PyTree = None, *, step: int | None = None, **options: Any) -> tuple[int, PyTree]:
        """Load the newest step: its number and its tree.

        Args:
            like: the template, as in `ptree.load`; arrays go where those of `like` are.
            step: load this step, and no other.
            **options: more of `ptree.load`'s.

        Returns:
            The step and the tree, as they were given to `save`.

        Raises:
            FileError: no step is there, or each is damaged. With `step`, that one is not there, or is damaged. A file that
                only a newer ptree can read, or that needs Orbax where it is not installed, is not passed over.
            StructureError: leaves that do not fit `like`.
        """
        self.wait()
        steps = self.steps() if step is None else [self._existing(step)]
        if not steps:
            raise FileError(f"no step in {str(self.folder)!r}")
        candidates = [(saved, path) for saved in reversed(steps) for path in self._paths(saved)]
        for saved, path in candidates[:-1]:
            try:
                tree = load(path, like, **options)
                self._passed_over.discard(saved)
                return saved, tree
            except FileError as error:
                if not error.is_damage:  # an older step would hide that ptree or Orbax is too old or missing
                    raise
                self._passed_over.add(saved)
                warnings.warn(f"step {saved} is passed over: {error}", stacklevel=2)
        # the last one raises its error: there is nothing older to fall back on
        saved, path = candidates[-1]
        return saved, load(path, like, **options)

    def remove(self, step: int) -> None:
        """Remove one step.

        Raises:
            FileError: it is not there.
        """
        self.wait()
        for path in self._paths(self._existing(step)):
            _remove(path)

    def wait(self) -> None:
        """Wait until all is written; raises what went wrong."""
        pending, self._pending = self._pending, None  # an error is raised once
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Wait until all is written, and end the thread; nothing more can be saved."""
        self._closed = True
        try:
            self.wait()
        finally:
            self._pool.shutdown()
            if self._saver is not None:
                self._saver.close()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Checkpoints({str(self.folder)!r}, keep={self.keep}, every={self.every})"

    def _undamaged_steps(self) -> list[int]:
        """The steps without those that `load` has passed over."""
        return [step for step in self.steps() if step not in self._passed_over]

    def _existing(self, step: int) -> int:
        if step not in self.steps():
            raise FileError(f"no step {quoted(step)} in {str(self.folder)!r}: it has {_joined(self.steps()) or 'none'}")
        return int(step)

    def _paths(self, step: int) -> list[Path]:
        """The paths of a step, the newest first: of its file, which may be in shards, and of its folder by Orbax."""
        file, folder = self.folder / f"step_{step}.safetensors", self.folder / f"step_{step}"
        file_times = [_modified(path) for path in (file, index_path(file)) if path.exists()]
        times: dict[Path, int] = {}
        if file_times:
            times[file] = max(file_times)
        if is_orbax(folder):
            times[folder] = _modified(folder)
        return sorted(times, key=lambda path: -times[path])

    def _path_by_backend(self, step: int) -> Path:
        """The path that this backend writes a step to."""
        name = f"step_{step}" if self._saver else f"step_{step}.safetensors"
        return self.folder / name

    def _begin(self, step: int, tree: PyTree) -> Callable[[], object]:
        """Check the tree and take its values as they are now; return a function that writes them."""
        path = self._path_by_backend(step)
        if self._saver is not None:
            leaves, facts = described(tree, may_be_spread=True)
            return begin_save(self._saver, path, leaves, facts)
        if jax.process_index():  # the backend "ptree" writes from the first process alone
            return lambda: None
        plan = planned(path, tree, {"step": str(step)}, max_shard_size=self._max_shard_size).snapshot()
        return lambda: plan.write(show_bar=False)

    def _finish(self, step: int, write: Callable[[], object]) -> None:
        """Write a step, then remove what it replaces and steps that are too old; runs in the thread."""
        write()  # first: a crash must not leave fewer steps than before
        self._passed_over.discard(step)
        if jax.process_index():
            return
        replaced = [path for path in self._paths(step) if path != self._path_by_backend(step)]
        for path in [*replaced, *self._expired()]:
            _remove(path)

    def _expired(self) -> list[Path]:
        """The paths of steps that are older than the newest `keep`; damaged ones do not count for these."""
        if self.keep is None:
            return []
        oldest = self._undamaged_steps()[-self.keep :][0]
        return [path for step in self.steps() if step < oldest for path in self._paths(step)]

    def _sweep(self) -> None:
        """Remove drafts and temporary folders that crashes have left; no other process writes to this folder."""
        for name in os.listdir(self.folder):
            left = _DRAFT.fullmatch(name)
            if left is None:
                continue
            if left[2].startswith(".orbax"):
                shutil.rmtree(self.folder / name)
                continue
            file = self.folder / f"{left[1]}.safetensors"
            sweep(file)
            sweep_shards(file)


def _check_count(name: str, count: int) -> None:
    # `__index__`: NumPy's integers too, but no floats
    if not hasattr(count, "__index__") or operator.index(count) < 1:
        raise FileError(f"expected {name} to be a whole number of at least 1, got {quoted(count)}")


def _checked_step(step: int) -> int:
    # a tree in the place of the step: the arguments are swapped; a float or str gets the TypeError of `index`
    if not hasattr(step, "__index__") and not isinstance(step, (float, str)):
        raise FileError(f"Checkpoints.save(step, tree): the step comes first, a whole number; got {describe(step)}")
    step = operator.index(step)
    if step < 0:
        raise FileError(f"cannot save step {step}: expected one from 0 on")
    return step


def _remove(path: Path) -> None:
    if is_orbax(path):
        shutil.rmtree(path)
    else:
        remove_tree(path)


def _modified(path: Path) -> int:
    return path.stat().st_mtime_ns


def _joined(steps: list[int]) -> str:
    return lines([*map(str, steps)], ", ")
