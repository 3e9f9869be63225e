"""load, a tree from a safetensors file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from .._access import replace_leaves
from .._check import differences, structure_error
from .._errors import FileError, PtreeError
from .._leaf import copied, describe, same
from .._select import aliases, leaves
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
        tree = put_together(values, facts)
    except (PtreeError, ValueError, TypeError, KeyError) as error:
        raise FileError(f"cannot load {file!r}: {error}") from error
    return tree if like is None else _into(like, tree, file)


def _read(path: Path) -> tuple[dict[str, np.ndarray], Facts]:
    from safetensors import SafetensorError, deserialize

    data = path.read_bytes()
    try:
        found = deserialize(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        text = header.get("__metadata__", {}).get("ptree")
        facts = Facts([name for name, _ in found]) if text is None else Facts.from_json(text)
        tensors: dict[str, np.ndarray] = {}
        for name, about in found:
            if about["dtype"] not in DTYPES:
                raise ValueError(f"{name!r} is of the dtype {about['dtype']}, which NumPy and JAX do not have")
            tensors[name] = np.frombuffer(about["data"], DTYPES[about["dtype"]]).reshape(about["shape"])
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise FileError(
            f"cannot load {str(path)!r}: it is not a whole safetensors file ({len(data):,} bytes): {error}"
        ) from error
    return tensors, facts


def _into(like: Any, tree: Tree, file: str) -> Any:
    """The leaves of the tree in the containers and ties of `like`."""
    wanted, got = dict(leaves(like)), dict(leaves(tree))
    tied = aliases(tree)
    for name in wanted:
        if name not in got and name in tied:  # tied in the file only: a leaf of its own here
            got[name] = copied(tree[name])
    problems: list[str] = []
    for alias, tie in aliases(like).items():
        if tied.get(alias) == tie:
            continue  # the same tie: nothing to compare
        if alias in tree and tie.source in got:  # one leaf, if what the file says of the two agrees
            got.pop(alias, None)
            value, other = tree[alias], tie.read(got[tie.source])
            if not same(other, value):
                problems.append(
                    f"{alias!r} and {tie.source!r} are tied in `like` and differ in the file{_how_much(value, other)}"
                )
        elif alias in got:
            got[tie.source] = tie.write(got.pop(alias))
    differ = differences(wanted, got)
    if any(differ):
        raise structure_error(
            f"cannot load {file!r} into `like`", *differ, wanted, got, sides=(" in `like`", " in the file")
        )
    if problems:
        raise FileError(f"cannot load {file!r} into `like`: " + "; ".join(problems))
    try:
        return replace_leaves(like, {name: _as(wanted[name], value, name) for name, value in got.items()})
    except FileError as error:
        raise FileError(f"cannot load {file!r} into `like`: {error}") from None


def _how_much(a: Any, b: Any) -> str:
    if describe(a) != describe(b) or not jnp.issubdtype(getattr(a, "dtype", object), jnp.floating):
        return ""
    return f", by up to {float(np.max(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)))):.3g}"


def _as(like: Any, value: Any, path: str) -> Any:
    """NumPy where `like` has NumPy; else a jax array."""
    if isinstance(like, (np.ndarray, np.generic)):
        return np.asarray(value) if isinstance(like, np.ndarray) else np.asarray(value)[()]
    return to_jax(value, path) if isinstance(value, (np.ndarray, np.generic)) else value
