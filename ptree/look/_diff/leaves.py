"""Leaves of the two sides of a diff, read in bounded chunks: in pairs of as many numbers, by layer, through a transpose, hashed."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from math import prod

import numpy as np
import xxhash

from ..._errors import FileError, StructureError
from ..._words import quoted
from .._sources.source import CHUNK, Source
from .sizes import Sizes, have_equal_bytes, sizes_of

_CONVERTED = 1 << 15
"""Numbers that are converted at a time. Twice as many take twice as long each: the system then takes back the memory of the
converted ones after each chunk."""
_TILE = 1 << 16  # numbers of a tile, at least
_TILE_EDGE = 1 << 10
"""Bytes along each of two axes of a tile: two leaves of which one is transposed are read tile by tile, in runs so long."""
_CORNER = 1 << 10
"""Numbers of the corner by which the order of axes is found."""
_MOST_AXES = 5  # that are tried in every order
_PYTHON_NUMBERS = {"int": "i64", "float": "f64", "complex": "c128"}
"""The dtype in which a file keeps a Python number."""
UNREADABLE = (FileError, StructureError, OSError, zipfile.BadZipFile, zlib.error, EOFError)
"""Errors of a leaf whose numbers cannot be read."""

Pairs = Iterator[tuple[np.ndarray, np.ndarray]]


def reason_of(error: BaseException) -> str:
    """Why a leaf cannot be read, in the words of the error; its class where it has none."""
    return str(error) or type(error).__name__


class Side:
    """A leaf of one of the two that are compared."""

    __slots__ = ("dtype", "info", "is_object", "path", "shape", "source", "verify")

    def __init__(self, source: Source, path: str, verify: bool):
        self.source, self.path, self.verify = source, path, verify
        self.info = source.leaves[path]
        has_shape = self.info.shape is not None
        self.is_object = not has_shape and not self.info.count
        """Whether it is a text, a function or another object without numbers."""
        self.shape = self.info.shape if has_shape or self.is_object else ()  # which a Python number has
        self.dtype = _PYTHON_NUMBERS.get(self.info.dtype, self.info.dtype)

    @property
    def is_key(self) -> bool:
        return is_key(self.dtype)

    @property
    def checksum(self) -> str:
        """What its file states; "" where nothing does."""
        return self.source.checksum(self.path)

    @property
    def itemsize(self) -> int:
        """Bytes of a number, at least 1."""
        return max(1, self.info.nbytes // max(1, self.info.count))

    @property
    def is_small(self) -> bool:
        """Whether it is one chunk."""
        return self.info.nbytes <= CHUNK

    def read(self) -> np.ndarray:
        """The numbers of a small leaf, flat; they stay as they are."""
        return next(iter([*self.chunks()]), np.empty(0))

    def chunks(self, most: int = CHUNK) -> Iterator[np.ndarray]:
        """Its numbers in chunks; each is valid until the next one is asked for.

        Raises:
            FileError: after the last chunk, if the bytes have not the checksum that the file states.
        """
        expected = self.checksum if self.verify else ""
        if not expected:  # the usual case, of files that ptree did not write
            yield from map(_native, self.source.chunks(self.path, most))
            return
        content = xxhash.xxh3_128()
        for chunk in self.source.chunks(self.path, most):
            content.update(_bytes_of(chunk))
            yield _native(chunk)
        if content.hexdigest() != expected:
            raise FileError(f"{quoted(self.path)} is damaged: its checksum does not fit", is_damage=True)

    def chunks_to_compute(self, partner: Side) -> Iterator[np.ndarray]:
        """Its numbers in chunks for computing with those of a partner: smaller ones where they must be converted."""
        if self.dtype == partner.dtype and self.dtype in ("f32", "f64"):
            return self.chunks()
        return self.chunks(_CONVERTED * self.itemsize)

    def check(self) -> None:
        """Compare its bytes with the checksum that the file states; FileError if they differ."""
        if self.verify and self.checksum:
            for _ in self.chunks():
                pass

    def block(self, index: Sequence[slice]) -> np.ndarray:
        return _native(self.source.block(self.path, tuple(index)))


def is_key(dtype: str) -> bool:
    """Whether it is the dtype of PRNG keys."""
    return dtype.startswith("key<")


def _bytes_of(chunk: np.ndarray) -> memoryview:
    return np.ascontiguousarray(chunk).reshape(-1).view(np.uint8).data


def _native(chunk: np.ndarray) -> np.ndarray:
    """In the byte order of this machine, in which NumPy computes faster and dtypes compare equal."""
    return chunk if chunk.dtype.isnative else chunk.astype(chunk.dtype.newbyteorder("="))


# ------------------------------------------------------------------------------ in pairs


def have_equal_checksums(before: Side, after: Side) -> bool:
    """Whether two leaves are equal by the checksums that their files state, where these need not be verified."""
    return not before.verify and before.checksum != "" and before.checksum == after.checksum


def are_equal(before: Side, after: Side) -> bool:
    """Whether two leaves of one shape and dtype are equal byte by byte; reading stops at the first chunk that differs."""
    return all(have_equal_bytes(one, other) for one, other in aligned(before.chunks(), after.chunks()))


def change_of(before: Iterator[np.ndarray], after: Iterator[np.ndarray]) -> Sizes:
    """The sizes of the change between two leaves of as many numbers, from the chunks of both."""
    sizes = Sizes()
    for one, other in aligned(before, after):
        sizes += sizes_of(one, other)
    return sizes


def changes_by_layer(before: Iterator[np.ndarray], after: Iterator[np.ndarray], count: int) -> list[Sizes]:
    """The sizes of the change in each layer of two stacks, whose layers have so many numbers each."""
    layers = [Sizes()]
    left = count
    for one, other in aligned(before, after):
        first = 0
        while first < one.size:
            taken = min(left, one.size - first)
            layers[-1] += sizes_of(one[first : first + taken], other[first : first + taken])
            first, left = first + taken, left - taken
            if not left:
                layers.append(Sizes())
                left = count
    return layers[:-1]


def aligned(before: Iterator[np.ndarray], after: Iterator[np.ndarray]) -> Pairs:
    """Cut the chunks of two leaves so that they come in pairs of as many numbers.

    Raises:
        FileError: one of them has more numbers than the other, which its header did not say.
    """
    one, other = next(before, None), next(after, None)
    while one is not None and other is not None:
        if one.size == other.size:
            yield one, other
            one, other = next(before, None), next(after, None)
            continue
        count = min(one.size, other.size)
        yield one[:count], other[:count]
        # both to their ends: only there are checksums compared
        one = one[count:] if count < one.size else next(before, None)
        other = other[count:] if count < other.size else next(after, None)
    if one is not None or other is not None:
        raise FileError("one of the two leaves has fewer numbers than its header says", is_damage=True)


# -------------------------------------------------------------------- through a transpose


def axes_between(before: Side, after: Side) -> tuple[int, ...] | None:
    """The order of the axes before that gives those after, found by a corner of both; None where there is no such order.

    Axes that are in their order do not count: two leaves of one shape may be equal as they are.
    """
    shape, other_shape = before.shape or (), after.shape or ()
    if sorted(shape) != sorted(other_shape) or not 1 < len(shape) <= _MOST_AXES or not prod(shape):
        return None
    best, least = None, 1.0
    for order in permutations(range(len(shape))):
        moved = tuple(shape[axis] for axis in order)
        if order == tuple(range(len(shape))) or moved != other_shape:
            continue
        corner = [slice(0, size) for size in _edges(shape, _CORNER)]
        sizes = _tile(before, after, order, corner)
        if sizes.norm_before and sizes.relative < least:
            best, least = order, sizes.relative
    return best


def change_through(before: Side, after: Side, order: tuple[int, ...]) -> Sizes:
    """The sizes of the change, where the axes after are those before in another order; read tile by tile."""
    shape = before.shape or ()
    edges = _edges(shape, max(_TILE, (_TILE_EDGE // before.itemsize) ** 2))
    starts = [range(0, size, edge) for size, edge in zip(shape, edges)]
    sizes = Sizes()
    for corner in product(*starts):
        index = [slice(first, min(first + edge, size)) for first, edge, size in zip(corner, edges, shape)]
        sizes += _tile(before, after, order, index)
    # apart, as the tiles are not read in the order of the bytes
    before.check()
    after.check()
    return sizes


def _tile(before: Side, after: Side, order: tuple[int, ...], index: list[slice]) -> Sizes:
    moved = before.block(index).transpose(order)
    return sizes_of(moved.reshape(-1), after.block([index[axis] for axis in order]).reshape(-1))


def _edges(shape: Sequence[int], most: int) -> list[int]:
    """The edges of a tile of at most so many numbers, as long as they can be along short axes, and else equal."""
    edges = [1] * len(shape)
    left = most
    by_size = sorted(range(len(shape)), key=lambda axis: shape[axis])
    for at, axis in enumerate(by_size):
        others = len(shape) - at
        edges[axis] = max(1, min(shape[axis], int(left ** (1 / others))))
        left //= edges[axis]
    return edges


# ------------------------------------------------------------------------------- content


@dataclass(frozen=True)
class Content:
    """What a leaf holds: equal for two leaves of one dtype and shape that are equal byte by byte."""

    dtype: str
    shape: tuple[int, ...]
    digest: str
    is_constant: bool
    """Whether all its numbers are one number, as in biases that are not trained: such leaves are equal by chance."""


def content_of(side: Side) -> Content:
    """Read the content of a leaf. Where its file states a checksum that need not be verified, reading stops early.

    Raises:
        FileError: it cannot be read, or is damaged.
    """
    stated = "" if side.verify else side.checksum
    content = xxhash.xxh3_128()
    first: np.ndarray | None = None
    is_constant = True
    for chunk in side.chunks():
        content.update(_bytes_of(chunk))
        if first is None:
            first = chunk[:1].copy()
        if is_constant:
            is_constant = _holds_only(first, chunk)
        if stated and not is_constant:
            break
    return Content(side.dtype, side.shape or (), stated or content.hexdigest(), is_constant)


def _holds_only(number: np.ndarray, chunk: np.ndarray) -> bool:
    """Whether a chunk is one number again and again, byte by byte."""
    itemsize = chunk.itemsize
    rows = np.frombuffer(_bytes_of(chunk), np.uint8).reshape(-1, itemsize)
    return bool((rows == np.frombuffer(_bytes_of(number), np.uint8)).all())
