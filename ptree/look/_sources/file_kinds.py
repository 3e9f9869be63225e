"""Tell from its first bytes which kind of file it is: safetensors, npz, or one that ptree does not read, with what to do."""

from __future__ import annotations

import os
import zipfile
from typing import IO

_LENGTH = 8  # bytes in front of the header of a safetensors file
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")  # the second is of an archive of nothing
_PICKLE = "it is a pickle, such as PyTorch writes, which can run any code: load it with torch.load, and save it with safetensors.torch.save_file"
_OTHERS = (
    *[(bytes([0x80, protocol]), _PICKLE) for protocol in (2, 3, 4, 5)],
    (
        b"\x89HDF\r\n\x1a\n",
        "it is an HDF5 file, such as Keras writes: read it with h5py, and save a dict of its arrays",
    ),
    (b"GGUF", "it is a GGUF file of llama.cpp: read it with the package gguf, and save a dict of its arrays"),
    (b"\x93NUMPY", "it is an .npy file with a single array: open it with numpy.load"),
    (b"version https://git-lfs", "it is a pointer of Git LFS, in the place of the file: `git lfs pull` fetches that"),
)
"""The first bytes of files of other kinds, and what to do with them."""
_LONGEST = max(len(first) for first, _ in _OTHERS)


def kind_of_file(path: str) -> str:
    """Tell the kind of a file: "safetensors", "npz", or a sentence why ptree does not read it.

    What has no mark of another kind counts as safetensors, which has none itself.
    """
    with open(path, "rb") as file:
        first = file.read(_LONGEST)
        if first.startswith(_ZIP) or path.endswith(".npz"):
            return _kind_of_archive(file)
    if first[_LENGTH : _LENGTH + 1] == b"{":  # the length before it may begin like any mark
        return "safetensors"
    for mark, problem in _OTHERS:
        if first.startswith(mark):
            return problem
    return "safetensors"


def begins_as_safetensors(path: str) -> bool:
    """Whether a regular file, or a link to one, begins with the header of a safetensors file."""
    if not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            first = file.read(_LENGTH + 1)
    except OSError:
        return False
    return (
        first.endswith(b"{")
        and len(first) > _LENGTH
        and int.from_bytes(first[:_LENGTH], "little") < os.path.getsize(path)
    )


def _kind_of_archive(file: IO[bytes]) -> str:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return "npz"  # which says how it is damaged
    if any(name.endswith("/data.pkl") for name in names):
        return _PICKLE
    if names and not any(name.endswith(".npy") for name in names):
        return "it is a zip archive without an array of NumPy in it"
    return "npz"
