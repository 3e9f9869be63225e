"""load, a tree from a safetensors file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from .._access import paths, read_or, replace_leaves
from .._check import differences, structure_error
from .._errors import FileError, PtreeError, TieError, lines, told
from .._leaf import copied, describe, largest_difference, same
from .._nodes import names_in
from .._paths import STACKED, split
from .._select import aliases, leaves
from .._stacks import numbered, stack, unstack
from .._tree import Tree
from ._format import DTYPES, Facts, leaf_of, put_together, to_jax


def load(path: str | os.PathLike[str], like: Any = None) -> Any:
    """Read a tree from a safetensors file: just what was saved, ties, order and types included.

    With `like` (parameters, a spec, an abstract tree, any pytree) the file's leaves are put into its
    containers and ties, and every leaf must be there with the same shape and dtype. Where only one of the
    two is tied: names that the file lacks are filled from their source, names that `like` ties must be equal
    in the file. Files by other programs load too; their names are the paths.

    >>> import jax, tempfile, ptree as pt, jax.numpy as jnp
    >>> file = Path(tempfile.mkdtemp()) / "mlp.safetensors"
    >>> pt.save(file, {"enc": {"bias": jnp.zeros(8)}})
    >>> pt.load(file, like={"enc": {"bias": jax.ShapeDtypeStruct((8,), jnp.float32)}})["enc"]["bias"].shape
    (8,)

    Facts about the tree are not yet protected by a checksum, nor are values: a flipped bit can load.

    Returns:
        A Tree; with `like`, its kind of containers. Arrays are on JAX's default device; what was saved
        from NumPy comes back as NumPy.

    Raises:
        FileError: no safetensors file, one that stops half-way, or two values for what is tied in `like`.
        StructureError: leaves that are missing, unexpected, misshapen or mistyped; it lists all of them.
        OSError: the file is not there or cannot be read.
    """
    file = str(path)
    tensors, facts = _read(Path(path))
    try:
        values = {name: leaf_of(array, facts.kinds.get(name, ""), name) for name, array in tensors.items()}
        apart = _settled(values, facts)
        tree = put_together(values, facts)
    except (PtreeError, ValueError, TypeError, KeyError) as error:
        raise FileError(f"cannot load {file!r}: {error}") from error
    if like is not None:
        return _into(like, tree, file)
    if apart:
        raise FileError(f"cannot load {file!r}: {told(apart, ['Load them with a `like` in which they are apart'])}")
    return tree


def _settled(values: dict[str, Any], facts: Facts) -> list[str]:
    """Take out the aliases that were written too; those that are not what they are tied to are leaves, and told."""
    apart: list[str] = []
    shown = {
        alias: tie.read(values[tie.source]) for alias, tie in facts.ties.items() if {alias, tie.source} <= {*values}
    }
    for alias, other in shown.items():
        value = values[alias]
        if same(other, value):
            del values[alias]
        else:
            apart.append(_differ(alias, value, facts.ties.pop(alias).shown(), other, "its metadata", "its tensors"))
    return apart


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


def _read(path: Path) -> tuple[dict[str, np.ndarray], Facts]:
    from safetensors import SafetensorError, deserialize

    data = path.read_bytes()
    try:
        found = deserialize(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        text = header.get("__metadata__", {}).get("ptree")
        tensors: dict[str, np.ndarray] = {}
        for name, about in found:
            if about["dtype"] not in DTYPES:
                raise ValueError(f"{name!r} is of the dtype {about['dtype']}, which NumPy and JAX do not have")
            tensors[name] = np.frombuffer(about["data"], DTYPES[about["dtype"]]).reshape(about["shape"])
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise FileError(
            f"cannot load {str(path)!r}: it is not a whole safetensors file ({len(data):,} bytes): {error}"
        ) from error
    try:
        return tensors, Facts([*tensors]) if text is None else Facts.from_json(text)
    except TieError as error:  # a transform that this process does not know
        raise FileError(f"cannot load {str(path)!r}: {error}") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise FileError(f"cannot load {str(path)!r}: its metadata are damaged: {error}") from error


def _into(like: Any, tree: Tree, file: str) -> Any:
    """The leaves of the tree in the containers and ties of `like`."""
    try:
        tree = _stacked_as(like, tree)
    except PtreeError as error:
        raise type(error)(f"cannot load {file!r} into `like`: {error}") from None
    wanted, got = dict(leaves(like)), dict(leaves(tree))
    tied = aliases(tree)
    for name in wanted:
        if name not in got and name in tied:  # tied in the file only: a leaf of its own here
            got[name] = copied(tree[name])
    problems: list[str] = []
    came: dict[str, str] = {}
    for alias, tie in aliases(like).items():
        if tied.get(alias) == tie:
            continue  # the same tie: nothing to compare
        if alias in tree and tie.source in got:  # one leaf, if what the file says of the two agrees
            got.pop(alias, None)
            value, other = tree[alias], tie.read(got[tie.source])
            if not same(other, value):
                second = came.get(tie.source, tie.shown())
                problems.append(_differ(alias, value, second, other, "`like`", "the file"))
        elif alias in got:
            came[tie.source] = alias
            got[tie.source] = tie.write(got.pop(alias))
    differ = differences(wanted, got)
    if any(differ):
        raise structure_error(
            f"cannot load {file!r} into `like`",
            *differ,
            wanted,
            got,
            sides=(" in `like`", " in the file"),
            ties=problems,
        )
    if problems:
        raise FileError(f"cannot load {file!r} into `like`: {lines(problems)}")
    try:
        return replace_leaves(like, {name: _as(wanted[name], value, name) for name, value in got.items()})
    except FileError as error:
        raise FileError(f"cannot load {file!r} into `like`: {error}") from None


def _as(like: Any, value: Any, path: str) -> Any:
    """NumPy where `like` has NumPy; else a jax array."""
    if isinstance(like, (np.ndarray, np.generic)):
        return np.asarray(value) if isinstance(like, np.ndarray) else np.asarray(value)[()]
    return to_jax(value, path) if isinstance(value, (np.ndarray, np.generic)) else value
