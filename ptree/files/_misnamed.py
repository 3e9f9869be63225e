"""Say what is at a path that does not open as a file of ptree: a file of no format that is read, an index, a folder without a file."""

from __future__ import annotations

import os

from .._foreign.formats import Candidate, why_not_read
from .._stored.locations import INDEX_SUFFIX
from .._words import listed, quoted

_LENGTH = 8  # bytes in front of the header of a safetensors file


def index_problem(path: str) -> str:
    """Why an index of shards cannot be read: it is of PyTorch's own files; "" for all other paths."""
    if not path.endswith(f".bin{INDEX_SUFFIX}"):
        return ""
    return (
        "it is an index of shards in PyTorch's own format, which are read one by one: ptree.convert.read(shard) for each;"
        " or save the model as safetensors"
    )


def file_problem(path: str) -> str:
    """Of what other kind a file is that does not open as safetensors; "" where it may be a damaged one."""
    if not os.path.isfile(path):  # a folder with shards, of which the error tells
        return ""
    candidate = Candidate(path)
    first = candidate.first_bytes
    if not first:  # a file that is cut, or another program has not written yet
        return "" if path.endswith(".safetensors") else "it is empty"
    problem = why_not_read(candidate)
    if problem or path.endswith(".safetensors") or first[_LENGTH : _LENGTH + 1] == b"{":
        return problem
    if path.endswith(INDEX_SUFFIX):
        return ""
    return f"it is of no format that ptree reads; it begins with {first[:_LENGTH]}"


def folder_problem(path: str) -> str:
    """What a folder without `model.safetensors` has instead; "" where it is no folder."""
    if not os.path.isdir(path):
        return ""
    inside = sorted(os.listdir(path))
    there = f"it has {listed(inside)}; name the file" if inside else "it is empty"
    return f"no model.safetensors in the folder {quoted(path)}: {there}"
