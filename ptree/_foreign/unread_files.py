"""Say why a file is not read: what its name says that it is, and what is there, by its first bytes."""

from __future__ import annotations

import os

from .._stored.locations import INDEX_SUFFIX
from .candidate import LENGTH_BYTES, Candidate
from .name_endings import name_ending

_MARKS = (
    *[
        (
            bytes([0x80, protocol]),
            "it is a pickle that torch.save did not write, and which can run any code: where it was written, load it with"
            " pickle.load, and save a dict of its arrays",
        )
        for protocol in (2, 3, 4, 5)
    ],
    (b"PK", "it is a zip archive that is empty, cut short or damaged"),
    (b"\x93NUMPY", "it is an .npy file with a single array: open it with numpy.load"),
    (b"version https://git-lfs", "it is a pointer of Git LFS, in the place of the file: `git lfs pull` fetches that"),
    (b"<!DOCTYPE html", "it is a page of HTML, such as a server sends in the place of a file: download it again"),
    (b"<html", "it is a page of HTML, such as a server sends in the place of a file: download it again"),
    (b"\x1f\x8b", "it is compressed with gzip: unpack it first"),
)
"""The first bytes of files that are not read, and what to do with them."""


TORCH_INDEX_SUFFIX = f".bin{INDEX_SUFFIX}"
"""The ending of an index of shards in PyTorch's own format, which are read one by one."""


def marked_kind(candidate: Candidate) -> str:
    """Say of what kind a file is that no reader matches, and what to do with it; "" where its first bytes do not tell."""
    if candidate.zip_members:
        return "it is a zip archive without an array of NumPy or a tensor of PyTorch in it"
    for mark, kind in _MARKS:
        if candidate.first_bytes.startswith(mark):
            return kind
    return ""


def why_not_read(candidate: Candidate) -> str:
    """Say what is expected by the name of what no reader matches, and what is there."""
    found = _found(candidate)
    ending = name_ending(candidate.path)
    if ending is None or not os.path.isfile(candidate.path):
        return found
    if ending.is_read:
        return f"expected {ending.kind}, as it ends in {ending.ending}; {found}"
    # its first bytes are those of a format that is not known here, and say nothing
    by_name = f"it ends in {ending.ending}, as {ending.kind}, which ptree does not read ({_size(candidate)})"
    return marked_kind(candidate) or by_name


def _found(candidate: Candidate) -> str:
    """What is at a path: its kind by a mark, else its size and first bytes."""
    kind = marked_kind(candidate)
    if kind:
        return kind
    if not os.path.isfile(candidate.path):
        return "it is of no format that ptree reads"
    first = candidate.first_bytes[:LENGTH_BYTES]
    if not first:
        return f"it is empty ({_size(candidate)})"
    return f"it is of no format that ptree reads; it begins with {first} ({_size(candidate)})"


def _size(candidate: Candidate) -> str:
    size = os.path.getsize(candidate.path)
    return "1 byte" if size == 1 else f"{size:,} bytes"


def index_problem(path: str) -> str:
    """Why an index of shards cannot be read: it is of PyTorch's own files; "" for all other paths."""
    if not (path.endswith(TORCH_INDEX_SUFFIX) and os.path.isfile(path)):
        return ""
    return (
        "it is an index of shards in PyTorch's own format, which are read one by one: ptree.convert.read(shard) for each;"
        " or save the model as safetensors"
    )


def problem_beside_safetensors(path: str) -> str:
    """Of what other kind a file is that does not open as safetensors; "" where it may be a damaged one."""
    if not os.path.isfile(path):  # a folder with shards, of which the error tells; or a URL
        return ""
    candidate = Candidate(path)
    if path.endswith(".safetensors") or candidate.begins_as_safetensors:
        return marked_kind(candidate)
    if path.endswith(INDEX_SUFFIX):  # of an empty one too, its own error says what it is not
        return marked_kind(candidate)
    return why_not_read(candidate)
