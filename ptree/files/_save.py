"""Save a tree to a safetensors file, now or in the background: plan it, check and describe leaves, names, metadata and shard
size; a Saved handle."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from .._edit import entries
from .._errors import FileError
from .._foreign.name_endings import name_ending
from .._paths import DEEPEST
from .._stored.facts import Facts
from .._stored.header import is_unicode, levels_problem
from .._stored.locations import checked_path, file_path, index_path, names_new_folder, refuse_other_kinds, save_path
from .._tree import PyTree, Tie, Tree, opened
from .._words import describe, lines, listed, quoted
from ._background import Background
from ._kinds import UnsavedLeaf, empty_name, is_static, unsaved
from ._saved_tree import stored_ties
from ._spread_files import is_spread, spread_plan
from ._spread_save import write_spread
from ._turns import Turn
from ._writer import Content, write_tree

_RESERVED = ("ptree", "ptree_sum", "total_size")
_UNITS = {
    "": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40
}  # fmt: skip


class Saved:
    """What `ptree.save` returns: a save that is finished, or that another thread is working on.

    >>> import tempfile, ptree as pt
    >>> saved = pt.save(tempfile.mkdtemp() + "/mlp.safetensors", {"bias": 1.0}, background=True)
    >>> saved.result()
    >>> saved.done(), saved
    (True, <saved '...mlp.safetensors', 328 bytes>)

    It shows a path that `load` reads, from the same working folder.
    """

    def __init__(self, path: str, size: int | Background[int]):
        self._path, self._size = path, size

    def result(self, timeout: float | None = None) -> None:
        """Wait until all is on the disk; raises what went wrong, or TimeoutError after so many seconds."""
        if isinstance(self._size, Background):
            self._size.result(timeout)

    def done(self) -> bool:
        """Whether it has come to an end, well or not."""
        return not isinstance(self._size, Background) or self._size.done()

    def __repr__(self) -> str:
        if isinstance(self._size, int):
            return f"<saved {self._place()!r}, {_readable(self._size)}>"
        if not self.done():
            return f"<saving {self._path!r}>"
        error = self._size.error()
        if error is not None:
            return f"<{self._path!r} was not saved: {type(error).__name__}>"
        return f"<saved {self._place()!r}, {_readable(self._size.result())}>"

    def _place(self) -> str:
        """What is there: the file, or the index of its shards."""
        index = index_path(Path(self._path))
        return str(index) if index.exists() and not os.path.exists(self._path) else self._path


def _readable(size: int) -> str:
    """Write a number of bytes as people do, for the handle of a save.

    >>> _readable(416), _readable(1_234), _readable(497_000_000)
    ('416 bytes', '1.2 kB', '497.0 MB')
    """
    if size < 1000:
        return f"{size} bytes"
    # powers of 1000: 1 for kB to 4 for TB, by the number of digits
    power = min(len(str(size)) - 1, 12) // 3
    return f"{size / 1000**power:.1f} {('kB', 'MB', 'GB', 'TB')[power - 1]}"


def save(
    path: str | os.PathLike[str],
    tree: PyTree,
    *,
    metadata: Mapping[str, str] | None = None,
    expand_ties: bool = False,
    only_arrays: bool = False,
    max_shard_size: int | str | None = None,
    background: bool = False,
) -> Saved:
    """Write a tree to a safetensors file, in which every leaf has its path as its name.

    >>> import tempfile, ptree as pt
    >>> file = tempfile.mkdtemp() + "/mlp.safetensors"
    >>> pt.save(file, pt.tie({"2": {"bias": 1.0}, "4": {"bias": 1.0}}, {"4": "2"}))
    <saved '...mlp.safetensors', 392 bytes>
    >>> pt.load(file)
    Tree(
      2/bias  1.0
      4/bias  = 2/bias
    )

    A tied leaf is written once, or under each of its names with `expand_ties`, for readers that know no ties;
    `load` ties them again. Ties, declared order, empty nodes and a checksum of each leaf are in the metadata. The file
    is written beside the old one, flushed to disk, and then takes its place at once: a crash leaves the old file or
    the new one. Leaves come from their devices one after the other. Any safetensors reader can read it. On a
    terminal, a bar shows what takes more than a second, unless it is in the background.

    Of several saves to one path in this process, the last that was called wins, in the background or not. New files have
    the permissions of those that they replace. A link at the path is replaced by the file, and its target stays; a link to
    a folder on the way is followed.

    If arrays are sharded over several processes, all of these call `save` with the same tree and wait for each other; the folder
    is one that all see. Each process writes files of its own, as with `max_shard_size`, and the index takes its place when
    all are written; a process that is killed, or fails, leaves the old tree. A leaf of which one process has all is whole
    in a file, for every reader of such folders; one that is cut over processes is in parts, which have names such as
    `w[0:32,0:64]` and which ptree alone reads as one leaf, on any number of devices.

    Windows has no file locks of this kind: two processes that save shards to one path at the same time may leave some of
    their shards over there, and a file that is open or mapped cannot be replaced.

    Args:
        path: the file; a folder means `model.safetensors` in it. Where nothing is yet, a folder is made for a path without the
            ending `.safetensors` that ends in a slash, or that is given with `max_shard_size`.
        tree: any pytree of arrays of JAX, NumPy and PyTorch, numbers and typed PRNG keys.
        metadata: text by name, for other readers too; `ptree.open(path).metadata` shows it.
        expand_ties: write every alias too, as it reads.
        only_arrays: leave out what is no array and no number, such as the activation function of a module; `load(path, like=module)`
            keeps that of the module.
        max_shard_size: bytes, or text such as "5GB": a larger tree is written as Hugging Face does it, in files
            `model-00001-of-00003.safetensors` of at most that size, and `model.safetensors.index.json`, the last to take
            its place. `load(path)` finds either form; what ptree wrote there before in the other form is removed.
        background: write in another thread. All is taken as it is now, and arrays may be donated at once; what is
            on a GPU or sharded over devices is copied to the host first. When the program ends, Python waits until all is
            written; if something is not and nobody has called `result()`, it says so and ends with an error (exit code
            120; 1 in a child by multiprocessing). A process that is killed, or calls `os._exit`, leaves the old file.

    Returns:
        A handle: `result()` waits until all is on the disk and raises what went wrong, `done()` says whether it has
        come to an end. Without `background` it is done.

    Raises:
        FileError: leaves that a file cannot hold; it lists all of them, and nothing is written. Or at the path is a folder,
            device, FIFO or socket. Or the processes save different trees, or another process fails.
        OSError: the disk is full, the folder is not there or may not be written. With `background`, `result()` raises it.

    Warns:
        UserWarning: the name ends as those of another format, such as `.pt`; what is written is safetensors all the same.
    """
    text = checked_path(path, "save(path, tree)")
    plan = planned(save_path(text), tree, metadata, expand_ties, max_shard_size, only_arrays, may_be_spread=True)
    in_several_processes = is_spread(plan.content.leaves)
    if in_several_processes and background:
        raise FileError(
            f"cannot save {str(plan.file)!r} in the background: parts of it are in other processes, which wait for each other"
            " as they write. Leave background=True out, or use Checkpoints(..., backend='orbax')"
        )
    if names_new_folder(text, is_several_files=in_several_processes or max_shard_size is not None):
        os.makedirs(text, exist_ok=True)
    plan = replace(plan, file=save_path(text))  # in the folder, which another process may have made
    shown = str(file_path(text))
    _warn_of_ending(shown)
    if in_several_processes:
        return Saved(shown, plan.write_with_others())
    size = plan.begin() if background else plan.write(show_bar=True)
    return Saved(shown, size)


def _warn_of_ending(path: str) -> None:
    """Warn where a name says another format than what is written, before anything is."""
    ending = name_ending(path)
    if ending is None:
        return
    fix = f"Name it {quoted(ending.safetensors_name(path))}"
    if ending.writer:
        fix += f"; {ending.call_that_writes(path)} writes {ending.kind}"
    warnings.warn(
        f"{quoted(path)} ends in {ending.ending}, as {ending.kind} does, but ptree.save writes safetensors whatever the name is:"
        f" ptree.load reads it, and programs that go by the name do not. {fix}",
        stacklevel=3,
    )


@dataclass(frozen=True)
class SavePlan:
    """The plan of a save, all checked: what is written, and where to."""

    content: Content
    file: Path
    limit: int | None
    """The most bytes of a shard."""

    def snapshot(self) -> SavePlan:
        """The same save with the values of all leaves as they are now."""
        leaves = {name: leaf.snapshot() for name, leaf in self.content.leaves.items()}
        return replace(self, content=replace(self.content, leaves=leaves))

    def write(self, show_bar: bool) -> int:
        """Write it when all earlier saves to this file have ended; the number of bytes on the disk."""
        return self._write_in(Turn(self.file), show_bar)

    def begin(self) -> Background[int]:
        """Begin to write it, with the values as they are now, in another thread."""
        plan = self.snapshot()
        turn = Turn(self.file)
        return Background(str(self.file), lambda: plan._write_in(turn, show_bar=False))

    def write_with_others(self) -> int:
        """Write it together with all other processes, of which each has a part; the number of bytes on the disk."""
        with Turn(self.file):
            return write_spread(spread_plan(self.content, self.limit), self.file)

    def _write_in(self, turn: Turn, show_bar: bool) -> int:
        with turn:
            return write_tree(self.content, self.file, self.limit, show_bar)


def planned(
    file: Path,
    tree: PyTree,
    metadata: Mapping[str, str] | None = None,
    expand_ties: bool = False,
    max_shard_size: int | str | None = None,
    only_arrays: bool = False,
    may_be_spread: bool = False,
) -> SavePlan:
    """Plan a save: check all arguments of `save`, and describe the leaves; nothing is written yet.

    With `may_be_spread` parts of the leaves may be in other processes.
    """
    refuse_other_kinds(file)
    limit = None if max_shard_size is None else bytes_of(max_shard_size)
    leaves, facts = described(tree, expand_ties, may_be_spread, only_arrays)
    return SavePlan(Content(leaves, facts, _checked_metadata(metadata or {})), file, limit)


def bytes_of(size: int | str) -> int:
    """Read a shard size such as "5GB" or "500 MiB": the number of bytes.

    >>> bytes_of("1.5 kB")
    1500
    """
    # at most 30 digits: a longer number is a mistake, and would overflow a float
    number = re.fullmatch(r"\s*(\d{1,30}(?:\.\d{1,30})?)\s*([A-Za-z]*)\s*", str(size))
    unit = _UNITS.get(number[2].upper()) if number else None
    count = 0
    if number and unit:
        count = int(float(number[1]) * unit)
    if count < 1:
        raise FileError(f"expected max_shard_size in bytes or as text such as '5GB' or '500MiB', got {quoted(size)}")
    return count


def described(
    tree: PyTree, expand_ties: bool = False, may_be_spread: bool = False, only_arrays: bool = False
) -> tuple[dict[str, UnsavedLeaf], Facts]:
    """Describe the leaves and the structure of a tree to save.

    Args:
        tree: any pytree.
        expand_ties: describe the aliases as leaves too.
        may_be_spread: whether leaves may have parts in other processes.
        only_arrays: leave out what is no array and no number.

    Raises:
        FileError: leaves that a file cannot hold; it lists all of them.
    """
    values = _without_static(entries(tree)) if only_arrays else entries(tree)
    problems = _name_problems(tree, values)
    leaves: dict[str, UnsavedLeaf] = {}
    empty: dict[str, str] = {}
    for path, value in values.items():
        is_tie = isinstance(value, Tie)
        if path in problems or (is_tie and not expand_ties):
            continue
        if is_tie:  # with `expand_ties` a tensor too; that they are tied stays in the facts
            value = value.read(values[value.source])
        nothing = empty_name(value)
        if nothing:
            empty[path] = nothing
            continue
        leaf = unsaved(path, value, may_be_spread)
        if isinstance(leaf, UnsavedLeaf):
            leaves[path] = leaf
        else:
            problems[path] = f"{quoted(path)} is {leaf}"
    if problems:
        raise _unsaved_error(values, problems)
    ties = {path: value for path, value in values.items() if isinstance(value, Tie)}
    return leaves, Facts(order=[*values], ties=stored_ties(ties), empty=empty, containers=_containers(tree))


def _unsaved_error(values: Mapping[str, PyTree], problems: Mapping[str, str]) -> FileError:
    """Make one error of all leaves that cannot be saved, in the order of the tree."""
    shown = lines([problems[path] for path in values if path in problems], "\n  ")
    has_static = any(is_static(values[path]) for path in problems)
    fix = "\nThe option only_arrays=True leaves out what is no array and no number." if has_static else ""
    return FileError(f"cannot save these leaves, a file holds arrays, numbers and PRNG keys:\n  {shown}{fix}")


def _without_static(values: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """The entries of a tree without the leaves that no file holds, such as functions, and without their aliases."""
    static = {path for path, value in values.items() if _is_leaf(value) and is_static(value)}
    return {path: value for path, value in values.items() if path not in static and _source_of(value) not in static}


def _is_leaf(value: PyTree) -> bool:
    return not isinstance(value, Tie) and not empty_name(value)


def _source_of(value: PyTree) -> str:
    return value.source if isinstance(value, Tie) else ""


def _name_problems(tree: PyTree, values: Mapping[str, PyTree]) -> dict[str, str]:
    """Find the names that `save` cannot give: path -> problem. Raises where no name or all names together are a problem."""
    if "" in values:  # the tree is a single leaf, and safetensors allows no empty name
        raise FileError(f"cannot save {describe(tree)}: a leaf needs a name; save Tree({{'name': leaf}})")
    levels = levels_problem(values)
    if levels:
        raise FileError(f"cannot save {describe(tree)}: {levels}")
    names = {path: _name_problem(path) for path in values}
    return {path: problem for path, problem in names.items() if problem}


def _name_problem(path: str) -> str:
    """Say why `save` cannot give a leaf this name; "" if it can."""
    if path == "__metadata__":
        return f"{quoted(path)} is the one name that safetensors keeps for itself; ptree.rename it"
    segments = path.split("/")
    if len(segments) > DEEPEST or not all(segments) or not is_unicode(path):
        return f"{quoted(path)}: a name is valid Unicode of at most {DEEPEST} segments, none of them empty"
    return ""


def _containers(tree: PyTree) -> dict[str, str]:
    """Describe the containers of a tree to save: path -> type of each node that is no Tree and no dict."""
    found: dict[str, str] = {}
    waiting = [("", tree)]
    while waiting:
        path, node = waiting.pop()
        inside = opened(node)
        if node is None or inside is None:
            continue
        if type(node) not in (Tree, dict):
            found[path] = _type_name(type(node))
        prefix = f"{path}/" if path else ""
        # reversed, so that the first child is the next to be popped
        waiting += [(prefix + name, child) for name, child in zip(inside.names, inside.values)][::-1]
    return found


def _type_name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _checked_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    if not isinstance(metadata, Mapping):
        raise FileError(f"cannot save metadata: expected names and texts, got {describe(metadata)}")
    for name, value in metadata.items():
        for text in (name, value):
            # safetensors holds text alone: a number would come back as a string
            if not isinstance(text, str) or not is_unicode(text):
                raise FileError(f"cannot save metadata with {quoted(text)}: names and values are valid Unicode text")
    reserved = [name for name in metadata if name in _RESERVED]
    if reserved:
        raise FileError(f"cannot save metadata under {listed(reserved)}: ptree keeps these names for itself")
    return dict(metadata)
