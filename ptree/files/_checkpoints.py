"""Checkpoints, the last states of a training run: one to go on from after any crash."""

from __future__ import annotations

import operator
import os
import re
import shutil
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import jax

from .._errors import FileError, listed, quoted
from ._draft import sweep
from ._index import SUFFIX
from ._load import load, source
from ._orbax import is_orbax, orbax, write
from ._place import remove, sweep_index
from ._save import prepared, taken_apart

_NAME = re.compile(rf"step_(0|[1-9]\d*)(\.safetensors({re.escape(SUFFIX)})?)?")
_LEFT = re.compile(rf"\.?(step_\d+)(\.safetensors({re.escape(SUFFIX)})?\.[0-9a-f]{{32}}\.tmp|\.orbax-checkpoint-tmp.*)")


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

    A state is any tree: parameters, the optimiser's state, statistics, PRNG keys, the place in the data. A step is in
    the folder whole or not at all, whenever the process is killed. Where a file was damaged since, `load` says so and
    takes the one before.

    Args:
        folder: of this run alone; it is made with the first step.
        keep: how many of the newest stay; None keeps all.
        every: which steps `save` writes; it passes over the others.
        backend: `"ptree"` writes a safetensors file for each step, `step_100.safetensors`, from one process.
            `"orbax"` writes a folder `step_100` with Orbax, for arrays that are spread over the processes of many hosts;
            all processes call `save` and `load`. It needs `ptree[orbax]`. Either loads what the other wrote.
        max_shard_size: as in `ptree.save`.
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
        if min(every, 1 if keep is None else keep) < 1:
            raise FileError(f"expected keep and every of at least 1, got {keep} and {every}")
        if re.match(r"\w+://", os.fspath(folder)):
            raise FileError(f"{quoted(folder)} is no folder of this machine: mount it")
        self.folder, self.keep, self.every = Path(folder), keep, every
        self._max_shard_size = max_shard_size
        self._saver = None
        if backend == "orbax":
            self._saver = orbax().AsyncCheckpointer(orbax().StandardCheckpointHandler())
        self._pool = ThreadPoolExecutor(1, "ptree.checkpoints")
        self._pending: Future[None] | None = None

    def steps(self) -> list[int]:
        """The steps that are there, the newest last; one that is being written is not."""
        names = os.listdir(self.folder) if self.folder.is_dir() else ()
        found = (_NAME.fullmatch(name) for name in names)
        return sorted({int(name[1]) for name in found if name and (name[2] or is_orbax(self.folder / name[0]))})

    def save(self, step: int, tree: Any, *, always: bool = False) -> bool:
        """Write a state in the background, if `every` divides the step; the tree is taken as it is now, and may be donated.

        It waits for the step before to be written.

        Args:
            step: how many steps of training are behind.
            tree: any tree that `ptree.save` takes.
            always: write it whatever `every` says, as after the last step.

        Returns:
            Whether it is written.

        Raises:
            FileError: leaves that a file cannot hold; or the folder has later steps, which `load` would take for the newest.
            OSError: what went wrong when the step before was written.
        """
        step = operator.index(step)
        if step < 0:
            raise FileError(f"expected a step from 0 on, got {step}")
        if step % self.every and not always:
            return False
        self.wait()
        if later := [known for known in self.steps() if known > step]:
            raise FileError(
                f"cannot save step {step} in {str(self.folder)!r}: it has later steps, {listed(map(str, later))}."
                " Remove them with Checkpoints.remove(step), or use another folder"
            )
        if not jax.process_index():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._sweep()
        self._pending = self._pool.submit(self._end, self._begun(step, tree))
        return True

    def load(self, like: Any = None, *, step: int | None = None, **options: Any) -> tuple[int, Any]:
        """The newest step, and its tree.

        Args:
            like: what it is loaded into, as in `ptree.load`; arrays go where those of `like` are.
            step: this one, and no other.
            **options: more of `ptree.load`'s.

        Returns:
            The step and the tree, as they were given to `save`.

        Raises:
            FileError: no step is there, or each is damaged. With `step`, that one is not there, or is damaged.
            StructureError: leaves that do not fit `like`.
        """
        self.wait()
        steps = self.steps() if step is None else [step] if step in self.steps() else []
        if not steps:
            what = "no step" if step is None else f"no step {step}"
            raise FileError(f"{what} in {str(self.folder)!r}: it has {listed(map(str, self.steps()))}")
        first, *others = steps
        for at in reversed(others):
            try:
                return at, load(self._path(at), like, **options)
            except FileError as error:
                if not (error.damaged or _is_damaged(self._path(at))):
                    raise
                warnings.warn(f"step {at} is passed over: {error}", stacklevel=2)
        return first, load(self._path(first), like, **options)

    def remove(self, step: int) -> None:
        """Remove one step.

        Raises:
            FileError: it is not there.
        """
        self.wait()
        if step not in self.steps():
            raise FileError(f"no step {step} in {str(self.folder)!r}: it has {listed(map(str, self.steps()))}")
        self._remove(step)

    def wait(self) -> None:
        """Until all is written; raises what went wrong with it."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Wait, and give back the thread."""
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

    def _path(self, step: int) -> Path:
        """The folder by Orbax, or the file, which has an index where it is in shards."""
        folder = self.folder / f"step_{step}"
        return folder if is_orbax(folder) else self.folder / f"step_{step}.safetensors"

    def _begun(self, step: int, tree: Any) -> Callable[[], None]:
        if self._saver is not None:
            return write(self._saver, self.folder / f"step_{step}", *taken_apart(tree, False, parts=True))
        if jax.process_index():
            return lambda: None
        path = self.folder / f"step_{step}.safetensors"
        return prepared(path, tree, {"step": str(step)}, False, self._max_shard_size, hold=True)

    def _end(self, written: Callable[[], None]) -> None:
        written()
        if self.keep is not None and not jax.process_index():
            for step in self.steps()[: -self.keep]:
                self._remove(step)

    def _sweep(self) -> None:
        """Remove what crashes have left: nobody else writes here."""
        for left in filter(None, map(_LEFT.fullmatch, os.listdir(self.folder))):
            if left[2].startswith(".orbax"):
                shutil.rmtree(self.folder / left[0])
            else:
                sweep(self.folder / f"{left[1]}.safetensors")
                sweep_index(self.folder / f"{left[1]}.safetensors")

    def _remove(self, step: int) -> None:
        if is_orbax(self.folder / f"step_{step}"):
            shutil.rmtree(self.folder / f"step_{step}")
        remove(self.folder / f"step_{step}.safetensors")


def _is_damaged(path: Path) -> bool:
    """Whether it cannot even be opened."""
    try:
        source(path).close()
    except FileError:
        return True
    return False
