"""save, a tree to one safetensors file."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax

from .._errors import FileError, lines, quoted
from .._leaf import describe
from .._nodes import child_named, names_in, opened
from .._paths import DEEPEST, join
from .._select import entry_dict
from .._tie import Tie
from .._tree import Tree
from ._draft import draft, put, sweep, sync
from ._format import NO_SUM, Facts, digest_beside, header_of, sum_of
from ._index import index_text
from ._place import (
    alone_in,
    discard,
    free_names,
    identity,
    index_of,
    place_of,
    replaced_at,
    retire,
    retire_index,
    sweep_index,
)
from ._tensor import Tensor, tensor_of

_OWN = ("ptree", "ptree_sum", "total_size")
_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}  # fmt: skip


def save(
    path: str | os.PathLike[str],
    tree: Any,
    *,
    metadata: Mapping[str, str] | None = None,
    expand_ties: bool = False,
    max_shard_size: int | str | None = None,
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
        path: the file; a folder means `model.safetensors` in it.
        tree: any pytree of arrays of JAX, NumPy and PyTorch, numbers and typed PRNG keys.
        metadata: text by name, for other readers too; `ptree.open(path).metadata` shows it.
        expand_ties: write every alias too, as it reads.
        max_shard_size: bytes, or text such as "5GB": what takes more is written as Hugging Face does it, in files
            `model-00001-of-00003.safetensors` of at most that size, and `model.safetensors.index.json`, the last to take
            its place. `load(path)` finds either form; what ptree wrote there before in the other form is removed.
        background: write in another thread. All is taken as it is now, and arrays may be donated at once; what is
            on a GPU or spread over devices is copied to the host first.

    Returns:
        None; with `background` a `concurrent.futures.Future`: `result()` waits, and raises what went wrong.

    Raises:
        FileError: leaves that a file cannot hold; it lists all of them, and nothing is written.
        OSError: the disk is full, the folder is not there or may not be written.
    """
    write = prepared(path, tree, metadata, expand_ties, max_shard_size, hold=background)
    if not background:
        write()
        return None
    pool = ThreadPoolExecutor(1, "ptree.save")
    try:
        return pool.submit(write)
    finally:
        pool.shutdown(wait=False)


def prepared(
    path: str | os.PathLike[str],
    tree: Any,
    metadata: Mapping[str, str] | None,
    expand_ties: bool,
    max_shard_size: int | str | None,
    hold: bool,
) -> Callable[[], None]:
    """All checked, and with `hold` taken as it is now; what it gives writes."""
    limit = None if max_shard_size is None else bytes_of(max_shard_size)
    tensors, facts = taken_apart(tree, expand_ties)
    writer = _Writer(tensors, facts, _checked(metadata or {}))
    place = place_of(path)
    if hold:
        for tensor in tensors.values():
            tensor.hold()
    return lambda: writer.write(place, limit)


def bytes_of(size: int | str) -> int:
    """The number of bytes, of "5GB" or "500 MiB"; raises FileError."""
    number = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(size))
    unit = _UNITS.get(number[2].upper()) if number else None
    if number is None or unit is None or (count := int(float(number[1]) * unit)) < 1:
        raise FileError(f"expected max_shard_size in bytes or as text such as '5GB' or '500MiB', got {quoted(size)}")
    return count


def taken_apart(tree: Any, expand_ties: bool, parts: bool = False) -> tuple[dict[str, Tensor], Facts]:
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
        tensor = tensor_of(value, parts)
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
    facts.sums = dict.fromkeys(tensors, NO_SUM)
    return tensors, facts


def _grouped(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    """The leaves of each shard, in order: as many as take at most `limit` bytes, or one that alone takes more."""
    groups: list[list[str]] = [[]]
    left = limit
    for name, size in sizes.items():
        if size > left and groups[-1]:
            groups.append([])
            left = limit
        groups[-1].append(name)
        left -= size
    return groups


def _containers(node: Any, path: str) -> Iterator[tuple[str, str]]:
    """What each node is that is no Tree and no dict."""
    if node is not None and type(node) not in (Tree, dict) and opened(node) is not None:
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


@dataclass
class _Writer:
    """Puts tensors into files, with one bar for all."""

    tensors: dict[str, Tensor]
    facts: Facts
    metadata: dict[str, str]

    def write(self, place: Path, limit: int | None) -> None:
        from tqdm import tqdm

        sizes = {name: tensor.size for name, tensor in self.tensors.items()}
        total = sum(sizes.values())
        groups = [[*sizes]] if limit is None else _grouped(sizes, limit)
        bar = tqdm(
            total=total, desc=f"saving {place.name}", unit="B", unit_scale=True, delay=1, leave=False, disable=None
        )
        with bar as self.bar, ThreadPoolExecutor(1, "ptree.sum") as self.pool:
            if len(groups) > 1:
                self._shards(place, groups, total)
                return
            sweep(place)
            known = identity(index_of(place))
            with draft(place) as file:
                self._fill(file, groups[0], self.facts)
            retire_index(place, known)

    def _fill(self, file: int, names: list[str], facts: Facts) -> str:
        """One file of these tensors, whose checksums are added to the facts; gives its header's."""
        plan = {name: (self.tensors[name].dtype, self.tensors[name].shape) for name in names}
        start, entries = header_of(plan, facts, self.metadata)
        put(file, start, 0)
        for name, entry in entries.items():
            data = self.tensors[name].bytes()
            found = digest_beside(self.pool, data)  # while it is written
            put(file, data, entry.start, self.bar)
            facts.sums[name] = found()
            self.tensors[name].leaf = None
        start, _ = header_of(plan, facts, self.metadata)
        put(file, start, 0)
        return sum_of(start)

    def _shards(self, place: Path, groups: list[list[str]], total: int) -> None:
        """A file for each group, and then the index of them, which takes the place of what was there."""
        with alone_in(place.parent):
            sweep_index(place)
            known = identity(place)
            names = free_names(place, len(groups))
            files = {leaf: name for name, group in zip(names, groups) for leaf in group}
            facts = replace(self.facts, kinds={}, dtypes={}, sums={}, replaced=replaced_at(place))
            facts.shards = dict.fromkeys(names, NO_SUM)
            try:
                with draft(index_of(place)) as file:
                    put(
                        file, index_text(files, total, facts, self.metadata), 0
                    )  # so that a crash leaves a list of them
                    for name, group in zip(names, groups):
                        facts.shards[name] = self._shard(place.with_name(name), group, index_of(place).name)
                    sync(place.parent)
                    put(file, index_text(files, total, facts, self.metadata), 0)
            except BaseException:
                discard(place, names)
                raise
            retire(place, known)
            discard(place, facts.replaced)

    def _shard(self, path: Path, group: list[str], index: str) -> str:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            made = self._fill(file, group, self.facts.of(group, index))
            os.fsync(file)
            return made
        finally:
            os.close(file)
