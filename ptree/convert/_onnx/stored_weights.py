"""Find parameters in a safetensors file, so that an ONNX file can point into it; compare the numbers there with those given."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..._errors import FileError
from ..._stored.checksums import digest
from ..._stored.locations import refuse_same_file
from ..._stored.safetensors import SafetensorsFile
from ..._stored.stored import Stored, open_stored
from ..._stored.stored_leaf import StoredLeaf
from ..._words import describe, quoted, with_fixes
from .traced import Parameter

_STACKED = ":"


@dataclass(frozen=True)
class External:
    """Bytes of another file, in the folder of the ONNX file or below."""

    location: str
    start: int
    count: int


@dataclass
class _Found:
    external: dict[str, External] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    """Parameter -> why it is not read from the file."""


@dataclass(frozen=True)
class _Place:
    """Where a parameter is in the file: a leaf, or one layer of a leaf that is a stack."""

    leaf: StoredLeaf
    file: SafetensorsFile
    layer: int | None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.leaf.shape if self.layer is None else self.leaf.shape[1:]

    @property
    def count(self) -> int:
        """Bytes."""
        return self.leaf.nbytes if self.layer is None else self.leaf.nbytes // self.leaf.shape[0]

    @property
    def start(self) -> int:
        return self.leaf.start + (self.layer or 0) * self.count

    def array(self) -> np.ndarray:
        return self.file.read(self.start, self.count).view(self.leaf.dtype).reshape(self.shape)


def data_path(path: str) -> str:
    """The file beside an ONNX file that has weights too large for one file."""
    return path + ".data"


def find_stored(
    weights: str, parameters: Sequence[Parameter], onnx_path: str
) -> tuple[dict[str, External], dict[str, str]]:
    """Where parameters are in a safetensors file or its shards; and why others are not read from there.

    Raises:
        FileError: the ONNX file itself, a file in another folder, parameters with other numbers than in the file, or parameters without numbers
            that are not in it.
    """
    stored = open_stored(weights, verify=True, mmap=True)
    try:
        _refuse_to_write_over(stored, onnx_path)
        found = _find(stored, parameters, onnx_path)
    finally:
        stored.close()
    return found.external, found.notes


def _refuse_to_write_over(stored: Stored, onnx_path: str) -> None:
    """Refuse an ONNX file, and the file beside it of a large one, that would replace a file of weights."""
    for read in (stored.path, *(shard.path for shard in stored.shards)):
        refuse_same_file(onnx_path, read)
        refuse_same_file(data_path(onnx_path), read)


def _find(stored: Stored, parameters: Sequence[Parameter], onnx_path: str) -> _Found:
    found = _Found()
    different: list[str] = []
    missing: list[str] = []
    for parameter in parameters:
        place = _place_of(stored, parameter.name)
        reason = _obstacle(place, parameter)
        if reason and not parameter.has_numbers:
            missing.append(f"{quoted(parameter.name)} {reason}")
        elif reason or place is None:
            found.notes[parameter.name] = reason
        elif parameter.has_numbers and not _is_equal(place, parameter):
            different.append(quoted(parameter.name))
        else:
            location = _relative(place.file.path, onnx_path)
            found.external[parameter.name] = External(location, place.start, place.count)
    problems = missing + [f"{name} has other numbers there than in the parameters" for name in different]
    if problems:
        fix = "Save these parameters first, ptree.save(weights, params)."
        raise FileError(f"cannot use the weights {stored.path!r}:\n{with_fixes(problems, [fix], chr(10))}")
    return found


def _place_of(stored: Stored, name: str) -> _Place | None:
    source = name
    tie = None if stored.facts is None else stored.facts.ties.get(name)
    if tie is not None and not tie.transforms:
        source = tie.source
    file = stored.by_leaf.get(source)
    if isinstance(file, SafetensorsFile):  # a leaf in parts has no place of its own
        return _Place(stored.leaves[source], file, None)
    segments = name.split("/")
    for at, segment in enumerate(segments):
        stack = "/".join([*segments[:at], _STACKED, *segments[at + 1 :]])
        file = stored.by_leaf.get(stack) if segment.isdecimal() else None
        if isinstance(file, SafetensorsFile) and int(segment) < stored.leaves[stack].shape[0]:
            return _Place(stored.leaves[stack], file, int(segment))
    return None


def _obstacle(place: _Place | None, parameter: Parameter) -> str:
    """Why a parameter cannot be read from its place; empty where it can."""
    if place is None:
        return "is not in the file"
    if place.leaf.unreadable:
        return place.leaf.unreadable
    if place.leaf.dtype != parameter.dtype or place.shape != parameter.shape:
        stored = np.broadcast_to(np.zeros((), place.leaf.dtype), place.shape)
        needed = np.broadcast_to(np.zeros((), parameter.dtype), parameter.shape)
        return f"is stored as {describe(stored)}, and needed as {describe(needed)}"
    return ""


def _is_equal(place: _Place, parameter: Parameter) -> bool:
    numbers = np.ascontiguousarray(parameter.leaf, parameter.dtype).reshape(-1).view(np.uint8)
    if place.leaf.checksum and place.layer is None:
        return digest(numbers) == place.leaf.checksum
    return np.array_equal(place.array().reshape(-1).view(np.uint8), numbers)


def _relative(path: str, onnx_path: str) -> str:
    folder = os.path.dirname(os.path.abspath(onnx_path))
    location = os.path.relpath(os.path.abspath(path), folder).replace(os.sep, "/")
    if location.startswith("../"):
        raise FileError(
            f"cannot let {onnx_path!r} point into {path!r}: ONNX reads weights from its own folder or one below."
            f" Write the ONNX file to {os.path.dirname(os.path.abspath(path))!r}, or save the weights to {folder!r}"
        )
    return location
