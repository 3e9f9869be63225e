"""Tell from its first bytes which kind of file it is: safetensors, npz, of another framework, or one that ptree does not read."""

from __future__ import annotations

import os

from ..._foreign.candidate import Candidate
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
    """Whether a regular file, or a link to one, begins with the header of a safetensors file, and is long enough for it."""
    candidate = Candidate(path)
    try:
        return candidate.begins_as_safetensors and candidate.header_length < os.path.getsize(path)
    except OSError:
        return False
