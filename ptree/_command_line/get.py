"""Run the command get: the numbers of one leaf, or a part of them, as text or as an npy file."""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np

from .._stored.drafts import draft
from .._stored.operating_system import is_folder, is_regular, target_status
from ..look._sources.reading import read_path
from ..look._sources.source_of import source_of
from .damage import code_of_files
from .interrupts import interrupts_raised
from .output import refuse_existing

_MOST_PRINTED = 1000


def _with_npy_dtype(part: np.ndarray) -> np.ndarray:
    """Convert numbers of a dtype that npy files lack, such as bf16, to one that they have and that holds them exactly.

    NumPy writes them as raw bytes, and reads those without their meaning.
    """
    is_of_ml_dtypes = part.dtype.kind == "V" and part.dtype.type is not np.void
    if not is_of_ml_dtypes:
        return part
    if part.dtype.name.startswith("int"):
        return part.astype(np.int8)
    if part.dtype.name.startswith("uint"):
        return part.astype(np.uint8)
    return part.astype(np.float32)


def run_get(given: argparse.Namespace) -> int:
    with source_of(given.file) as source:
        part = read_path(source, given.path, given.index)
        code = code_of_files(source)
    if given.out is not None:
        _write_npy(given.out, _with_npy_dtype(part))
        return code
    print(np.array2string(np.asarray(part), threshold=_MOST_PRINTED, separator=", "))
    return code


def _write_npy(path: str, part: np.ndarray) -> None:
    status = target_status(path)
    if status is not None and not is_regular(status) and not is_folder(status):
        with open(path, "wb") as device:  # such as /dev/stdout
            device.write(_npy_bytes(part))
        return
    refuse_existing(path)
    with interrupts_raised(), draft(Path(path)) as descriptor, open(descriptor, "wb", closefd=False) as file:
        np.save(file, part, allow_pickle=False)


def _npy_bytes(part: np.ndarray) -> bytes:
    file = io.BytesIO()  # a pipe has no places, which np.save asks for
    np.save(file, part, allow_pickle=False)
    return file.getvalue()
