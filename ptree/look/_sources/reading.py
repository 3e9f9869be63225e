"""Read one leaf of a source by its path: its own, a tied name, or a single layer of a stack."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..._errors import FileError, PathError
from ..._paths import STACKED
from ..._words import listed, quoted, suggestion
from .dotted_names import with_slashes
from .source import Alias, Source


def read_path(source: Source, path: str, index: tuple[Any, ...] = ()) -> np.ndarray:
    """Read a leaf, or a part of it; a tied name is read as it shows its source.

    Raises:
        PathError: there is no leaf of this path, or it has no such layer.
        FileError: its numbers cannot be read, or are all read and not what their checksum says; a tie has a transform that only a program knows.
        IndexError: the index does not fit its shape.
    """
    for spelled in (path, with_slashes(path)):  # the names of PyTorch's modules have dots
        for name in source.order:
            layers = _layers_named(name, spelled)
            if layers is not None:
                return _read(source, name, (*layers, *index))
    inside = [name for name in source.order if name.startswith(f"{with_slashes(path)}/")]
    if inside:
        raise PathError(f"{quoted(path)} is no leaf of {source.title}, but a node. Name a leaf in it: {listed(inside)}")
    raise PathError(f"no leaf {quoted(path)} in {source.title}.{suggestion(path, source.order)}")


def _layers_named(name: str, path: str) -> tuple[int, ...] | None:
    """The layers of stacks by which a path names a leaf; None if it is not its name. `:` is all layers."""
    if name == path:
        return ()
    segments, given = name.split("/"), path.split("/")
    if STACKED not in segments or len(segments) != len(given):
        return None
    layers: list[int] = []
    for segment, number in zip(segments, given):
        if segment == STACKED and number.isdecimal() and number.isascii():
            layers.append(int(number))
        elif segment != number:
            return None
    # a single layer in all layers of an outer stack is no contiguous part
    return tuple(layers) if len(layers) == segments.count(STACKED) else None


def _read(source: Source, name: str, index: tuple[Any, ...]) -> np.ndarray:
    alias = source.aliases.get(name)
    try:
        if alias is None and index:
            return source.part(name, index)
        whole = source.whole(name if alias is None else alias.source)
        if alias is None:
            return whole
        return _seen(whole, alias)[index or ...]
    except IndexError as error:
        shape = alias.shape if alias is not None else source.leaves[name].shape
        raise PathError(f"{quoted(name)} has the shape {shape}: {error}") from error


def _seen(whole: np.ndarray, alias: Alias) -> np.ndarray:
    """What a tied name shows of its source."""
    if alias.axes is None:
        raise FileError(
            f"{quoted(alias.path)} is {alias.shown}: only the program that registered it knows what it shows"
        )
    for axes in alias.axes:
        before = whole.ndim - len(axes)
        whole = whole.transpose(*range(before), *(before + axis for axis in axes))
    return whole
