"""Open files of any framework for a conversion, by their path."""

from __future__ import annotations

import os

from .._foreign.foreign_file import ForeignFile
from .._foreign.formats import format_of, open_foreign
from .._stored.locations import checked_path
from ..files._open import File
from ..files._open import open as open_safetensors


def open_arrays(path: str | os.PathLike[str]) -> File | ForeignFile:
    """Open a file of ptree, of safetensors or of another framework; arrays of safetensors use its mapped memory.

    Raises:
        FileError: a format that is not read, or a damaged file.
        OSError: the file is not there or cannot be read.
    """
    text = checked_path(path, "read(path)")
    if format_of(text) is not None:
        return open_foreign(text)
    return open_safetensors(text, mmap=True)
