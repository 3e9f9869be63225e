"""Stored, a leaf in an open file: what it is, and its numbers or a part of them when they are asked for."""

from __future__ import annotations

from functools import cached_property
from itertools import product
from math import prod
from operator import mul
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from .._tree import Tie
from ._source import Unread
from ._tensor import leaf_of

if TYPE_CHECKING:
    from ._open import File

_CRUMB = 1 << 10
"""Bytes: less than that is read together with what is between."""


class Stored(Unread):
    """A leaf in an open file; `[...]` reads it, `[:8]` reads a part."""

    @property
    def file(self) -> File:
        return self.source

    @property
    def nbytes(self) -> int:
        """How many bytes it takes in the file."""
        entry = self.file.entries[self.name]
        return entry.stop - entry.start

    def __getitem__(self, index: Any) -> Any:
        if index is ...:
            return self.file.read([self])[self.name]
        part = np.asarray(self.part(index))
        with self.file.named():
            return leaf_of(part, "" if not self.kind else "numpy", self.name)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return np.asarray(self.part(()), dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def part(self, index: Any, compare: bool = True) -> np.ndarray[Any, Any]:
        """A part, as NumPy's: the bytes from its first to its last number along the first axes are read.

        Where these are all, they are compared with the checksum.
        """
        index = index if isinstance(index, tuple) else (index,)
        at = next((at for at, one in enumerate(index) if one is ...), len(index))
        start, shape, rest = 0, list(self.shape), list(index)
        # what was asked for at one place of an axis leaves the next axis contiguous
        for axis in range(min(at, len(shape))):
            one = index[axis]
            if (
                isinstance(one, (int, np.integer))
                and not isinstance(one, bool)
                and -self.shape[axis] <= one < self.shape[axis]
            ):
                start += int(one) % self.shape[axis] * prod(self.shape[axis + 1 :])
                shape[axis], rest[axis] = 1, 0
                continue
            if isinstance(one, slice):
                places = range(self.shape[axis])[one]
                low, high = (min(places), max(places) + 1) if places else (0, 0)
                start += low * prod(self.shape[axis + 1 :])
                shape[axis] = high - low
                step = one.step or 1
                rest[axis] = slice(None, None, step)
            break
        flat = self.file.numbers(self.name, start, prod(shape))
        if compare and prod(shape) == prod(self.shape):
            self.file.compare(self.name, flat)
        return flat.reshape(shape)[tuple(rest)]

    def block(self, index: tuple[slice, ...]) -> np.ndarray[Any, Any]:
        """A part without gaps along any axis, as devices hold it: no bytes but its own are read, where these are not crumbs."""
        ranges = [range(size)[one] for one, size in zip(index, self.shape, strict=True)]
        shape = tuple(map(len, ranges))
        cut = [axis for axis, size in enumerate(self.shape) if shape[axis] < size]
        last = cut[-1] if cut else 0  # behind it, and from it on in the file, all is contiguous
        run, strides = prod(shape[last:]), [prod(self.shape[axis + 1 :]) for axis in range(len(shape))]
        starts = (
            sum(map(mul, [*outer, *(one.start for one in ranges[last:])], strides)) for outer in product(*ranges[:last])
        )
        if prod(shape[:last]) == 1:
            return self.file.numbers(self.name, next(starts), run).reshape(shape)
        block = np.empty(shape, self.dtype)
        if block.size and run * self.dtype.itemsize >= _CRUMB:
            runs = block.reshape(-1, run)
            for at, start in enumerate(starts):
                runs[at] = self.file.numbers(self.name, start, run)
        elif block.size:
            rows = max(1, (1 << 24) // (strides[0] * self.dtype.itemsize))
            for at in range(0, shape[0], rows):
                some = ranges[0][at : at + rows]
                block[at : at + rows] = self.part((slice(some.start, some.stop), *index[1:]), compare=False)
        return block

    def __repr__(self) -> str:
        return f"{self.name!r}: {self.dtype}{[*self.shape]} in {self.file.path!r}"


class Tied:
    """A name that is tied, in an open file: its source, as it reads through the tie."""

    def __init__(self, file: File, path: str, tie: Tie):
        self.file, self.path, self.tie, self.source = file, path, tie, file[tie.source]

    def __getitem__(self, index: Any) -> Any:
        whole = self.tie.read(self.source[...])
        return whole if index is ... else whole[index]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return np.asarray(self[...], dtype)

    def __len__(self) -> int:
        return self.shape[0]

    @cached_property
    def _like(self) -> Any:
        return jax.eval_shape(self.tie.read, jax.ShapeDtypeStruct(self.source.shape, self.source.dtype))

    @property
    def shape(self) -> tuple[int, ...]:
        return self._like.shape

    @property
    def dtype(self) -> Any:
        return self._like.dtype

    @property
    def nbytes(self) -> int:
        return 0

    def __repr__(self) -> str:
        return f"{self.path!r}: {self.tie.shown()!r} in {self.file.path!r}"
