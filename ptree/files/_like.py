"""A like, what a file is loaded into: its leaves, ties and containers, and what became of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._draw import init, placement
from .._edit import aliases, differences, leaves, paths, read_or, replace_leaves, structure_error
from .._edit import select as select_leaves
from .._errors import FileError, PtreeError
from .._paths import STACKED, split
from .._tree import Tree, copied, is_numbered, largest_difference, names_in, same, signature
from .._words import SHOWN, describe, lines, listed, nearest
from ..stacks import stack, unstack
from ._tensor import abstract_of, is_torch, moved, to_jax, to_torch

_LOOKED_AT = 500
"""Names among which one that was likely meant is looked for."""


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


@dataclass(frozen=True)
class Ways:
    """What to do where file and `like` differ."""

    cast: bool
    missing: str
    mismatch: str
    key: Any
    place: bool


def _stacked_as(like: Any, tree: Tree) -> Tree:
    """The tree with stacks where `like` has them, and with single layers where `like` has those."""
    for place in _stacks(like):
        if is_numbered([*tree.get(place, ())]):
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


def into_like(like: Any, tree: Tree, asked: str, ways: Ways, damaged: list[str], report: Report) -> Any:
    """The leaves of the tree in the containers and ties of `like`."""
    try:
        tree = _stacked_as(like, tree)
    except PtreeError as error:
        raise type(error)(f"{asked}: {error}") from None
    into, got = dict(leaves(like)), dict(leaves(tree))
    wanted = {name: _wanted(leaf) for name, leaf in into.items()}
    tied = aliases(tree)
    for name in wanted:
        if name not in got and name in tied:  # tied in the file only: a leaf of its own here
            got[name] = copied(tree[name])
    problems = _tied_as(like, tree, got)
    _as_numbers(wanted, got)
    _fit(like, into, wanted, got, ways, report, asked)
    wrong = differences(wanted, got)
    if damaged:
        problems.append(f"damaged, their bytes are not what their checksums say: {listed(damaged)}")
    if wrong:
        sides, fix = (" in `like`", " in the file"), _fix(wanted, got, wrong.missing, wrong.unexpected)
        error = structure_error(asked, wrong, wanted, got, sides=sides, ties=problems, fix=fix)
        error.damaged = damaged
        raise error
    if problems:
        error = FileError(f"{asked}: {lines(problems)}", is_damage=bool(damaged))
        error.damaged = damaged
        raise error
    report.loaded = [name for name in wanted if name not in {*report.kept, *report.drawn}]
    try:
        return replace_leaves(like, {name: _as(into[name], value, name, ways.place) for name, value in got.items()})
    except FileError as error:
        raise FileError(f"{asked}: {error}") from None


def _wanted(leaf: Any) -> Any:
    """What a leaf of the file is compared with: of PyTorch's tensors the shape and dtype, of NumPy's those of this machine."""
    if is_torch(leaf):
        return abstract_of(leaf)
    if isinstance(leaf, np.ndarray) and not leaf.dtype.isnative:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype.newbyteorder("="))
    return leaf


def _as_numbers(wanted: dict[str, Any], got: dict[str, Any]) -> None:
    """A number and an array of one number of its kind are one: the first step of training makes the one of the other."""
    for name in wanted.keys() & got.keys():
        like, value = wanted[name], got[name]
        if _kind_of_number(like) is None or _kind_of_number(like) != _kind_of_number(value):
            continue
        if _is_number(like) and not _is_number(value):
            wanted[name] = value
        elif _is_number(value) and not _is_number(like):
            number = np.asarray(value).astype(like.dtype)
            got[name] = number if _kind_of_number(like) == "float" or number == value else value


def _kind_of_number(leaf: Any) -> str | None:
    if _is_number(leaf):
        return type(leaf).__name__
    if getattr(leaf, "shape", None) != () or not hasattr(leaf, "dtype"):
        return None
    kinds = {"bool": jnp.bool_, "int": jnp.integer, "float": jnp.floating, "complex": jnp.complexfloating}
    return next((name for name, kind in kinds.items() if jnp.issubdtype(leaf.dtype, kind)), None)


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
                problems.append(differ(alias, value, second, other, "`like`", "the file"))
        elif alias in got:
            came[tie.source] = alias
            got[tie.source] = tie.write(got.pop(alias))
    return problems


def _fit(
    like: Any,
    into: Mapping[str, Any],
    wanted: dict[str, Any],
    got: dict[str, Any],
    ways: Ways,
    report: Report,
    asked: str,
) -> None:
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
        _d = differences(wanted, got)
        misshapen, mistyped = _d.misshapen, _d.mistyped
        kept = [*kept, *(name for name in wanted if name in {*misshapen, *mistyped})]
        report.dropped += [name for name in kept if name in got]
    if unknown := [name for name in kept if not hasattr(into[name], "__array__") and not _is_number(into[name])]:
        raise FileError(f"{asked}: there is no value to keep in `like` for {listed(unknown)}")
    for name in kept:
        wanted[name] = got[name] = into[name]
    report.kept = kept


def _is_number(value: Any) -> bool:
    return isinstance(value, (bool, int, float, complex))


def _castable(like: Any, value: Any) -> Any:
    """The dtype that a value is to get, where it has another one of the same kind."""
    dtypes: list[Any] = [getattr(leaf, "dtype", None) for leaf in (like, value)]
    if any(dtype is None for dtype in dtypes) or dtypes[0] == dtypes[1]:  # NumPy takes None for float64
        return None
    same_kind = any(
        all(jnp.issubdtype(dtype, kind) for dtype in dtypes)
        for kind in (jnp.floating, jnp.integer, jnp.complexfloating)
    )
    return dtypes[0] if same_kind else None


def _fix(
    wanted: Mapping[str, Any], got: Mapping[str, Any], missing: Iterable[str], unexpected: Iterable[str], *_: Any
) -> str:
    """What was likely renamed: an unexpected leaf of the shape and dtype of a missing one, with a name like it."""
    free: dict[Any, list[str]] = {}
    for name in unexpected:
        free.setdefault(signature(got[name]), []).append(name)
    renamed: dict[str, str] = {}
    for name in [*missing][:SHOWN]:
        alike = free.get(signature(wanted[name]), [])[:_LOOKED_AT]
        if (near := nearest(name, alike)) is not None and len(renamed) < 4:
            renamed[near] = name
            free[signature(wanted[name])].remove(near)
    if renamed:
        shown = ", ".join(f"{old!r}: {new!r}" for old, new in [*renamed.items()][:3])
        return f"Renamed? Then rename={{{shown}{', ...' if len(renamed) > 3 else ''}}}."
    return "select= loads a part of the file." if free and not missing else ""


def _as(like: Any, value: Any, path: str, place: bool) -> Any:
    """NumPy where `like` has NumPy, PyTorch where it has that; else a jax array, with `place` where that of `like` is."""
    if is_torch(like):
        return value if is_torch(value) else to_torch(np.asarray(value), path)
    if isinstance(like, np.ndarray):
        return np.array(value) if isinstance(value, jax.Array) else np.asarray(value)  # what is JAX's is read-only
    if isinstance(like, np.generic):
        return np.asarray(value)[()]
    value = to_jax(value, path) if isinstance(value, (np.ndarray, np.generic)) else value
    sharding = placement(like) if place and isinstance(value, jax.Array) else None
    return value if sharding is None else moved(value, sharding)


def differ(name: str, value: Any, second: str, other: Any, here: str, there: str) -> str:
    far = largest_difference(value, other)
    by = "" if far is None else ": one holds NaN" if far != far else f", by up to {far:.3g}"
    return (
        f"{name!r}, {describe(value)}, and {second!r}, {describe(other)}, are tied in {here} and differ in {there}{by}"
    )
