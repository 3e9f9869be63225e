"""open_foreign: find the format of a file by its first bytes or its contents, and open it with the reader of that format."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from .._errors import FileError
from .._stored.locations import checked_path
from .._words import quoted, suggestion
from .foreign_file import ForeignFile

_FIRST_BYTES = 64


@dataclass(frozen=True)
class Candidate:
    """What is at a path, looked at to find its format: a file, a folder, or the beginning of the names of several files."""

    path: str

    @cached_property
    def first_bytes(self) -> bytes:
        """The first 64 bytes of a file; none of a folder, and where nothing is there."""
        if not os.path.isfile(self.path):
            return b""
        with open(self.path, "rb") as file:
            return file.read(_FIRST_BYTES)

    @cached_property
    def zip_members(self) -> tuple[str, ...]:
        """The names in a zip archive; empty if it is none, or a damaged one."""
        if not self.first_bytes.startswith(b"PK"):
            return ()
        try:
            with zipfile.ZipFile(self.path) as archive:
                return tuple(archive.namelist())
        except (zipfile.BadZipFile, ValueError, NotImplementedError):
            return ()


@dataclass(frozen=True)
class Format:
    """A format that is read: how it is recognised, and the function that opens a file of it.

    That function imports the reader, so that only the reader of this file is imported.
    """

    name: str
    matches: Callable[[Candidate], bool]
    open: Callable[[str], ForeignFile]


FORMATS: tuple[Format, ...] = ()
"""Asked in this order; the first that matches opens the file."""


def format_of(path: str) -> Format | None:
    """Find the format of what is at a path; None if it is none of another framework."""
    candidate = Candidate(path)
    return next((form for form in FORMATS if form.matches(candidate)), None)


def open_foreign(path: str | os.PathLike[str]) -> ForeignFile:
    """Open a file of another framework; names, shapes and dtypes are there at once, and numbers are read when asked for.

    Raises:
        FileError: a format that is not read, or a damaged file.
        OSError: the file is not there or cannot be read.
    """
    text = checked_path(path, "read(path)")
    form = format_of(text)
    if form is not None:
        return form.open(text)
    if not os.path.exists(text):
        raise FileNotFoundError(f"no file {quoted(text)}.{_nearest_file(text)}")
    raise FileError(f"cannot read {quoted(text)}: {_NOT_READ}")


_NOT_READ = "it is of no format that ptree reads"


def _nearest_file(path: str) -> str:
    folder, name = os.path.split(path)
    try:
        beside = os.listdir(folder or ".")
    except OSError:
        return ""
    return suggestion(name, beside, f"{folder}/" if folder else "")
