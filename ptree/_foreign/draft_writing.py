"""Write files of other frameworks: check names and dtypes first, then write piece after piece into a draft of the file."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from .._errors import FileError
from .._stored.drafts import draft
from .._stored.locations import checked_path, refuse_other_kinds
from .._stored.operating_system import write_all
from .._words import listed, short_dtype


class DraftWriter:
    """The end of a file that is being written; `at` is the number of bytes so far."""

    def __init__(self, file: int):
        self._file = file
        self.at = 0

    def bytes(self, data: bytes) -> None:
        write_all(self._file, data, self.at)
        self.at += len(data)

    def numbers(self, array: np.ndarray) -> None:
        """Write an array in C order, little-endian."""
        flat = np.ascontiguousarray(array).reshape(-1)
        if flat.dtype.byteorder == ">":
            flat = flat.astype(flat.dtype.newbyteorder("<"))
        if flat.size:
            write_all(self._file, flat.view(np.uint8), self.at)
        self.at += flat.nbytes


@contextmanager
def writing(path: Path) -> Iterator[DraftWriter]:
    """Write a file at once: the old one stays if anything fails.

    Raises:
        OSError: the file cannot be written.
    """
    with draft(path) as file:
        yield DraftWriter(file)


def target_path(path: str | os.PathLike[str]) -> Path:
    """Check the path of a file that is to be written.

    Raises:
        FileError: it is no path, or a folder or a device is there.
    """
    text = checked_path(path, "write(path, arrays)")
    place = Path(os.path.realpath(os.path.dirname(text))) / os.path.basename(text)
    refuse_other_kinds(place)
    return place


def check_arrays(arrays: Mapping[str, np.ndarray], dtypes: Collection[np.dtype], format: str) -> None:
    """Check that a format can hold arrays of these dtypes.

    Raises:
        FileError: a name is no valid text or has a character NUL, or the format lacks a dtype; all of them are listed.
    """
    wrong_names = [name for name in arrays if not isinstance(name, str) or not name]
    if wrong_names:
        raise FileError(f"names of arrays are texts that are not empty; got {listed(wrong_names)}")
    cut = [name for name in arrays if "\0" in name]
    if cut:
        raise FileError(f"names with a character NUL are cut there by other programs: {listed(cut)}")
    not_unicode = [name for name in arrays if not _is_unicode(name)]
    if not_unicode:
        raise FileError(f"names of arrays are valid Unicode text; got {listed(map(ascii, not_unicode))}")
    check_dtypes(arrays, dtypes, format)


def check_dtypes(arrays: Mapping[str, np.ndarray], dtypes: Collection[np.dtype], format: str, fix: str = "") -> None:
    """Check that a format has the dtypes of these arrays; `fix` is said beside a cast.

    Raises:
        FileError: it lacks some; all of them are listed.
    """
    unknown = [name for name, array in arrays.items() if array.dtype.newbyteorder("=") not in dtypes]
    if unknown:
        shown = [f"{name}: {short_dtype(arrays[name].dtype)}" for name in unknown]
        raise FileError(f"{format} has no such dtypes: {listed(shown)}; cast them first{fix}")


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
