"""save, a tree to one safetensors file."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax

from .._edit import entries
from .._errors import FileError
from .._paths import DEEPEST, join
from .._tree import Tie, Tree, child_named, names_in, opened
from .._words import describe, lines, listed, quoted
from ._format import NO_SUM, Facts
from ._place import place_of
from ._tensor import Tensor, tensor_of
from ._writer import Writer

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
    >>> file = tempfile.mkdtemp() + "/mlp.safetensors"
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
    terminal, a bar shows what takes more than a second, if not in the background.

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
    """All checked, and with `hold`, for another thread, taken as it is now; what it gives writes."""
    limit = None if max_shard_size is None else bytes_of(max_shard_size)
    tensors, facts = taken_apart(tree, expand_ties)
    writer = Writer(tensors, facts, _checked(metadata or {}))
    place = Path(os.path.realpath(place_of(path)))  # through a link, not over it
    if hold:
        for tensor in tensors.values():
            tensor.hold()
    return lambda: writer.write(place, limit, shown=not hold)


def bytes_of(size: int | str) -> int:
    """The number of bytes, of "5GB" or "500 MiB"; raises FileError."""
    number = re.fullmatch(r"\s*(\d{1,30}(?:\.\d{1,30})?)\s*([A-Za-z]*)\s*", str(size))
    unit = _UNITS.get(number[2].upper()) if number else None
    if number is None or unit is None or (count := int(float(number[1]) * unit)) < 1:
        raise FileError(f"expected max_shard_size in bytes or as text such as '5GB' or '500MiB', got {quoted(size)}")
    return count


def taken_apart(tree: Any, expand_ties: bool, parts: bool = False) -> tuple[dict[str, Tensor], Facts]:
    """The tensors and the facts of a tree; raises one FileError that lists every leaf a file cannot hold."""
    values = entries(tree)
    tensors: dict[str, Tensor] = {}
    facts = Facts(containers=dict(_containers(tree, "")))
    problems: list[str] = []
    for path, value in values.items():
        if path == "__metadata__":
            problems.append(f"{path!r} is the one name that safetensors keeps for itself; ptree.rename it")
            continue
        if not path:
            raise FileError(f"cannot save {describe(value)}: a leaf needs a name; save Tree({{'name': leaf}})")
        if path.count("/") >= DEEPEST or not all(path.split("/")) or (not path.isprintable() and _not_utf8(path)):
            problems.append(
                f"{quoted(path)}: a name is valid Unicode of at most {DEEPEST} segments, none of them empty"
            )
            continue
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
    if not isinstance(metadata, Mapping):
        raise FileError(f"cannot save metadata: expected names and texts, got {describe(metadata)}")
    for text in (text for pair in metadata.items() for text in pair):
        if not isinstance(text, str) or _not_utf8(text):
            raise FileError(f"cannot save metadata with {quoted(text)}: names and values are valid Unicode text")
    if own := [name for name in metadata if name in _OWN]:
        raise FileError(f"cannot save metadata under {listed(own)}: ptree keeps these names for itself")
    return dict(metadata)
