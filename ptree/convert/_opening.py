"""Open a file of any framework by its path, to read its arrays by name."""

from __future__ import annotations

import os

from .._foreign.foreign_file import ForeignFile
from .._foreign.formats import format_of, open_foreign
from .._stored.locations import checked_path, file_path, is_saved
from ..files._open import File, open_file


def open_arrays(path: str | os.PathLike[str]) -> File | ForeignFile:
    """Open a file of ptree, of safetensors or of another framework; arrays of safetensors use its mapped memory.

    Raises:
        FileError: a format that is not read, or a damaged file.
        OSError: the file is not there or cannot be read.
    """
    text = checked_path(path, "read(path)")
    is_there = os.path.isdir(text) or is_saved(file_path(text))
    if format_of(text) is not None or not is_there:  # which suggests the nearest file
        return open_foreign(text)
    return open_file(text, mmap=True)
