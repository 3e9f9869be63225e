"""save, a tree to one safetensors file."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any
from uuid import uuid4

from ._format import taken_apart


def save(path: str | os.PathLike[str], tree: Any, *, expand_ties: bool = False) -> None:
    """Write a tree to one safetensors file, in which every leaf has its path as its name.

    >>> import tempfile, ptree as pt
    >>> file = Path(tempfile.mkdtemp()) / "mlp.safetensors"
    >>> pt.save(file, pt.tie({"2": {"bias": 1.0}, "4": {"bias": 1.0}}, {"4": "2"}))
    >>> pt.load(file)
    Tree(
      2/bias  1.0
      4/bias  = 2/bias
    )

    A tied leaf is written once, or under each of its names with `expand_ties`, for readers that know no ties;
    `load` ties them again. Ties, declared order and empty nodes are in the metadata. It is written
    beside the old file, flushed to disk, and then takes its place at once: a crash leaves the old file or
    the new one. Any safetensors reader can read it.

    Args:
        path: the file.
        tree: any pytree of jax and NumPy arrays, numbers and typed PRNG keys.
        expand_ties: write every alias too, as it reads.

    Raises:
        FileError: leaves that a file cannot hold; it lists all of them, and nothing is written.
        OSError: the disk is full, the folder is not there or may not be written.
    """
    from safetensors import SafetensorError, TensorSpec, serialize_file

    tensors, facts = taken_apart(tree, expand_ties)
    specs = {
        name: TensorSpec(dtype=array.dtype.name, shape=array.shape, data_ptr=array.ctypes.data, data_len=array.nbytes)
        for name, array in tensors.items()
    }
    path = Path(os.path.realpath(path))  # through a link, not over it
    draft = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        draft.touch()
        mode = stat.S_IMODE(os.stat(path if path.exists() else draft).st_mode)
        try:
            serialize_file(specs, draft, metadata={"ptree": facts.to_json()})
        except SafetensorError as error:
            raise OSError(f"cannot write {str(path)!r}: {error}") from error
        os.chmod(draft, mode)
        with open(draft, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
