"""load, a tree from a safetensors file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing
from typing import Any, Literal

from .._draw import Shardings, placement, shardings_for
from .._edit import Selector, leaves, map_leaves, paths
from .._edit import rename as rename_leaves
from .._edit import select as select_leaves
from .._errors import FileError
from .._tree import Tree, same
from .._words import with_fixes
from ._like import Report, Ways, differ, into_like
from ._open import File
from ._orbax import Checkpoint, is_orbax
from ._source import Compare, Source


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
    with closing(_source(path, verify is not False, mmap)) as file:
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
            raise FileError(f"{asked}: {with_fixes(apart, ['Load them with a `like` in which they are apart'])}")
        return (tree, Report(loaded=paths(tree), dropped=left)) if report else tree
    made = Report(dropped=left)
    fitted = into_like(
        like, tree, f"{asked} into `like`", Ways(cast, missing, mismatch, key, shardings is None), damaged, made
    )
    return (fitted, made) if report else fitted


def _source(path: str | os.PathLike[str], verify: bool, mmap: bool) -> Source:
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
                apart[alias] = differ(alias, values[alias], tie.shown(), other, "its metadata", "its tensors")
    return [*apart.values()], file.tree_of(apart)
