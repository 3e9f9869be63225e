"""Read and write files of any framework: arrays by the names that the framework gives them, in its layout."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np

from .._errors import FileError
from .._foreign.keras_writing import update_keras
from .._paths import STACKED
from .._stored.locations import checked_path
from .._tree import PyTree
from .._words import listed, quoted
from ..files._foreign_tree import read_each
from ._named_arrays import NamedArray, NamedArrays, opened_arrays
from ._writers import WRITERS, format_of_name, refuse_other_ending


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

    Args:
        path: the file, or a folder of a checkpoint.

    Raises:
        FileError: a format that is not read, a damaged file, arrays that cannot be read, or a reader that is to be installed
            first: the message names the extra.
        OSError: the file is not there or cannot be read.
    """
    text = checked_path(path, "read(path)")
    with opened_arrays(text) as arrays:
        whole = [array for array in arrays.by_path.values() if not array.is_layer]
        return _values(whole, f"cannot read {arrays.title}")


def _values(arrays: Sequence[NamedArray], attempt: str) -> dict[str, np.ndarray]:
    unreadable = [array for array in arrays if array.problem]
    if unreadable:
        raise FileError(f"{attempt}: {listed([f'{array.name} {array.problem}' for array in unreadable])}")
    return read_each({array.name: array.fetch for array in arrays})


def write(
    path: str | os.PathLike[str],
    arrays: PyTree,
    *,
    to: str | None = None,
    template: str | os.PathLike[str] | None = None,
) -> None:
    """Write named arrays as a file of another framework, which replaces an old one at once.

    >>> import tempfile, numpy as np
    >>> from ptree import convert
    >>> path = tempfile.mkdtemp() + "/m.pt"
    >>> convert.write(path, {"0.weight": np.ones((8, 4), "f4")})
    >>> list(convert.read(path))
    ['0.weight']

    Keras assigns weights by the order of the layers: a new `.h5` has that of `arrays`, and a dict that went through JAX is in
    alphabetical order. `template=`, a file that the model saved, goes by names, so it is the safe way to Keras.
    Layouts stay as they are, and names too (`ptree.convert.Table` changes both): `a.b` and `a/b` are the same name, and each
    format has its own separator. A stack is written as single layers, but to "ptree". Names with the very same memory are tied
    in the file of PyTorch. Leaves that are no arrays, such as texts and functions, are left out; of a PRNG key its words are
    written.

    Args:
        path: the file.
        arrays: a flat dict, a tree, a state dict or another source of `Table.apply`.
        to: "torch" (`.pt`), "hf" (safetensors as transformers reads it), "ptree" (safetensors with paths), "keras" (Keras 3's
            `.weights.h5`), "keras2" (`.h5`), "flax" (`.msgpack`), "mxnet" (`.params`), "tensorflow" (a checkpoint), "npz" or
            "gguf"; by default what the name of the file ends in says, and of `.safetensors` whether names have dots.
        template: a file of Keras of which a copy is written with these arrays, by the names that `read` gives: what is not
            among them stays, the architecture too. A `.keras` can be written in no other way.

    Raises:
        FileError: a name, dtype or array that the format lacks, or a name of a file that says no format, or another than `to`
            or `template`.
        OSError: the file cannot be written.

    Warns:
        UserWarning: layers of equal shapes in alphabetical order in an `.h5` of Keras 2.
    """
    text = checked_path(path, "write(path, arrays)")
    if to is not None and to not in WRITERS:
        raise FileError(f"cannot write {quoted(text)}: expected to= one of {listed(sorted(WRITERS))}, got {quoted(to)}")
    if template is not None:
        _refuse_template(text, to, os.fspath(template))
    elif to is not None:
        refuse_other_ending(text, to)
    with opened_arrays(arrays) as source:
        form = to or ("keras" if template is not None else format_of_name(text, is_dotted=source.is_dotted))
        written = _written_arrays(source, form)
        values = _values(written, f"cannot write {quoted(text)}")
    if template is not None:
        update_keras(text, template, values)
        return
    writer = WRITERS[form]
    names = {array.name: array.path.replace("/", writer.separator) for array in written}
    _refuse_clashes(text, names)
    # in the order of the source: Keras assigns weights by it
    writer.write(text, {names[name]: value for name, value in values.items()})


def _written_arrays(source: NamedArrays, form: str) -> list[NamedArray]:
    """The arrays as a format has them: a stack whole in a file of ptree, and by single layers in all others."""
    arrays = source.by_path.values()
    if form == "ptree":
        return [array for array in arrays if not array.is_layer]
    return [array for array in arrays if STACKED not in array.path.split("/")]


def _refuse_template(path: str, to: str | None, template: str) -> None:
    if to not in (None, "keras", "keras2"):
        raise FileError(f"cannot write {quoted(path)}: template= is for files of Keras, and to= says {quoted(to)}")
    if not path.endswith((".keras", ".h5", ".hdf5")):
        raise FileError(f"cannot write {quoted(path)}: template= is for files of Keras, .keras, .h5 or .hdf5")
    kind = _keras_kind(template)
    if kind not in ("", _keras_kind(path)):
        raise FileError(f"cannot write {quoted(path)}: it is a copy of {quoted(template)}, so its name ends in {kind}")


def _keras_kind(path: str) -> str:
    """The kind of a file of Keras by the end of its name; empty for any other name."""
    for ending, kind in ((".keras", ".keras"), (".weights.h5", ".weights.h5"), (".h5", ".h5"), (".hdf5", ".h5")):
        if path.endswith(ending):
            return kind
    return ""


def _refuse_clashes(path: str, names: Mapping[str, str]) -> None:
    first: dict[str, str] = {}
    for name, written in names.items():
        other = first.setdefault(written, name)
        if other != name:
            raise FileError(
                f"cannot write {quoted(path)}: {quoted(other)} and {quoted(name)} both become {quoted(written)}"
            )
