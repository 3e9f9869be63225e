"""Save a tree that is sharded over processes: each writes its own files, and the first the index when all are written."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

from .._errors import FileError
from .._stored.checksums import NO_CHECKSUM
from .._stored.drafts import draft, file_id, sweep
from .._stored.header import header_length, seal_of
from .._stored.hf_index import index_bytes
from .._stored.locations import index_path
from .._stored.operating_system import flush_folder, locked_folder, write_all
from .._words import lines, quoted
from ._progress import Progress
from ._shards import (
    free_names,
    numbered_names,
    remove_shards,
    remove_unchanged,
    replaced_mode,
    replaced_shards,
    sweep_shards,
)
from ._spread_files import SpreadPlan
from ._threads import thread_pool
from ._writer import Content, Writer

_MOST = 1 << 10
"""Bytes that each process tells the others at a time."""


def write_spread(plan: SpreadPlan, file: Path) -> int:
    """Write the files of this process, and see to it that all processes write theirs; return the bytes of all.

    Only when all are on the disk the first process puts the index in its place: until then the old tree is there. If one
    process fails, all raise its error, and remove what they wrote.

    Raises:
        FileError: the processes save different trees, one of them failed, or they do not see the same folder.
    """
    together = _Together(file)
    plans = together.do(lambda: plan.digest().encode())
    if len({*plans}) > 1:
        raise FileError(
            f"cannot save {str(file)!r}: the processes save different trees, shardings or metadata; each must call save"
            " with the same"
        )
    with ExitStack() as opened:
        # the first process writes the index: a draft before all files, so that the next save knows what a crash left
        index = _Index(plan, file) if jax.process_index() == 0 else None
        tag = together.do(lambda: b"" if index is None else index.begin(opened))[0].decode()
        names = numbered_names(file, tag, len(plan.groups))
        files = zip(names, plan.groups, plan.writers)
        own = {name: group for name, group, writer in files if writer == jax.process_index()}
        try:
            together.do(lambda: _write_files(plan.content, file, own))
            return int(together.do(lambda: b"" if index is None else index.finish(opened, names))[0])
        except BaseException:
            # the first process those of all: one that was killed cannot
            with suppress(OSError):
                remove_shards(file, own if index is None else names)
            raise


class _Together:
    """Steps that all processes take, of which each waits for the others."""

    def __init__(self, file: Path):
        self._file = file

    def do(self, step: Callable[[], bytes]) -> list[bytes]:
        """Take a step in each process, and give what it gave in each; if it failed in one, all raise an error."""
        own_error: Exception | None = None
        try:
            answer = b"1" + step()
        except Exception as error:
            own_error = error
            answer = b"0" + f"{type(error).__name__}: {error}".encode()[: _MOST - 8]
        answers = _exchanged(answer)
        if own_error is not None:
            raise own_error
        failed = [
            f"process {process}: {said[1:].decode(errors='replace')}"
            for process, said in enumerate(answers)
            if said[:1] == b"0"
        ]
        if failed:
            raise FileError(f"cannot save {str(self._file)!r}, as another process failed: {lines(failed)}")
        return [said[1:] for said in answers]


def _exchanged(answer: bytes) -> list[bytes]:
    """What each process answers, in their order."""
    from jax.experimental import multihost_utils

    own = np.zeros(_MOST, np.uint8)
    own[:4] = np.frombuffer(len(answer).to_bytes(4, "little"), np.uint8)
    own[4 : 4 + len(answer)] = np.frombuffer(answer, np.uint8)
    rows = np.asarray(multihost_utils.process_allgather(own)).reshape(-1, _MOST)
    return [row[4 : 4 + int.from_bytes(row[:4].tobytes(), "little")].tobytes() for row in rows]


def _write_files(content: Content, file: Path, groups: Mapping[str, Sequence[str]]) -> bytes:
    """Write the files of this process, name -> tensors."""
    mode = replaced_mode(file, replaced_shards(file))
    with Progress("", 0, False) as progress, thread_pool("ptree.sum") as pool:
        writer = Writer(content, progress, pool)
        for name, group in groups.items():
            writer.write_shard(file.with_name(name), mode, group, index_path(file).name)
    flush_folder(file.parent)
    return b""


class _Index:
    """The index of all files, as the first process writes it."""

    def __init__(self, plan: SpreadPlan, file: Path):
        self._plan, self._file = plan, file
        self._descriptor = -1  # of the draft, once it is open
        self._replaced: list[str] = []
        self._before: tuple[int, int] | None = None

    def begin(self, opened: ExitStack) -> bytes:
        """Write the draft, which stays open as long as `opened`; give what the names of the files have in common."""
        file = self._file
        opened.enter_context(locked_folder(file.parent))
        sweep(file)
        sweep_shards(file)
        self._before = file_id(file)
        self._replaced = replaced_shards(file)
        names = free_names(file, len(self._plan.groups))
        self._descriptor = opened.enter_context(draft(index_path(file), replaced_mode(file, self._replaced)))
        write_all(self._descriptor, self._encoded(dict.fromkeys(names, NO_CHECKSUM)), 0)
        tag = names[0].removeprefix(file.stem).partition("-00001-of-")[0]
        return tag.encode()

    def finish(self, opened: ExitStack, names: list[str]) -> bytes:
        """Put the index in its place, and remove what it replaces; give the bytes of all files."""
        seals = {name: _seal(self._file.with_name(name)) for name in names}
        index = self._encoded(seals)
        write_all(self._descriptor, index, 0)
        opened.close()
        remove_unchanged(self._file, self._before)
        with suppress(OSError):  # the next save tries again
            remove_shards(self._file, self._replaced)
        return str(len(index) + sum(os.path.getsize(self._file.with_name(name)) for name in names)).encode()

    def _encoded(self, seals: dict[str, str]) -> bytes:
        files = {tensor: name for name, group in zip(seals, self._plan.groups) for tensor in group}
        facts = replace(self._plan.content.facts, replaced=self._replaced, shards=seals)
        return index_bytes(files, self._plan.total_size, facts, self._plan.content.metadata)


def _seal(file: Path) -> str:
    """The checksum in the header of a file that another process wrote."""
    try:
        with open(file, "rb") as opened:
            first = opened.read(8)
            return seal_of(opened.read(header_length(first, os.path.getsize(file))))
    except FileNotFoundError:
        raise FileError(
            f"cannot save {str(file.parent)!r}: {quoted(file.name)}, which another process wrote, is not there. All processes"
            " save into one folder that each of them sees, on a file system that they share"
        ) from None
