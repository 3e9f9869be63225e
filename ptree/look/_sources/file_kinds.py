"""Tell from its first bytes which kind of file it is: safetensors, npz, of another framework, or one that ptree does not read."""

from __future__ import annotations

import os

from ..._foreign.candidate import LENGTH_BYTES, Candidate
from ..._foreign.formats import format_of
from ..._foreign.unread_files import marked_kind


def kind_of_file(path: str) -> str:
    """Tell the kind of a file: "safetensors", "npz", "foreign", or "unread" where its first bytes are of a kind that is not read.

    What has no mark of another kind counts as safetensors, which has none itself.
    """
    form = format_of(path)
    if form is not None:
        return "npz" if form.name == "NumPy npz" else "foreign"
    candidate = Candidate(path)
    if candidate.begins_as_safetensors or not marked_kind(candidate):
        return "safetensors"
    return "unread"


def begins_as_safetensors(path: str) -> bool:
    """Whether a regular file, or a link to one, begins with the header of a safetensors file."""
    if not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            first = file.read(LENGTH_BYTES + 1)
    except OSError:
        return False
    return (
        first.endswith(b"{")
        and len(first) > LENGTH_BYTES
        and int.from_bytes(first[:LENGTH_BYTES], "little") < os.path.getsize(path)
    )
