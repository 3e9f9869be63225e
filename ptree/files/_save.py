"""save, a tree to one safetensors file."""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import jax

from .._errors import FileError, lines, quoted
from .._leaf import describe
from .._nodes import child_named, names_in, opened
from .._paths import DEEPEST, join
from .._select import entry_dict
from .._tie import Tie
from .._tree import Tree
from ._format import Facts, digest_beside, header_of
from ._tensor import Tensor, tensor_of

_OWN = ("ptree", "ptree_sum")


def save(
    path: str | os.PathLike[str],
    tree: Any,
    *,
    metadata: Mapping[str, str] | None = None,
    expand_ties: bool = False,
    background: bool = False,
) -> Future[None] | None:
    """Write a tree to one safetensors file, in which every leaf has its path as its name.

    >>> import tempfile, ptree as pt
    >>> file = Path(tempfile.mkdtemp()) / "mlp.safetensors"
    >>> pt.save(file, pt.tie({"2": {"bias": 1.0}, "4": {"bias": 1.0}}, {"4": "2"}))
    >>> pt.load(file)
    Tree(
      2/bias  1.0
      4/bias  = 2/bias
    )

    A tied leaf is written once, or under each of its names with `expand_ties`, for readers that know no ties;
    `load` ties them again. Ties, declared order, empty nodes and a checksum of each leaf are in the metadata. It is
    written beside the old file, flushed to disk, and then takes its place at once: a crash leaves the old file or
    the new one. Leaves come from their devices one after the other. Any safetensors reader can read it. On a
    terminal, a bar shows what takes more than a second.

    Args:
        path: the file.
        tree: any pytree of arrays of JAX, NumPy and PyTorch, numbers and typed PRNG keys.
        metadata: text by name, for other readers too; `ptree.open(path).metadata` shows it.
        expand_ties: write every alias too, as it reads.
        background: write in another thread. All is taken as it is now, and arrays may be donated at once; on a GPU
            it is copied to the host first.

    Returns:
        None; with `background` a `concurrent.futures.Future`: `result()` waits, and raises what went wrong.

    Raises:
        FileError: leaves that a file cannot hold; it lists all of them, and nothing is written.
        OSError: the disk is full, the folder is not there or may not be written.
    """
    tensors, facts = taken_apart(tree, expand_ties)
    extra = _checked(metadata or {})
    where = Path(os.path.realpath(path))  # through a link, not over it
    if not background:
        _write(where, tensors, facts, extra)
        return None
    for tensor in tensors.values():
        tensor.hold()
    pool = ThreadPoolExecutor(1, "ptree.save")
    try:
        return pool.submit(_write, where, tensors, facts, extra)
    finally:
        pool.shutdown(wait=False)


def taken_apart(tree: Any, expand_ties: bool) -> tuple[dict[str, Tensor], Facts]:
    """The tensors and the facts of a tree; raises one FileError that lists every leaf a file cannot hold."""
    values = entry_dict(tree)
    tensors: dict[str, Tensor] = {}
    facts = Facts(containers=dict(_containers(tree, "")))
    problems: list[str] = []
    for path, value in values.items():
        if path == "__metadata__":
            problems.append(f"{path!r} is the one name that safetensors keeps for itself; ptree.rename it")
            continue
        if path.count("/") >= DEEPEST or (not path.isprintable() and _not_utf8(path)):
            problems.append(f"{quoted(path)}: a name is valid Unicode of at most {DEEPEST} segments")
            continue
        if not path:
            raise FileError(f"cannot save {describe(value)}: a leaf needs a name; save Tree({{'name': leaf}})")
        facts.order.append(path)
        if type(value) is Tie:
            facts.ties[path] = value
            if not expand_ties:
                continue
            value = value.read(values[value.source])
        if value is None:
            facts.empty[path] = "none"
            continue
        tensor = tensor_of(value)
        if isinstance(tensor, Tensor):
            tensors[path] = tensor
        elif not jax.tree.leaves(value):
            facts.empty[path] = "node"
        else:
            problems.append(f"{path!r} is {tensor}")
    if problems:
        told = lines(problems, "\n  ")
        raise FileError(f"cannot save these leaves, a file holds arrays, numbers and PRNG keys:\n  {told}")
    facts.kinds = {path: tensor.kind for path, tensor in tensors.items() if tensor.kind}
    facts.dtypes = {path: tensor.own_dtype for path, tensor in tensors.items() if tensor.own_dtype}
    facts.sums = dict.fromkeys(tensors, "0" * 32)
    return tensors, facts


def _containers(node: Any, path: str) -> Iterator[tuple[str, str]]:
    """What each node is that is no Tree and no dict."""
    if type(node) not in (Tree, dict) and opened(node) is not None:
        kind = type(node)
        yield path, kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    for name in names_in(node) or ():
        yield from _containers(child_named(node, name), join(path, name))


def _not_utf8(path: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in path)


def _checked(metadata: Mapping[str, str]) -> dict[str, str]:
    wrong = [name for pair in metadata.items() for name in pair if not isinstance(name, str) or _not_utf8(name)]
    wrong += [name for name in metadata if name in _OWN]
    if wrong:
        raise FileError(f"cannot save metadata with {quoted(wrong[0])}: names and values are text, other than {_OWN}")
    return dict(metadata)


# --------------------------------------------------------------------------------- to disk


def _write(path: Path, tensors: dict[str, Tensor], facts: Facts, metadata: dict[str, str]) -> None:
    from tqdm import tqdm

    plan = {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
    start, entries = header_of(plan, facts, metadata)
    total = sum(tensor.size for tensor in tensors.values())
    bar = tqdm(total=total, desc=f"saving {path.name}", unit="B", unit_scale=True, delay=1, leave=False, disable=None)
    with _draft(path) as file, bar, ThreadPoolExecutor(1, "ptree.sum") as pool:
        _put(file, start, 0)
        for name, entry in entries.items():
            data = tensors[name].bytes()
            found = digest_beside(pool, data)  # while it is written
            _put(file, data, entry.start, bar)
            facts.sums[name] = found()
            tensors[name].leaf = None
        _put(file, header_of(plan, facts, metadata)[0], 0)


def _put(file: int, data: Any, at: int, bar: Any = None) -> None:
    left = memoryview(data)
    while left:
        written = os.pwrite(file, left[: 1 << 26], at)
        left, at = left[written:], at + written
        if bar is not None:
            bar.update(written)


@contextmanager
def _draft(path: Path) -> Iterator[int]:
    """A new file that takes the place of the old one when all went well, and is gone when not.

    It is locked while it is written, so that the next one who saves knows what a crash has left behind.
    """
    _sweep(path)
    draft, file = _locked(path)
    try:
        if path.exists():
            os.chmod(file, stat.S_IMODE(path.stat().st_mode))
        yield file
        os.fsync(file)
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    finally:
        os.close(file)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _locked(path: Path) -> tuple[Path, int]:
    while True:
        draft = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
        file = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except BaseException:  # a disk without locks, or an interrupt
            os.close(file)
            draft.unlink(missing_ok=True)
            raise
        if os.fstat(file).st_nlink:
            return draft, file
        os.close(file)  # swept by another process before it was locked


def _sweep(path: Path) -> None:
    """Remove drafts of this file that nobody writes any more."""
    ours = re.compile(re.escape(f".{path.name}.") + r"[0-9a-f]{32}\.tmp")
    for draft in path.parent.iterdir() if path.parent.is_dir() else ():
        if not ours.fullmatch(draft.name):
            continue
        try:
            file = os.open(draft, os.O_RDONLY)
        except OSError:
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            draft.unlink(missing_ok=True)
        except OSError:
            pass  # somebody writes it, or it is not ours to remove
        finally:
            os.close(file)
