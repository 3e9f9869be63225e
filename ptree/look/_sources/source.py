"""Source: what is looked at, a tree, a spec or a file, as named leaves whose numbers are read in chunks of bounded size.

Nothing here imports JAX: only a source of a tree, or of a checkpoint by Orbax, does.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..._errors import FileError
from ..._words import quoted

UNKNOWN_DTYPE = "?"
"""Of a leaf in a file that cannot be read."""
CHUNK = 1 << 18
"""Bytes: numbers are read so many at a time, which a processor's cache holds."""


class LeafInfo(NamedTuple):  # a frozen dataclass takes three times as long to make, and there may be 100,000
    """What is known of one leaf without its numbers."""

    path: str
    shape: tuple[int, ...] | None
    """None of what is no array: a Python number, a text, a function."""
    dtype: str
    """In short, such as f32, bf16, i4 and key<fry>; the name of the type of what is no array."""
    count: int  # pyright: ignore[reportIncompatibleMethodOverride] a tuple's own `count` is not needed
    """How many numbers it has; 0 of what is no array and no number."""
    nbytes: int
    trainable: bool | None = None
    """None where nothing says it."""
    problem: str = ""
    """Why its numbers cannot be read; "" where they can."""
    is_declared: bool = False
    """Whether it is a leaf of a spec, with a shape and a dtype and no numbers yet."""
    is_damaged: bool = False
    """Whether its numbers cannot be read because its file is damaged."""


@dataclass(frozen=True)
class Alias:
    """A tied name: it shows the leaf of its source."""

    path: str
    source: str
    shown: str
    """The source as people write it: `wte/weight`, `transposed(wte/weight)`."""
    shape: tuple[int, ...] | None
    """None where only the function of a transform could tell."""
    axes: tuple[tuple[int, ...], ...] | None = ()
    """The orders of the last axes in which it is seen, one after the other; None of any other transform."""


class Source(ABC):
    """A tree, a spec or an open file as named leaves; use it in `with`, or close it."""

    title: str
    """Its name for people: the name of a file, or `Tree`, `dict`, `TrainState`."""
    about: str = ""
    """What else is known: the format of a file, its size, its metadata."""
    leaves: dict[str, LeafInfo]
    """Under their own paths, in declared order."""
    aliases: dict[str, Alias]
    order: list[str]
    """All names, own paths and aliases, in declared order."""
    is_file: bool = False
    files: tuple[str, ...] = ()
    """The paths of the files that are read; of a checkpoint by Orbax that of its folder."""
    damage: tuple[str, ...] = ()
    """What is wrong with a file beside the leaves that cannot be read, each as a sentence."""

    @abstractmethod
    def chunks(self, path: str, most: int = CHUNK) -> Iterator[np.ndarray]:
        """The numbers of a leaf in C order, as flat arrays of at most `most` bytes.

        An array is valid until the next one is asked for: its memory may be used again.

        Raises:
            FileError: they cannot be read.
        """

    @abstractmethod
    def part(self, path: str, index: Any = ...) -> np.ndarray:
        """A part of a leaf, as NumPy indexes an array; of a file only the bytes around the part are read."""

    def checked_chunks(self, path: str, most: int = CHUNK) -> Iterator[np.ndarray]:
        """The chunks of a leaf, which are compared with its checksum, where the file has one, when the last was read.

        Raises:
            FileError: they cannot be read, or differ from the checksum.
        """
        return self.chunks(path, most)

    def values(self, path: str) -> np.ndarray:
        """A whole leaf."""
        return self.part(path)

    def whole(self, path: str) -> np.ndarray:
        """A whole leaf, compared with its checksum where the file has one.

        Raises:
            FileError: it cannot be read, or differs from the checksum.
        """
        return self.part(path)

    def block(self, path: str, index: tuple[slice, ...]) -> np.ndarray:
        """A part of a leaf of which there is one slice for each axis; of a large file little more than it is read."""
        return self.part(path, index)

    def value(self, path: str) -> object:
        """A leaf of a tree as it is; of a file its numbers."""
        return self.part(path)

    def checksum(self, path: str) -> str:
        """The checksum of a leaf's bytes that a file states; "" where there is none."""
        return ""

    def shown(self, path: str) -> str:
        """A leaf for a message: its path, and its name in the file where that is spelled otherwise."""
        return quoted(path)

    def has_checksum(self, path: str) -> bool:
        """Whether the file has a checksum of a leaf, which is compared when the leaf is read whole."""
        return False

    def close(self) -> None:  # noqa: B027
        """Close the file; of a tree there is nothing to close."""

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def path_and_name(path: str, name: str) -> str:
    """A path for a message, with the name of its leaf in the file where that is spelled otherwise."""
    return quoted(path) if path == name else f"{quoted(path)} ({quoted(name)} in the file)"


@contextmanager
def errors_with_path(path: str, name: str) -> Iterator[None]:
    """Let an error about a leaf that has another name in its file begin with its path."""
    try:
        yield
    except FileError as error:
        if path == name:
            raise
        with_path = FileError(f"{quoted(path)}: {error}", error.is_damage)
        with_path.damage = error.damage
        raise with_path from error


def in_chunks(flat: np.ndarray, most: int) -> Iterator[np.ndarray]:
    """A flat array in parts of at most `most` bytes, as views."""
    at_once = max(1, most // max(1, flat.itemsize))
    for first in range(0, flat.size, at_once):
        yield flat[first : first + at_once]
