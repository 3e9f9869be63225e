"""The safetensors file beside a program: one that is written with it, or one that is there and is checked against the leaves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from ..._errors import FileError, StructureError
from ..._stored.locations import is_saved, refuse_same_file
from ..._stored.stored import open_stored
from ..._stored.stored_leaf import StoredLeaf
from ..._tree import Leaf, PyTree
from ..._words import describe, lines, listed, quoted
from ...files import open as open_file
from ...files._save import SavePlan, planned
from .stored_arrays import has_values, header_spec, is_key, saved_spec

_MARK = {"written_by": "ptree.convert.to_stablehlo"}
"""In the metadata of a file that is written beside a program: only such a file is replaced by the next export."""


def planned_weights(file: Path, params: PyTree, arrays: Mapping[str, Leaf]) -> SavePlan:
    """Plan the file that is written beside a program.

    Raises:
        FileError: leaves that a file cannot hold, or that have no values; or another file is there, such as a checkpoint.
    """
    empty = [path for path, leaf in arrays.items() if not has_values(leaf)]
    if empty:
        raise FileError(
            f"cannot write the weights {str(file)!r}: {listed(empty)} have a shape and no values."
            " Draw them by ptree.init, or name the file that holds them: weights='model.safetensors'"
        )
    _refuse_to_replace(file)
    return planned(file, params, _MARK, only_arrays=True)


def _refuse_to_replace(file: Path) -> None:
    """Refuse a file, or shards, that no earlier export wrote: its name does not stand in the call."""
    if not is_saved(file):
        return
    if _is_of_program(file):
        return
    raise FileError(
        f"cannot write the weights {str(file)!r}: a file is there that to_stablehlo did not write. If it holds `params`, give"
        f" weights={str(file)!r}, which leaves it as it is; else give the program another name, or remove that file"
    )


def _is_of_program(file: Path) -> bool:
    try:
        stored = open_stored(str(file), verify=False, mmap=False)
    except FileError:  # no safetensors file, or damaged
        return False
    stored.close()
    return _MARK.items() <= stored.metadata.items()


def checked_weights(file: str, program: str, arrays: Mapping[str, Leaf]) -> dict[str, StoredLeaf]:
    """Describe all arrays of a file that is there, which must hold these leaves.

    Raises:
        FileError: it is the file of the program itself, which would replace it.
        StructureError: leaves that it lacks, of another shape or dtype, or with other values; all of them.
    """
    stored_file = open_stored(file, verify=True, mmap=False)
    try:
        for read in (stored_file.path, *(shard.path for shard in stored_file.shards)):
            refuse_same_file(program, read)
        stored = stored_file.leaves
    finally:
        stored_file.close()
    missing = [path for path in arrays if path not in stored]
    misshapen: list[str] = []
    mistyped: list[str] = []
    problems: list[str] = []
    for path, leaf in arrays.items():
        if path in missing:
            continue
        expected, got = saved_spec(leaf), header_spec(stored[path])
        if expected.shape != got.shape:
            misshapen.append(path)
        elif expected.dtype != got.dtype:
            mistyped.append(path)
        else:
            continue
        problems.append(f"{quoted(path)}: {describe(got)} in the file, {describe(expected)} in `params`")
    if missing:
        problems.append(f"missing in the file: {listed(missing)}")
    if not problems:
        problems = _value_problems(file, arrays)
    if problems:
        text = f"{file!r} does not hold the weights of `params`:\n  {lines(problems, between=chr(10) + '  ')}"
        raise StructureError(text, missing=missing, misshapen=misshapen, mistyped=mistyped)
    return stored


def _value_problems(file: str, arrays: Mapping[str, Leaf]) -> list[str]:
    """Find leaves whose values are not those in the file; one leaf is read at a time. Specs have no values to compare."""
    with_values = {path: leaf for path, leaf in arrays.items() if has_values(leaf)}
    if not with_values:
        return []
    different: list[str] = []
    with open_file(file) as opened:
        for path, leaf in with_values.items():
            if not _are_equal(opened[path][...], leaf):
                different.append(path)
    if not different:
        return []
    return [f"other values in the file: {listed(different)}. Save `params` first, or give their spec (ptree.abstract)"]


def _are_equal(stored: Leaf, leaf: Leaf) -> bool:
    """Whether all bits are equal, so also NaN and NaN."""
    return _bits(stored) == _bits(leaf)


def _bits(leaf: Leaf) -> bytes:
    if is_key(getattr(leaf, "dtype", None)):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf).tobytes()
