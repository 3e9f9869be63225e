"""Write Keras' files: new values into a copy of a file, or a new h5 of Keras 2's form or `.weights.h5` from names alone."""

from __future__ import annotations

import os
import re
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import ml_dtypes
import numpy as np

from .._errors import FileError
from .._stored.drafts import draft
from .._words import listed, quoted, short_dtype
from .draft_writing import check_arrays, target_path
from .hdf5_file import Group, Hdf5File, h5py_module
from .keras_files import WEIGHTS_MEMBER, open_h5_file, open_keras

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
_DTYPES = [
    np.dtype(kind)
    for kind in (
        "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool",
        "complex64", "complex128",
    )
]  # fmt: skip
_MOST_ATTRIBUTE = 64512
"""Bytes that Keras writes into one attribute of HDF5, which takes less than 64 KB."""
_COUNT = re.compile(r"_?([0-9]+)$")
"""The count of a layer's name, `dense_1`."""
_KERAS_ORDER = (
    "gamma", "kernel", "embeddings", "depthwise_kernel", "pointwise_kernel", "recurrent_kernel", "beta", "bias",
    "moving_mean", "moving_variance",
)  # fmt: skip
"""The order of the variables of one layer in Keras: Keras assigns them by it, not by their names."""


# ---------------------------------------------------------------------- a copy with new values


def update_keras(
    path: str | os.PathLike[str], template: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]
) -> None:
    """Write a copy of a file of Keras with new values; what is not in `arrays` stays, the architecture and the optimizer too.

    This writes every kind of file that Keras has, as all that Keras needs besides the numbers is in the template.

    Args:
        path: the file; the template itself may be replaced.
        template: a `.keras`, `.weights.h5` or h5 of Keras 2.
        arrays: by the names that reading the template gives.

    Raises:
        FileError: a name is not in the template, or has another shape or dtype there; all of them are listed.
        OSError: a file cannot be read or written.
    """
    place = target_path(path)
    is_archive = zipfile.is_zipfile(template)
    with open_keras(os.fspath(template)) if is_archive else open_h5_file(os.fspath(template)) as file:
        _check_fit(file, arrays)
        dataset_paths = file.dataset_paths()
    values = {dataset_paths[name]: array for name, array in arrays.items()}
    # opened first: the draft may replace it
    with open(template, "rb") as source, draft(place) as target, FileIO(target, "r+", closefd=False) as out:
        if is_archive:
            _update_archive(source, out, values)
        else:
            shutil.copyfileobj(source, out)
            _update_h5(out, values)


def _check_fit(file: Hdf5File, arrays: Mapping[str, np.ndarray]) -> None:
    problems: list[str] = []
    for name, array in arrays.items():
        there = file.arrays.get(name)
        if there is None:
            problems.append(f"{quoted(name)} is not in it")
        elif there.shape != array.shape:
            problems.append(f"{quoted(name)} has the shape {there.shape} in it, and {array.shape} in `arrays`")
        elif there.dtype != array.dtype.newbyteorder("="):
            expected, got = short_dtype(there.dtype), short_dtype(array.dtype)
            problems.append(f"{quoted(name)} is {expected} in it, and {got} in `arrays`")
    if problems:
        first = "\n  ".join(problems[:10])
        more = f"\n  and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise FileError(f"the arrays do not fit {quoted(file.path)}:\n  {first}{more}")


def _update_archive(source: IO[bytes], out: FileIO, values: Mapping[str, np.ndarray]) -> None:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(out, "w") as new:
        for member in old.infolist():
            with old.open(member) as packed, new.open(member.filename, "w", force_zip64=True) as copy:
                if member.filename != WEIGHTS_MEMBER:
                    shutil.copyfileobj(packed, copy)
                    continue
                with TemporaryFile() as weights:
                    shutil.copyfileobj(packed, weights)
                    _update_h5(weights, values)
                    weights.seek(0)
                    shutil.copyfileobj(weights, copy)


def _update_h5(file: IO[bytes] | FileIO, values: Mapping[str, np.ndarray]) -> None:
    with h5py_module().File(file, "r+") as opened:
        for place, array in values.items():
            opened[place][...] = array.view("V2") if array.dtype == _BFLOAT16 else array


# ------------------------------------------------------------------------------- new files


def write_keras_weights(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Write a `.weights.h5` of Keras 3, which `load_weights` reads.

    Its names are those of Keras' groups, `layers/dense_1/vars/0`: the class of a layer in small letters and a count, then
    the place of the variable. Names of layers and variables do not tell these; with them, `update_keras` fills a copy of a
    file, and `write_keras_h5` writes the form of Keras 2.

    Raises:
        FileError: a name is no such place, h5py is not installed, or Keras lacks a dtype.
        OSError: the file cannot be written.
    """
    others = [name for name in arrays if not _is_place(name)]
    if others:
        raise FileError(
            f"a .weights.h5 names arrays by Keras' groups, such as layers/dense/vars/0, which these do not tell: {listed(others)}; "
            "fill a copy of a file that Keras wrote, or write an .h5 of Keras 2, whose names are such as hidden/kernel"
        )
    check_arrays(arrays, [*_DTYPES, _BFLOAT16], "HDF5")
    _refuse_no_segments(arrays)
    with _new_h5(target_path(path)) as file:
        file.create_group("vars")  # of the model itself: Keras 2 expects it
        for name, array in arrays.items():
            if array.dtype == _BFLOAT16:
                file.create_dataset(name, data=np.ascontiguousarray(array).view("V2"))
                file[name].attrs["dtype"] = "bfloat16"
            else:
                file.create_dataset(name, data=array)


def _refuse_no_segments(names: Iterable[str]) -> None:
    wrong = [name for name in names if not {"", "."}.isdisjoint(name.split("/"))]
    if wrong:
        raise FileError(f"HDF5 has no groups that are called '.' or have no name: {listed(wrong)}")


def _is_place(name: str) -> bool:
    *_, group, number = ["", *name.split("/")]
    return group == "vars" and number.isascii() and number.isdigit()


def write_keras_h5(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Write weights in Keras 2's form, which `load_weights` of Keras 2 and 3 reads from a path that ends in `.h5`.

    Keras assigns them by the order of the layers and of the variables in each, and not by their names (unless it is asked
    to, `by_name=True`): layers are written in the order of `arrays`, and the variables of a layer in the order of Keras, kernel
    before bias and moving averages last.

    Args:
        path: the file; an old one is replaced at once.
        arrays: by layer and variable, `hidden/kernel`, in the order of the layers.

    Raises:
        FileError: a name has no layer in it, h5py is not installed, or Keras 2 lacks a dtype.
        OSError: the file cannot be written.
    """
    alone = [name for name in arrays if not all(name.partition("/"))]
    if alone:
        raise FileError(f"a file of Keras 2 names arrays by layer and variable, hidden/kernel; got {listed(alone)}")
    check_arrays(arrays, _DTYPES, "Keras 2")
    _refuse_no_segments(arrays)
    layers: dict[str, list[str]] = {}
    for name in arrays:
        layers.setdefault(name.partition("/")[0], []).append(name)
    with _new_h5(target_path(path)) as file:
        _write_names(file, "layer_names", list(layers))
        file.attrs["backend"] = "jax"
        file.attrs["keras_version"] = "2.15.0"
        for layer, names in layers.items():
            _write_layer(file.create_group(layer), _in_keras_order(names), arrays)


def layers_in_doubt(arrays: Mapping[str, np.ndarray]) -> list[list[str]]:
    """The groups of layers with equal shapes whose order may not be the model's, so that Keras would exchange their weights.

    Layers of other shapes in a wrong order are an error in Keras. Alphabetical order is that in which JAX returns a dict;
    counted names in the order of their counts, `dense`, `dense_1`, `dense_2`, are that of the model. Layers inside of a layer, such as
    the query, key and value of an attention, are assigned by their order too.
    """
    groups: dict[object, list[str]] = {}
    for layer, names in _names_by_layer(arrays).items():
        shapes = tuple(arrays[name].shape for name in _in_keras_order(names))
        groups.setdefault((layer.rpartition("/")[0], shapes), []).append(layer)
    return [layers for layers in groups.values() if _is_order_in_doubt(layers)]


def _names_by_layer(names: Iterable[str]) -> dict[str, list[str]]:
    """The arrays in each layer, and in each layer inside of one."""
    found: dict[str, list[str]] = {}
    for name in names:
        segments = name.split("/")
        for depth in range(1, len(segments)):
            found.setdefault("/".join(segments[:depth]), []).append(name)
    return found


def _is_order_in_doubt(layers: Sequence[str]) -> bool:
    stems = {_COUNT.sub("", layer) for layer in layers}
    if len(stems) > 1:
        return list(layers) == sorted(layers)
    counts = [_count_of(layer) for layer in layers]
    return counts != sorted(counts)


def _count_of(layer: str) -> int:
    found = _COUNT.search(layer)
    return -1 if found is None else int(found[1])


def _write_layer(group: Group, names: Sequence[str], arrays: Mapping[str, np.ndarray]) -> None:
    weights = {f"{name}:0": arrays[name] for name in names}
    _write_names(group, "weight_names", list(weights))
    for weight, array in weights.items():
        group.create_dataset(weight, data=array)


def _in_keras_order(names: Sequence[str]) -> list[str]:
    """Order the variables of each inner layer as Keras does; non-trainable averages follow those of all."""
    inner_layers = list(dict.fromkeys(name.rpartition("/")[0] for name in names))

    def place(name: str) -> tuple[bool, int, int]:
        inner, _, variable = name.rpartition("/")
        rank = _KERAS_ORDER.index(variable) if variable in _KERAS_ORDER else len(_KERAS_ORDER)
        return variable.startswith("moving_"), inner_layers.index(inner), rank

    return sorted(names, key=place)


def _write_names(group: Group, attribute: str, names: Sequence[str]) -> None:
    """Write a list of names into attributes of a group, split as Keras splits it: into equal parts of less than 64 KB."""
    encoded = np.array([name.encode() for name in names])
    parts = -(-encoded.nbytes // _MOST_ATTRIBUTE) or 1
    if parts == 1:
        group.attrs[attribute] = encoded
        return
    at_once = _MOST_ATTRIBUTE // encoded.itemsize
    for number, first in enumerate(range(0, len(encoded), at_once)):
        group.attrs[f"{attribute}{number}"] = encoded[first : first + at_once]


@contextmanager
def _new_h5(path: Path) -> Iterator[Group]:
    """A new HDF5 file, which replaces the old one at the end."""
    h5py = h5py_module()
    with draft(path) as target, FileIO(target, "r+", closefd=False) as out, h5py.File(out, "w") as file:
        yield file
