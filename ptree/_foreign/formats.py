"""open_foreign: find the format of a file by its first bytes or its contents, and open it with the reader of that format."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from .._errors import FileError
from .._stored.locations import checked_path, nearest_file
from .._words import quoted
from .candidate import Candidate
from .foreign_file import ForeignFile
from .unread_files import why_not_read


@dataclass(frozen=True)
class Format:
    """A format that is read: how it is recognised, and the function that opens a file of it."""

    name: str
    matches: Callable[[Candidate], bool]
    module: str
    """Imported for files of this format alone."""
    function: str

    def open(self, path: str) -> ForeignFile:
        """Open a file of this format."""
        return getattr(import_module(f".{self.module}", __package__), self.function)(path)


def _is_torch_zip(candidate: Candidate) -> bool:
    return any(f"/{name}".endswith("/data.pkl") for name in candidate.zip_members)


def _is_torch_legacy(candidate: Candidate) -> bool:
    """Whether it begins with a pickle of the magic number of torch.save, 0x1950a86a20f9469cfc6c."""
    first = candidate.first_bytes
    return first.startswith(b"\x80") and b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19" in first[:32]


# ------------------------------------------------------------------- arrays by name, without code


def _is_mxnet(candidate: Candidate) -> bool:
    return candidate.first_bytes.startswith(b"\x12\x01" + bytes(14))  # 0x112 and 0, in 8 bytes each


def _is_hdf5(candidate: Candidate) -> bool:
    return candidate.first_bytes.startswith(b"\x89HDF\r\n\x1a\n")


def _is_keras(candidate: Candidate) -> bool:
    return {"config.json", "metadata.json"} <= set(candidate.zip_members)


def _is_npz(candidate: Candidate) -> bool:
    # one that is cut short has no names, and its reader says how it is damaged
    is_zip_by_name = candidate.path.endswith(".npz") and candidate.first_bytes.startswith(b"PK")
    return is_zip_by_name or any(name.endswith(".npy") for name in candidate.zip_members)


def _is_gguf(candidate: Candidate) -> bool:
    return candidate.first_bytes.startswith(b"GGUF")


def _is_tensorflow(candidate: Candidate) -> bool:
    from .tensorflow_checkpoint import checkpoint_index

    return checkpoint_index(candidate.path) is not None


def _is_msgpack(candidate: Candidate) -> bool:
    """A file of Flax begins with a map, whose first key is a text."""
    first = candidate.first_bytes
    if not first:
        return False
    header = {0xDE: 3, 0xDF: 5}.get(first[0], 1 if 0x81 <= first[0] <= 0x8F else 0)
    key = first[header : header + 1]
    return header > 0 and key != b"" and (0xA0 <= key[0] <= 0xBF or key[0] in (0xD9, 0xDA, 0xDB))


FORMATS: tuple[Format, ...] = (
    Format("PyTorch (zip)", _is_torch_zip, "torch_zip", "open_torch_zip"),
    Format("PyTorch (legacy)", _is_torch_legacy, "torch_legacy", "open_torch_legacy"),
    Format("MXNet params", _is_mxnet, "mxnet_params", "open_mxnet"),
    Format("HDF5", _is_hdf5, "keras_files", "open_h5_file"),
    Format("Keras", _is_keras, "keras_files", "open_keras"),
    Format("NumPy npz", _is_npz, "npz_file", "NpzFile"),
    Format("GGUF", _is_gguf, "gguf_file", "open_gguf"),
    Format("TensorFlow checkpoint", _is_tensorflow, "tensorflow_checkpoint", "open_tensorflow"),
    Format("Flax msgpack", _is_msgpack, "flax_msgpack", "open_msgpack"),
)
"""Asked in this order; the first that matches opens the file."""


def format_of(path: str) -> Format | None:
    """Find the format of what is at a path; None if it is none of another framework."""
    return _matching(Candidate(path))


def _matching(candidate: Candidate) -> Format | None:
    # first: the length of its header may begin like any other format, and its name may end like that of one
    if candidate.begins_as_safetensors:
        return None
    return next((form for form in FORMATS if form.matches(candidate)), None)


def open_foreign(path: str | os.PathLike[str], *, verify: bool = True) -> ForeignFile:
    """Open a file of another framework; names, shapes and dtypes are there at once, and numbers are read when asked for.

    Args:
        path: the file.
        verify: compare arrays that are read whole with checksums, where the format has them: at 4 GB a second it takes twice
            as long as to copy them.

    Raises:
        FileError: a format that is not read, or a damaged file.
        OSError: the file is not there or cannot be read.
    """
    text = checked_path(path, "read(path)")
    candidate = Candidate(text)
    form = _matching(candidate)
    if form is not None:
        file = form.open(text)
        file.verify = verify
        return file
    if not os.path.exists(text):
        raise FileNotFoundError(f"no file {quoted(text)}.{nearest_file(text)}")
    raise FileError(f"cannot read {quoted(text)}: {why_not_read(candidate)}")
