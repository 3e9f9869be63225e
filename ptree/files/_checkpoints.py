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

from .._errors import FileError
from .._words import lines, quoted
from ._draft import sweep
from ._index import SUFFIX
from ._load import load
from ._orbax import is_orbax, orbax, write
from ._place import index_of, remove, sweep_index
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
    takes the one before. Use it in `with`, or close it: that waits for the last step.

    Args:
        folder: of this run alone; it is made with the first step.
        keep: how many of the newest stay; None keeps all.
        every: which steps `save` writes; it passes over the others.
        backend: `"ptree"` writes a safetensors file for each step, `step_100.safetensors`, from one process.
            `"orbax"` writes a folder `step_100` with Orbax, for arrays that are spread over the processes of many hosts;
            all processes call `save` and `load`. It needs `ptree-jax[orbax]`, and what is spread over processes has no
            checksums. Either loads what the other wrote.
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
        for name, number in {"keep": 1 if keep is None else keep, "every": every}.items():
            if not hasattr(number, "__index__") or operator.index(number) < 1:
                raise FileError(f"expected {name} to be a whole number of at least 1, got {quoted(number)}")
        if re.match(r"\w+://", os.fspath(folder)):
            raise FileError(f"{quoted(folder)} is no folder of this machine: mount it")
        self.folder, self.keep, self.every = Path(folder), keep, every
        self._passed_over: set[int] = set()
        self._closed = False
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
            FileError: leaves that a file cannot hold; the folder has later steps, which `load` would take for the newest; or
                these Checkpoints are closed.
            OSError: what went wrong when the step before was written.
        """
        step = operator.index(step)
        if step < 0:
            raise FileError(f"cannot save step {step}: expected one from 0 on")
        if self._closed:
            raise FileError(f"cannot save step {step}: these Checkpoints are closed")
        if step % self.every and not always:
            return False
        self.wait()
        if later := [known for known in self._whole() if known > step]:
            raise FileError(
                f"cannot save step {step} in {str(self.folder)!r}: it has later ones, {_told(later)}."
                " Remove them with Checkpoints.remove(step), or use another folder"
            )
        if not jax.process_index():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._sweep()
        self._pending = self._pool.submit(self._end, step, self._begun(step, tree))
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
            FileError: no step is there, or each is damaged. With `step`, that one is not there, or is damaged. A file that
                only a newer ptree can read, or without what Orbax needs, is not passed over.
            StructureError: leaves that do not fit `like`.
        """
        self.wait()
        steps = self.steps() if step is None else [self._known(step)]
        if not steps:
            raise FileError(f"no step in {str(self.folder)!r}")
        ways = [(at, path) for at in reversed(steps) for path in self._paths(at)]
        for at, path in ways[:-1]:
            try:
                tree = load(path, like, **options)
                self._passed_over.discard(at)
                return at, tree
            except FileError as error:
                if not error.is_damage:
                    raise
                self._passed_over.add(at)
                warnings.warn(f"step {at} is passed over: {error}", stacklevel=2)
        at, path = ways[-1]
        return at, load(path, like, **options)

    def remove(self, step: int) -> None:
        """Remove one step.

        Raises:
            FileError: it is not there.
        """
        self.wait()
        for path in self._paths(self._known(step)):
            _remove(path)

    def wait(self) -> None:
        """Until all is written; raises what went wrong with it."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Wait, and give back the thread; nothing more can be saved."""
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

    def _whole(self) -> list[int]:
        """The steps but for those that were passed over."""
        return [step for step in self.steps() if step not in self._passed_over]

    def _known(self, step: int) -> int:
        if step not in self.steps():
            raise FileError(f"no step {quoted(step)} in {str(self.folder)!r}: it has {_told(self.steps()) or 'none'}")
        return int(step)

    def _paths(self, step: int) -> list[Path]:
        """Where a step is, the newest first: a file, which has an index where it is in shards, or a folder by Orbax."""
        file, folder = self.folder / f"step_{step}.safetensors", self.folder / f"step_{step}"
        found = {path: _age(path) for path in (file, index_of(file)) if path.exists()}
        times = {file: max(found.values())} if found else {}
        if is_orbax(folder):
            times[folder] = _age(folder)
        return sorted(times, key=lambda path: -times[path])

    def _own_path(self, step: int) -> Path:
        """Where this backend writes a step."""
        return self.folder / (f"step_{step}" if self._saver else f"step_{step}.safetensors")

    def _begun(self, step: int, tree: Any) -> Callable[[], None]:
        path = self._own_path(step)
        if self._saver is not None:
            return write(self._saver, path, *taken_apart(tree, expand_ties=False, parts=True))
        if jax.process_index():
            return lambda: None
        return prepared(
            path, tree, {"step": str(step)}, expand_ties=False, max_shard_size=self._max_shard_size, hold=True
        )

    def _end(self, step: int, written: Callable[[], None]) -> None:
        written()
        self._passed_over.discard(step)
        if jax.process_index():
            return
        old = [path for path in self._paths(step) if path != self._own_path(step)]
        if self.keep is not None:
            first = self._whole()[-self.keep :][0]
            old += [path for known in self.steps() if known < first for path in self._paths(known)]
        for path in old:
            _remove(path)

    def _sweep(self) -> None:
        """Remove what crashes have left: nobody else writes here."""
        for left in filter(None, map(_LEFT.fullmatch, os.listdir(self.folder))):
            if left[2].startswith(".orbax"):
                shutil.rmtree(self.folder / left[0])
            else:
                sweep(self.folder / f"{left[1]}.safetensors")
                sweep_index(self.folder / f"{left[1]}.safetensors")


def _remove(path: Path) -> None:
    if is_orbax(path):
        shutil.rmtree(path)
    else:
        remove(path)


def _age(path: Path) -> int:
    return path.stat().st_mtime_ns


def _told(steps: list[int]) -> str:
    return lines([*map(str, steps)], ", ")
