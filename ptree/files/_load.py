"""load, a tree from a safetensors file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from .._access import map_leaves, paths, read_or, replace_leaves
from .._check import differences, structure_error
from .._errors import FileError, PtreeError, lines, listed, nearest, told
from .._leaf import copied, describe, largest_difference, same, signature
from .._nodes import names_in
from .._params import init
from .._parts import select as select_leaves
from .._paths import STACKED, split
from .._rename import rename as rename_leaves
from .._select import Selector, aliases, leaves
from .._shardings import Shardings, placement, shardings_for
from .._stacks import numbered, stack, unstack
from .._tree import Tree
from ._open import File
from ._orbax import Checkpoint, is_orbax
from ._source import Compare, Source
from ._tensor import abstract_of, is_torch, moved, to_jax, to_torch


@dataclass
class Report:
    """What became of each leaf of a `like`, and of each of the file: lists of paths."""

    loaded: list[str] = field(default_factory=list)
    cast: list[str] = field(default_factory=list)
    """Of those, the ones of another dtype in the file."""
    kept: list[str] = field(default_factory=list)
    """Values of `like`."""
    drawn: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    """In the file, and not loaded."""

    def __str__(self) -> str:
        told = [f"{name} {len(paths)}: {listed(paths)}" for name, paths in vars(self).items() if paths]
        return "\n".join(told) or "nothing"


def load(
    path: str | os.PathLike[str],
    like: Any = None,
    *,
    select: Selector | None = None,
    rename: Mapping[Any, str] | None = None,
    cast: bool = False,
    missing: Literal["error", "keep", "init"] = "error",
    mismatch: Literal["error", "keep"] = "error",
    key: Any = None,
    shardings: Shardings | None = None,
    mesh: Any = None,
    verify: bool | None = None,
    mmap: bool = False,
    report: bool = False,
) -> Any:
    """Read a tree from a safetensors file: just what was saved, ties, order and types included.

    With `like` (parameters, a spec, an abstract tree, any pytree) the file's leaves are put into its
    containers and ties, and every leaf must be there with the same shape and dtype. Where only one of the
    two is tied: names that the file lacks are filled from their source, names that `like` ties must be equal
    in the file. A stack loads into single layers, and the other way round. Files by other programs load too; their names
    are the paths. Every leaf is compared with its checksum.

    >>> import jax, tempfile, ptree as pt, jax.numpy as jnp
    >>> file = tempfile.mkdtemp() + "/mlp.safetensors"
    >>> pt.save(file, {"enc": {"bias": jnp.zeros(8)}})
    >>> pt.load(file, like={"enc": {"bias": jax.ShapeDtypeStruct((8,), jnp.float32)}})["enc"]["bias"].shape
    (8,)
    >>> model = pt.Tree({"encoder": {"bias": jnp.ones(8)}, "head": {"bias": jnp.ones(2)}})
    >>> tree, report = pt.load(file, like=model, rename={"enc": "encoder"}, missing="keep", report=True)
    >>> print(report)
    loaded 1: ['encoder/bias']
    kept 1: ['head/bias']

    Args:
        path: the file; a folder with `model.safetensors` or an index of shards; or what `Checkpoints` wrote with Orbax.
        like: what it is loaded into.
        select: of the file, only these leaves.
        rename: the names of the file -> those of `like`, as in `ptree.rename`; after `select`.
        cast: convert floats to the floats of `like`, whole numbers to its whole numbers.
        missing: for leaves that the file does not have, the values of `like`, or what its spec draws with `key`.
        mismatch: for leaves of another shape or dtype, the values of `like`.
        key: a PRNG key, for `missing="init"`: it draws bit for bit what `ptree.init` would.
        shardings: where leaves go, as in `ptree.init`, with `mesh`; by default where those of `like` were put. Of what is
            spread over devices each process reads only the bytes of its own parts, which are not compared with
            checksums by default.
        verify: whether to compare with the checksums; by default the header, and unless with `mmap` all leaves that are read
            whole. True compares those spread over devices too, for which each process reads all of them; False nothing.
        mmap: on a CPU, arrays are backed by the file, as in `ptree.open`.
        report: give `(tree, report)`, which says what was loaded, kept, drawn and dropped.

    Returns:
        A Tree; with `like`, its kind of containers. Arrays are on JAX's default device; what was saved
        from NumPy comes back as NumPy.

    Raises:
        FileError: no safetensors file, one that stops half-way, damaged leaves, or two values for what is tied in `like`.
        StructureError: leaves that are missing, unexpected, misshapen or mistyped; it lists all of them.
        PatternError: a selector or a name to be renamed that matches nothing.
        OSError: the file is not there or cannot be read.
    """
    if missing not in ("error", "keep", "init") or mismatch not in ("error", "keep"):
        raise FileError(
            f"expected missing 'error', 'keep' or 'init', mismatch 'error' or 'keep'; got {missing!r}, {mismatch!r}"
        )
    if like is None and (cast or missing != "error" or mismatch != "error"):
        raise FileError("cast, missing and mismatch say how a file is to fit a `like`: give like=")
    compare: Compare = "all leaves" if verify else "no leaves" if mmap or verify is False else "whole leaves"
    asked = f"cannot load {os.fspath(path)!r}"
    with closing(source(path, verify is not False, mmap)) as file:
        damaged: list[str] = []
        apart, stored = _settled(file, damaged, compare)
        chosen = stored if select is None else select_leaves(stored, select)
        chosen = chosen if rename is None else rename_leaves(chosen, rename)
        places = _placements(like, chosen) if shardings is None else shardings_for(chosen, shardings, mesh)
        at = {leaf.name: name for name, leaf in leaves(chosen)}
        handles = [leaf for _, leaf in leaves(chosen)]
        values = file.read(
            handles,
            {leaf.name: places[at[leaf.name]] for leaf in handles if at[leaf.name] in places},
            damaged,
            like is None,
            compare,
        )
        tree = map_leaves(chosen, lambda _, leaf: values[leaf.name])
        left = sorted({*paths(stored)} - {leaf.name for leaf in handles})
    if like is None:
        if damaged:
            raise file.damage(damaged)
        if apart:
            raise FileError(f"{asked}: {told(apart, ['Load them with a `like` in which they are apart'])}")
        return (tree, Report(loaded=paths(tree), dropped=left)) if report else tree
    made = Report(dropped=left)
    fitted = _into(
        like, tree, f"{asked} into `like`", _Ways(cast, missing, mismatch, key, shardings is None), damaged, made
    )
    return (fitted, made) if report else fitted


@dataclass(frozen=True)
class _Ways:
    """What to do where file and `like` differ."""

    cast: bool
    missing: str
    mismatch: str
    key: Any
    place: bool


def source(path: str | os.PathLike[str], verify: bool = True, mmap: bool = False) -> Source:
    """What is there, open: one file, shards, or a checkpoint of Orbax."""
    if not is_orbax(path):
        return File(path, verify=verify, mmap=mmap)
    if mmap:
        raise FileError(
            f"cannot load {os.fspath(path)!r} with mmap=True: Orbax wrote it, and its arrays are compressed"
        )
    return Checkpoint(path)


def _placements(like: Any, chosen: Tree) -> dict[str, Any]:
    """Where the leaves of `like` are that are spread over devices, for those of the file that fit them."""
    into = {} if like is None else dict(leaves(like))
    return {
        name: sharding
        for name, leaf in leaves(chosen)
        if (sharding := placement(into.get(name))) is not None
        and not sharding.is_fully_replicated
        and leaf.shape == into[name].shape
    }


def _settled(file: Source, damaged: list[str], compare: Compare) -> tuple[list[str], Tree]:
    """The file's tree. An alias that was written too, and is not what it is tied to, is a leaf of its own, and told."""
    apart: dict[str, str] = {}
    for alias, tie in file.facts.ties.items():
        if {alias, tie.source} <= {*file.names()}:
            hurt: list[str] = []
            values = file.read(map(file.stored, (alias, tie.source)), damaged=hurt, compare=compare)
            if hurt:
                damaged += {alias} & {*hurt}  # the source is read again with the others
            elif not same(other := tie.read(values[tie.source]), values[alias]):
                apart[alias] = _differ(alias, values[alias], tie.shown(), other, "its metadata", "its tensors")
    return [*apart.values()], file.tree_of(apart)


def _differ(name: str, value: Any, second: str, other: Any, here: str, there: str) -> str:
    far = largest_difference(value, other)
    by = "" if far is None else ": one holds NaN" if far != far else f", by up to {far:.3g}"
    return (
        f"{name!r}, {describe(value)}, and {second!r}, {describe(other)}, are tied in {here} and differ in {there}{by}"
    )


def _stacked_as(like: Any, tree: Tree) -> Tree:
    """The tree with stacks where `like` has them, and with single layers where `like` has those."""
    for place in _stacks(like):
        if numbered([*tree.get(place, ())]):
            tree = stack(tree, place)
    for place in _stacks(tree):
        names = names_in(read_or(like, split(place), None)) or ()
        if "0" in names and [*tree.get(place, ())] == [STACKED]:
            tree = unstack(tree, place)
    return tree


def _stacks(tree: Any) -> list[str]:
    """Where a tree has stacks, from outside in."""
    segments = [path.split("/") for path in paths(tree, aliases=True)]
    places = {"/".join(path[:at]): at for path in segments for at, name in enumerate(path) if name == STACKED}
    return sorted(places, key=lambda place: places[place])


def _into(like: Any, tree: Tree, asked: str, ways: _Ways, damaged: list[str], report: Report) -> Any:
    """The leaves of the tree in the containers and ties of `like`."""
    try:
        tree = _stacked_as(like, tree)
    except PtreeError as error:
        raise type(error)(f"{asked}: {error}") from None
    into, got = dict(leaves(like)), dict(leaves(tree))
    wanted = {name: abstract_of(leaf) if is_torch(leaf) else leaf for name, leaf in into.items()}
    tied = aliases(tree)
    for name in wanted:
        if name not in got and name in tied:  # tied in the file only: a leaf of its own here
            got[name] = copied(tree[name])
    problems = _tied_as(like, tree, got)
    _fit(like, wanted, got, ways, report, asked)
    differ = differences(wanted, got)
    fixes = _fixes(wanted, got, *differ)
    if damaged:
        problems.append(f"damaged, their bytes are not what their checksums say: {listed(damaged)}")
    if any(differ):
        sides = (" in `like`", " in the file")
        error = structure_error(asked, *differ, wanted, got, sides=sides, ties=problems, fix=" ".join(fixes))
        error.damaged = damaged
        raise error
    if problems:
        error = FileError(f"{asked}: {lines(problems)}")
        error.damaged = damaged
        raise error
    report.loaded = [name for name in wanted if name not in {*report.kept, *report.drawn}]
    try:
        return replace_leaves(like, {name: _as(into[name], value, name, ways.place) for name, value in got.items()})
    except FileError as error:
        raise FileError(f"{asked}: {error}") from None


def _tied_as(like: Any, tree: Tree, got: dict[str, Any]) -> list[str]:
    """Make one leaf of what `like` ties, if what the file says of the names agrees; where it does not, it is told."""
    tied, problems, came = aliases(tree), list[str](), dict[str, str]()
    for alias, tie in aliases(like).items():
        if tied.get(alias) == tie:
            continue  # the same tie: nothing to compare
        if alias in tree and tie.source in got:
            got.pop(alias, None)
            value, other = tree[alias], tie.read(got[tie.source])
            if not same(other, value):
                second = came.get(tie.source, tie.shown())
                problems.append(_differ(alias, value, second, other, "`like`", "the file"))
        elif alias in got:
            came[tie.source] = alias
            got[tie.source] = tie.write(got.pop(alias))
    return problems


def _fit(like: Any, wanted: dict[str, Any], got: dict[str, Any], ways: _Ways, report: Report, asked: str) -> None:
    """Change what was got in the ways that the caller allows."""
    lost = [name for name in wanted if name not in got]
    if lost and ways.missing == "init":
        if ways.key is None:
            raise FileError(f"{asked}: missing='init' draws {listed(lost)}, for which it needs key=")
        drawn = init(select_leaves(like, lambda path, _: path in lost), ways.key)
        got.update(leaves(drawn))
        report.drawn = lost
    if ways.cast:
        for name, value in got.items():
            if name in wanted and (dtype := _castable(wanted[name], value)) is not None:
                got[name] = value.astype(dtype)
                report.cast.append(name)
    kept = lost if ways.missing == "keep" else []
    if ways.mismatch == "keep":
        _, _, misshapen, mistyped = differences(wanted, got)
        kept = [*kept, *(name for name in wanted if name in {*misshapen, *mistyped})]
        report.dropped += [name for name in kept if name in got]
    if unknown := [name for name in kept if not hasattr(wanted[name], "__array__") and not _is_number(wanted[name])]:
        raise FileError(f"{asked}: there is no value to keep in `like` for {listed(unknown)}")
    got.update({name: wanted[name] for name in kept})
    report.kept = kept


def _is_number(value: Any) -> bool:
    return isinstance(value, (bool, int, float, complex))


def _castable(like: Any, value: Any) -> Any:
    """The dtype that a value is to get, where it has another one of the same kind."""
    dtypes: list[Any] = [getattr(leaf, "dtype", None) for leaf in (like, value)]
    if None in dtypes or dtypes[0] == dtypes[1]:
        return None
    same_kind = any(
        all(jnp.issubdtype(dtype, kind) for dtype in dtypes)
        for kind in (jnp.floating, jnp.integer, jnp.complexfloating)
    )
    return dtypes[0] if same_kind else None


def _fixes(
    wanted: Mapping[str, Any], got: Mapping[str, Any], missing: Iterable[str], unexpected: Iterable[str], *_: Any
) -> list[str]:
    """What was likely renamed: an unexpected leaf of the shape and dtype of a missing one, with a name like it."""
    free = [*unexpected]
    renamed: dict[str, str] = {}
    for name in missing:
        alike = [other for other in free if signature(got[other]) == signature(wanted[name])]
        if (near := nearest(name, alike)) is not None:
            renamed[near] = name
            free.remove(near)
    if not renamed:
        return []
    shown = ", ".join(f"{old!r}: {new!r}" for old, new in [*renamed.items()][:3])
    return [f"Renamed? Then rename={{{shown}{', ...' if len(renamed) > 3 else ''}}}."]


def _as(like: Any, value: Any, path: str, place: bool) -> Any:
    """NumPy where `like` has NumPy, PyTorch where it has that; else a jax array, with `place` where that of `like` is."""
    if is_torch(like):
        return to_torch(np.asarray(value), path)
    if isinstance(like, (np.ndarray, np.generic)):
        return np.asarray(value) if isinstance(like, np.ndarray) else np.asarray(value)[()]
    value = to_jax(value, path) if isinstance(value, (np.ndarray, np.generic)) else value
    sharding = placement(like) if place and isinstance(value, jax.Array) else None
    return value if sharding is None else moved(value, sharding)
