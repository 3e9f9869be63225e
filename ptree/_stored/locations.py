"""Check the path of a call, and find its kind of location: the file to load or save, the path of its index, or an Orbax
checkpoint; suggest the file that was likely meant."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from .._errors import FileError
from .._words import describe, quoted, suggestion
from .operating_system import is_regular, open_to_read, target_status
from .urls import is_cut_url, is_url, scheme_of, shown_url, without_file_scheme

INDEX_SUFFIX = ".index.json"
_LOOKS = 3
"""How often to look for a file and its index, each of which may have come since."""
# a file that each checkpoint of Orbax has, whatever it holds
_ORBAX_METADATA = "_CHECKPOINT_METADATA"


def checked_path(path: str | os.PathLike[str], call: str) -> str:
    """Check the path of a call, which may be swapped with another argument, and return it as text; `file://` is left out.

    >>> checked_path({"w": 1}, "save(path, tree)")
    Traceback (most recent call last):
        ...
    ptree.FileError: save(path, tree): the path comes first, a str or a pathlib.Path; got dict
    """
    text = checked_location(path, call)
    if is_url(text):
        shown, files = quoted(shown_url(text)), f"fsspec.filesystem({scheme_of(text)!r})"
        raise FileError(
            f"{call}: {shown} is a URL, and this call takes a path of this machine. {files}.get(url, path) copies a file"
            f" from there, {files}.put(path, url) there; open, load and `ptree show` read URLs of safetensors files"
        )
    return text


def checked_location(path: str | os.PathLike[str], call: str) -> str:
    """Check the path of a call that takes URLs too, and return it as text; `file://` is left out."""
    if not isinstance(path, (str, os.PathLike)):
        raise FileError(f"{call}: the path comes first, a str or a pathlib.Path; got {describe(path)}")
    text = os.fspath(path)
    if not text:  # pathlib would take it for the current folder
        raise FileError("expected the path of a file, got ''")
    if not isinstance(text, str) or "\0" in text or not _can_be_encoded(text):
        raise FileError(f"{call}: {quoted(text)} cannot be the path of a file")
    if is_cut_url(text):
        raise FileError(f"{call}: {quoted(text)} was a URL, of which pathlib removes a slash: give it as a str")
    return without_file_scheme(text)


def _can_be_encoded(path: str) -> bool:
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return False
    return True


def file_path(path: str) -> Path:
    """Find the file of a path: `model.safetensors` in a folder; for the path of an index, the file that its shards make up."""
    place = Path(path)
    if place.is_dir():
        return place / "model.safetensors"
    return place.with_name(place.name.removesuffix(INDEX_SUFFIX))


def index_path(file: Path) -> Path:
    """The path of the index of a file that is kept in shards."""
    return file.with_name(file.name + INDEX_SUFFIX)


def is_saved(file: Path) -> bool:
    """Whether a file, or the index of its shards, is there, also while another process replaces the one by the other."""
    # the new one stands before the old one goes: who sees neither has looked for the new one too early
    looks = (file, index_path(file)) * _LOOKS
    return any(place.exists() for place in looks)


def is_orbax(path: str | os.PathLike[str]) -> bool:
    """Whether an Orbax checkpoint, which is a folder, is at this path."""
    return is_regular(target_status(os.path.join(path, _ORBAX_METADATA)))


def open_file(path: str | os.PathLike[str]) -> int:
    """Open a regular file, or a link to one, for reading, and return its descriptor.

    Raises:
        FileError: a folder, FIFO, socket or device is there.
        OSError: nothing is there, or it cannot be read.
    """
    return open_to_read(regular_file(path))


def regular_file(path: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """Return the path if nothing but a regular file, or a link to one, is there: opening a FIFO would wait for a writer.

    Raises:
        FileError: a folder, FIFO, socket or device is there.
    """
    status = target_status(path)
    if status is not None and not is_regular(status):
        kind = _kind_of_file(status.st_mode)
        raise FileError(f"cannot load: {os.fspath(path)!r} is {kind}, not a file", is_damage=True)
    return path


def save_path(path: str) -> Path:
    """Find the file that `save` writes: its folder without links, so that each file has one path, but a link as it is."""
    file = file_path(path)
    return Path(os.path.realpath(file.parent)) / file.name


def names_new_folder(path: str, is_several_files: bool) -> bool:
    """Whether a path at which nothing is yet names a folder: it has no ending of safetensors, and ends in a slash or several files go there.

    Several files of a tree are saved as Hugging Face does it, where the path of a model is that of a folder. A slash after
    such an ending changes nothing.

    Args:
        path: where a tree is to be saved.
        is_several_files: whether it may be saved in several files and an index.
    """
    place = Path(path)
    if os.path.lexists(place) or os.path.lexists(index_path(place)):
        return False
    without_slash = path.rstrip("/" + os.sep)
    if without_slash.endswith((".safetensors", INDEX_SUFFIX)):
        return False
    return is_several_files or without_slash != path


def refuse_other_kinds(file: Path) -> None:
    """Raise FileError unless what is there, and where the index of shards goes, is a file, a link to one, or nothing."""
    _refuse_other_kind(file, file)  # first: a folder such as `.` has no name that an index could have
    _refuse_other_kind(index_path(file), file)


def _refuse_other_kind(place: Path, file: Path) -> None:
    status = target_status(place)
    if status is not None and not is_regular(status):
        kind = _kind_of_file(status.st_mode)
        raise FileError(f"cannot save {str(file)!r}: {str(place)!r} is {kind}, and only files are replaced")


def refuse_same_file(written: str, read: str) -> None:
    """Raise FileError if a file that is to be written is the one that it takes its weights from."""
    if os.path.exists(written) and os.path.exists(read) and os.path.samefile(written, read):
        raise FileError(f"cannot write {quoted(written)}: it is the file of weights= itself; give path= another name")


def _kind_of_file(mode: int) -> str:
    """Say what is at a path that is no regular file."""
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISFIFO(mode):
        return "a FIFO"
    if stat.S_ISSOCK(mode):
        return "a socket"
    return "a device"


def nearest_file(path: str) -> str:
    """Suggest the file beside it whose name is nearest to that of a path where nothing is; "" if none is near."""
    folder, name = os.path.split(path)
    try:
        beside = os.listdir(folder or ".")
    except OSError:
        return ""
    return suggestion(name, beside, f"{folder}/" if folder else "")
