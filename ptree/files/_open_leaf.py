"""OpenLeaf and OpenAlias: a leaf, or a tied name, in an open file; its shape is known, and `[...]` or a slice reads numbers."""

from __future__ import annotations

from functools import cached_property

import jax
import numpy as np

from .._errors import FileError
from .._stored.leaf_in_parts import LeafInParts
from .._stored.leaf_parts import Index, Ranges, block_shape, is_whole, part_of
from .._stored.safetensors import SafetensorsFile
from .._stored.stored_leaf import StoredLeaf
from .._tree import Index as LayerIndex
from .._tree import Leaf, Tie, layer_of
from .._words import quoted
from ._kinds import JAX_ARRAY, leaf_of, refuse_unreadable, without_cut
from ._saved_tree import damage_error


class OpenLeaf:
    """A leaf in an open file; `[...]` reads it as it was saved, `[:8]` reads a part as an array.

    With `layers`, it is one layer of a leaf in a stack, and only the bytes of that layer are read.
    """

    def __init__(self, stored: StoredLeaf, file: SafetensorsFile | LeafInParts, verify: bool, layers: LayerIndex = ()):
        self.stored, self._file, self._verify, self._layers = stored, file, verify, layers
        layer = layer_of(stored, layers) if layers else stored
        self.name, self.shape, self.dtype, self.nbytes = stored.name, layer.shape, stored.dtype, layer.nbytes

    def __getitem__(self, index: Index) -> Leaf:
        try:
            # the whole leaf as it was saved, a number as a number; a part is an array, which has no kind of its own
            if index is ...:
                return leaf_of(self._array(...), without_cut(self.stored))
            return self.leaf_of_part(np.asarray(self._array(index)))
        except FileError as error:
            if error.is_damage:
                raise
            raise FileError(f"cannot load {self._file.path!r}: {error}") from None

    def leaf_of_part(self, part: np.ndarray) -> Leaf:
        """An array of the same library as the leaf's."""
        return part if without_cut(self.stored).kind else JAX_ARRAY.leaf_of(part, self.stored)

    def _array(self, index: Index) -> np.ndarray:
        part = part_of(index, self.shape)
        return self.block(part.ranges)[part.index]

    def block(self, ranges: Ranges) -> np.ndarray:
        """Read a block as a NumPy array, compared with the checksum if it is all of the leaf."""
        refuse_unreadable([self.stored])
        in_stack = self._ranges_in_stack(ranges)
        block = self._file.block(self.stored, in_stack)
        checksum = self.stored.checksum if self._verify and is_whole(in_stack, self.stored.shape) else ""
        if checksum and self._file.digest_of(self.stored, block) != checksum:
            raise damage_error(self._file.path, [self.name])
        return block.reshape(block_shape(ranges))

    def _ranges_in_stack(self, ranges: Ranges) -> list[range]:
        """The places of a block of this layer along all axes of the stack."""
        left = list(ranges)
        for axis, at in enumerate(self._layers):
            if not isinstance(at, slice):  # of the layers of an outer stack all may be taken
                left.insert(axis, range(at, at + 1))
        return left

    def __array__(self, dtype: np.typing.DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self._array(...), dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        if self.stored.unreadable:
            return f"{quoted(self.name)} in {self._file.path!r}, which {self.stored.unreadable}"
        layer = f", layer {', '.join(map(str, self._layers))}" if self._layers else ""
        return f"{quoted(self.name)}{layer}: {self.dtype}{[*self.shape]} in {self._file.path!r}"


class OpenAlias:
    """A tied name in an open file: it reads as its source does through the tie."""

    nbytes = 0  # the bytes are those of its source

    def __init__(self, name: str, tie: Tie, source: OpenLeaf):
        self.name, self.tie, self.source = name, tie, source

    def __getitem__(self, index: Index) -> Leaf:
        if index is ... or not self._is_block:
            whole = self.tie.read(self.source[...])
            return whole if index is ... else whole[index]
        return self.source.leaf_of_part(self._part(index))

    @property
    def _is_key(self) -> bool:
        return self.source.stored.kind.startswith("key:")

    @property
    def _is_block(self) -> bool:
        """Whether its numbers are those of a block of its source; of functions that users register that is not known."""
        return not self._is_key and all(transform.axes for transform in self.tie.via)

    def _part(self, index: Index) -> np.ndarray:
        part = part_of(index, self.shape)
        order = self._order_of_axes()
        ranges = [part.ranges[order.index(axis)] for axis in range(len(order))]
        return np.asarray(self.source.block(ranges).transpose(order)[part.index])

    def _order_of_axes(self) -> tuple[int, ...]:
        """The axis of the source that each axis of the alias is."""
        order = tuple(range(len(self.source.shape)))
        for transform in self.tie.via:
            before = len(order) - len(transform.axes)  # of a stack, axes for its layers
            if before >= 0:
                order = (*order[:before], *(order[before + axis] for axis in transform.axes))
        return order

    def __array__(self, dtype: np.typing.DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        if self._is_block:
            return np.asarray(self._part(...), dtype)
        whole = self[...]
        return np.asarray(jax.random.key_data(whole) if self._is_key else whole, dtype)

    def __len__(self) -> int:
        return self.shape[0]

    @cached_property
    def _abstract(self) -> jax.ShapeDtypeStruct:
        if not self._is_key:
            return self.tie.read(jax.ShapeDtypeStruct(self.source.shape, self.source.dtype))
        # a transform sees keys, and the last axis of the source counts the words of each
        *shape, words = self.source.shape
        seen = self.tie.read(jax.ShapeDtypeStruct(tuple(shape), self.source.dtype))
        return jax.ShapeDtypeStruct((*seen.shape, words), seen.dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._abstract.shape

    @property
    def dtype(self) -> np.dtype:
        return self._abstract.dtype

    def __repr__(self) -> str:
        return f"{quoted(self.name)}: {quoted(self.tie.shown())} in {quoted(self.source.stored.name)}"
