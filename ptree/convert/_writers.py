"""The formats that `write` knows: how names are written in each, which function writes it, and what file names end in."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import NamedTuple

import numpy as np

from .._edit import unflatten
from .._errors import FileError
from .._foreign.draft_writing import check_dtypes
from .._foreign.torch_write import write_torch
from .._stored.dtypes import CODES
from .._words import listed, quoted
from ..files._save import save


class Writer(NamedTuple):
    """What writes a format: the function is called with a path and arrays by name."""

    separator: str
    """What stands between the segments of names."""
    module: str
    """Imported for this format alone."""
    function: str

    def write(self, path: str, arrays: Mapping[str, np.ndarray]) -> None:
        getattr(import_module(self.module, __package__), self.function)(path, arrays)


WRITERS: dict[str, Writer] = {
    "torch": Writer(".", "._writers", "write_state_dict"),
    "hf": Writer(".", "._writers", "write_hf"),
    "ptree": Writer("/", "._writers", "write_tree"),
    "keras": Writer("/", ".._foreign.keras_writing", "write_keras_weights"),
    "keras2": Writer("/", "._keras_order", "write_keras2"),
    "flax": Writer("/", ".._foreign.flax_msgpack", "write_msgpack"),
    "mxnet": Writer(".", ".._foreign.mxnet_params", "write_mxnet"),
    "tensorflow": Writer("/", ".._foreign.tensorflow_checkpoint", "write_tensorflow"),
    "npz": Writer("/", ".._foreign.npz_file", "write_npz"),
    "gguf": Writer(".", ".._foreign.gguf_file", "write_gguf"),
}
"""Format -> what writes it."""
_ENDINGS = {
    ".pt": "torch", ".pth": "torch", ".bin": "torch", ".weights.h5": "keras", ".h5": "keras2",
    ".hdf5": "keras2", ".msgpack": "flax", ".params": "mxnet", ".npz": "npz", ".gguf": "gguf", ".ckpt": "tensorflow",
    ".index": "tensorflow",
}  # fmt: skip


_OF_SEVERAL_FORMATS = (".bin", ".ckpt", ".index", ".params")


def format_of_name(path: str, *, is_dotted: bool) -> str:
    """The format that the end of a file name says; of `.safetensors` the names of the arrays say which of two.

    Raises:
        FileError: it says none.
    """
    if path.endswith(".safetensors"):
        return "hf" if is_dotted else "ptree"
    for ending, form in _ENDINGS.items():
        if path.endswith(ending):
            return form
    attempt = f"cannot write {quoted(path)}"
    if path.endswith(".keras"):
        raise FileError(
            f"{attempt}: a .keras has the architecture of the model too; give template= (--template), a .keras of this model,"
            " or write a .weights.h5"
        )
    raise FileError(f"{attempt}: its name says no format; give to= (--to), one of {listed(sorted(WRITERS))}")


def refuse_other_ending(path: str, form: str) -> None:
    """Refuse a format that other programs would not look for behind this end of a file name.

    Raises:
        FileError: the name says another format.
    """
    if path.endswith(_OF_SEVERAL_FORMATS):
        return
    if path.endswith(".safetensors"):
        expected = ["hf", "ptree"]
    elif path.endswith(".keras"):
        expected = []
    else:
        expected = [of_ending for ending, of_ending in _ENDINGS.items() if path.endswith(ending)][:1] or [form]
    if form not in expected:
        says = (
            f"its name says to={' or '.join(map(repr, expected))}"
            if expected
            else "a .keras is written by template= alone"
        )
        raise FileError(f"cannot write {quoted(path)} in the format {form!r}: {says}")


def write_state_dict(path: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a file of PyTorch in which names with the very same memory are tied."""
    aliases = _aliases(arrays)
    single = {name: array for name, array in arrays.items() if name not in aliases}
    write_torch(path, single, aliases=aliases)


def write_hf(path: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Write safetensors as transformers reads them: it refuses a file whose metadata do not say the framework.

    Raises:
        FileError: a dtype that safetensors lacks, which ptree alone would read as what it was; or the file cannot be written.
    """
    check_dtypes(arrays, CODES, "safetensors", fix=", or to='ptree' keeps them, for ptree alone")
    save(path, arrays, metadata={"format": "pt"})


def write_tree(path: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Write safetensors of ptree."""
    save(path, unflatten(arrays))


def _aliases(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Name -> an earlier name with the very same numbers in memory, in the same order."""
    first: dict[object, str] = {}
    aliases: dict[str, str] = {}
    for name, array in arrays.items():
        if not array.size:
            continue
        memory = (array.__array_interface__["data"][0], array.shape, array.strides, array.dtype)
        other = first.setdefault(memory, name)
        if other != name:
            aliases[name] = other
    return aliases
