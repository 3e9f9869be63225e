"""Tell from its first bytes which kind of file it is: safetensors, npz, of another framework, or one that ptree does not read."""

from __future__ import annotations

import os

from ..._foreign.formats import Candidate, format_of, why_not_read

_LENGTH = 8  # bytes in front of the header of a safetensors file


def kind_of_file(path: str) -> str:
    """Tell the kind of a file: "safetensors", "npz", "foreign", or a sentence why ptree does not read it.

    What has no mark of another kind counts as safetensors, which has none itself.
    """
    candidate = Candidate(path)
    if path.endswith(".npz") or any(name.endswith(".npy") for name in candidate.zip_members):
        return "npz"  # which says how it is damaged
    if candidate.first_bytes[_LENGTH : _LENGTH + 1] == b"{":  # the length before it may begin like any mark
        return "safetensors"
    if format_of(path) is not None:
        return "foreign"
    if not candidate.first_bytes:
        return "safetensors"
    return why_not_read(candidate) or "safetensors"


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
