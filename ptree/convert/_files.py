"""Read and write files of any framework: arrays by the names that the framework gives them, in its layout."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from .._edit import unflatten
from .._errors import FileError
from .._stored.locations import checked_path
from .._tree import PyTree
from .._words import listed, quoted
from ..files._save import save
from ._keras_order import write_keras2
from ._named_arrays import NamedArray, NamedArrays, opened_arrays

Writer: TypeAlias = "Callable[[str, Mapping[str, np.ndarray], Mapping[str, str]], object]"
"""Writes to a path: arrays by name; and of the names that show the array of another name, name -> that name."""


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """All arrays of a file, by the names and in the layout of the framework that wrote it.

    >>> import tempfile, numpy as np
    >>> from ptree import convert
    >>> path = tempfile.mkdtemp() + "/m.pt"
    >>> convert.write(path, {"0.weight": np.ones((8, 4), "f4")})
    >>> {name: array.shape for name, array in convert.read(path).items()}
    {'0.weight': (8, 4)}

    Files of PyTorch, safetensors and shards of it, Keras, Flax (msgpack), MXNet, TensorFlow (checkpoints, variables of a
    SavedModel), Orbax, NumPy (npz) and GGUF. No framework is imported, and nothing in a file is run. Arrays may use the mapped memory
    of the file, which then must not be written over.

    Raises:
        FileError: a format that is not read, a damaged file, arrays that cannot be read, or a reader that is to be installed
            first: the message names the extra.
        OSError: the file is not there or cannot be read.
    """
    with opened_arrays(path) as arrays:
        return _values(arrays, f"cannot read {arrays.title}")


def _values(arrays: NamedArrays, attempt: str) -> dict[str, np.ndarray]:
    whole = [array for array in arrays.by_path.values() if not array.is_layer]
    unreadable = [array for array in whole if array.problem]
    if unreadable:
        raise FileError(f"{attempt}: {listed([f'{array.name} {array.problem}' for array in unreadable])}")
    return {array.name: array.fetch() for array in whole}


def write(
    path: str | os.PathLike[str],
    arrays: PyTree,
    *,
    to: str | None = None,
    template: str | os.PathLike[str] | None = None,
) -> None:
    """Write named arrays as a file of another framework, which replaces an old one at once.

    Keras assigns weights by the order of the layers: a new `.h5` has that of `arrays`, and a dict that went through JAX is in
    alphabetical order. `template=`, a file that the model saved, goes by names, so it is the safe way to Keras.
    Names and layouts stay as they are, but for dots between segments where the framework has them, and slashes where it has
    those: `ptree.convert.Table` changes names and layouts. Names with the very same memory are tied in the file of PyTorch.

    Args:
        path: the file.
        arrays: a flat dict, a tree, a state dict or another source of `Table.apply`.
        to: "torch" (`.pt`), "hf" (safetensors as transformers reads it), "ptree" (safetensors with paths), "keras" (Keras 3's
            `.weights.h5`), "keras2" (`.h5`), "flax" (`.msgpack`), "mxnet" (`.params`), "tensorflow" (a checkpoint), "npz" or
            "gguf"; by default what the name of the file ends in says, and of `.safetensors` whether names have dots.
        template: a file of Keras of which a copy is written with these arrays, by the names that `read` gives: what is not
            among them stays, the architecture too. A `.keras` can be written in no other way.

    Raises:
        FileError: a name, dtype or array that the format lacks, or a name of a file that says no format.
        OSError: the file cannot be written.

    Warns:
        UserWarning: layers of equal shapes in alphabetical order in an `.h5` of Keras 2.
    """
    text = checked_path(path, "write(path, arrays)")
    if to is not None and to not in WRITERS:
        raise FileError(f"cannot write {quoted(text)}: expected to= one of {listed(sorted(WRITERS))}, got {quoted(to)}")
    with opened_arrays(arrays) as source:
        whole = [array for array in source.by_path.values() if not array.is_layer]
        values = _values(source, f"cannot write {quoted(text)}")
    if template is not None:
        _write_keras_copy(text, template, values)
        return
    separator, writer = WRITERS[to or _format_of_name(text, is_dotted=source.is_dotted)]
    names = {array.name: array.path.replace("/", separator) for array in whole}
    _refuse_clashes(text, names)
    aliases = {names[alias]: names[name] for alias, name in _aliases(whole, values).items()}
    # in the order of the source: Keras assigns weights by it
    writer(text, {names[name]: value for name, value in values.items()}, aliases)


def _format_of_name(path: str, *, is_dotted: bool) -> str:
    if path.endswith(".safetensors"):
        return "hf" if is_dotted else "ptree"
    for ending, form in _ENDINGS.items():
        if path.endswith(ending):
            return form
    raise FileError(f"cannot write {quoted(path)}: its name says no format; give to=, one of {listed(sorted(WRITERS))}")


def _refuse_clashes(path: str, names: Mapping[str, str]) -> None:
    first: dict[str, str] = {}
    for name, written in names.items():
        other = first.setdefault(written, name)
        if other != name:
            raise FileError(
                f"cannot write {quoted(path)}: {quoted(other)} and {quoted(name)} both become {quoted(written)}"
            )


def _aliases(arrays: list[NamedArray], values: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Name -> an earlier name with the very same numbers in memory, in the same order."""
    first: dict[object, str] = {}
    aliases: dict[str, str] = {}
    for array in arrays:
        value = values[array.name]
        if not value.size:
            continue
        memory = (value.__array_interface__["data"][0], value.shape, value.strides, value.dtype)
        other = first.setdefault(memory, array.name)
        if other != array.name:
            aliases[array.name] = other
    return aliases


# ------------------------------------------------------------------------------- the writers


def _write_torch(path: str, arrays: Mapping[str, np.ndarray], aliases: Mapping[str, str]) -> None:
    from .._foreign.torch_write import write_torch

    own = {name: array for name, array in arrays.items() if name not in aliases}
    write_torch(path, own, aliases=aliases)


def _write_hf(path: str, arrays: Mapping[str, np.ndarray], aliases: Mapping[str, str]) -> None:
    # transformers refuses a file whose metadata do not say the framework
    save(path, arrays, metadata={"format": "pt"})


def _write_ptree(path: str, arrays: Mapping[str, np.ndarray], aliases: Mapping[str, str]) -> None:
    save(path, unflatten(arrays))


def _write_keras_copy(path: str, template: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    from .._foreign.keras_writing import update_keras

    update_keras(path, template, arrays)


def _write_keras(path: str, arrays: Mapping[str, np.ndarray], aliases: Mapping[str, str]) -> None:
    from .._foreign.keras_writing import write_keras_weights

    write_keras_weights(path, arrays)


def _write_keras2(path: str, arrays: Mapping[str, np.ndarray], aliases: Mapping[str, str]) -> None:
    write_keras2(path, arrays)


def _write_flax(path: str, arrays: Mapping[str, np.ndarray], aliases: Mapping[str, str]) -> None:
    from .._foreign.flax_msgpack import write_msgpack

    write_msgpack(path, arrays)


def _write_mxnet(path: str, arrays: Mapping[str, np.ndarray], aliases: Mapping[str, str]) -> None:
    from .._foreign.mxnet_params import write_mxnet

    write_mxnet(path, arrays)


def _write_tensorflow(path: str, arrays: Mapping[str, np.ndarray], aliases: Mapping[str, str]) -> None:
    from .._foreign.tensorflow_checkpoint import write_tensorflow

    write_tensorflow(path, arrays)


def _write_npz(path: str, arrays: Mapping[str, np.ndarray], aliases: Mapping[str, str]) -> None:
    from .._foreign.npz_file import write_npz

    write_npz(path, arrays)


def _write_gguf(path: str, arrays: Mapping[str, np.ndarray], aliases: Mapping[str, str]) -> None:
    from .._foreign.gguf_file import write_gguf

    write_gguf(path, arrays)


WRITERS: dict[str, tuple[str, Writer]] = {
    "torch": (".", _write_torch),
    "hf": (".", _write_hf),
    "ptree": ("/", _write_ptree),
    "keras": ("/", _write_keras),
    "keras2": ("/", _write_keras2),
    "flax": ("/", _write_flax),
    "mxnet": (".", _write_mxnet),
    "tensorflow": ("/", _write_tensorflow),
    "npz": ("/", _write_npz),
    "gguf": (".", _write_gguf),
}
"""Format -> what stands between the segments of its names, and what writes it."""
_ENDINGS = {
    ".pt": "torch", ".pth": "torch", ".bin": "torch", ".weights.h5": "keras", ".h5": "keras2",
    ".hdf5": "keras2", ".msgpack": "flax", ".params": "mxnet", ".npz": "npz", ".gguf": "gguf", ".ckpt": "tensorflow",
    ".index": "tensorflow",
}  # fmt: skip
