"""OpenLeaf and OpenAlias: a leaf, or a tied name, in an open file; its shape is known, and `[...]` or a slice reads numbers."""

from __future__ import annotations

from functools import cached_property

import jax
import numpy as np

from .._errors import FileError
from .._stored.checksums import digest
from .._stored.leaf_parts import Index, run_of
from .._stored.safetensors import SafetensorsFile
from .._stored.stored_leaf import StoredLeaf
from .._tree import ALL_LAYERS, Leaf, Tie, layer_of
from .._tree import Index as LayerIndex
from .._words import quoted
from ._kinds import JAX_ARRAY, leaf_of, refuse_unreadable, without_cut
from ._saved_tree import damage_error


class OpenLeaf:
    """A leaf in an open file; `[...]` reads it as it was saved, `[:8]` reads a part as an array.

    With `layers`, it is one layer of a leaf in a stack, and only the bytes of that layer are read.
    """

    def __init__(self, stored: StoredLeaf, file: SafetensorsFile, verify: bool, layers: LayerIndex = ()):
        self.stored, self._file, self._verify, self._layers = stored, file, verify, layers
        layer = layer_of(stored, layers) if layers else stored
        self.name, self.shape, self.dtype, self.nbytes = stored.name, layer.shape, stored.dtype, layer.nbytes

    def __getitem__(self, index: Index) -> Leaf:
        try:
            # the whole leaf as it was saved, a number as a number; a part is an array, which has no kind of its own
            if index is ...:
                return leaf_of(self._array(()), without_cut(self.stored))
            part = np.asarray(self._array(index))
            return part if without_cut(self.stored).kind else JAX_ARRAY.leaf_of(part, self.stored)
        except FileError as error:
            if error.is_damage:
                raise
            raise FileError(f"cannot load {self._file.path!r}: {error}") from None

    def _array(self, index: Index) -> np.ndarray:
        """Read a part as a NumPy array: the bytes from its first number to its last, compared if these are all of the leaf."""
        refuse_unreadable([self.stored])
        if ALL_LAYERS in self._layers:  # one layer of an inner stack, in all layers of an outer one
            return self._run(self._layers)[index]
        inner = index if isinstance(index, tuple) else (index,)
        return self._run((*self._layers, *inner))

    def _run(self, index: Index) -> np.ndarray:
        run = run_of(index, self.stored.shape)
        flat = self._file.run(self.stored, run.first, run.count)
        checksum = self.stored.checksum if self._verify else ""
        if checksum and flat.nbytes == self.stored.nbytes and digest(flat.view(np.uint8)) != checksum:
            raise damage_error(self._file.path, [self.name])
        return flat.reshape(run.shape)[run.index]

    def __array__(self, dtype: np.typing.DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self._array(()), dtype)

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
        # whole: which of its bytes a part takes depends on the tie, a transpose for example
        whole = self.tie.read(self.source[...])
        return whole if index is ... else whole[index]

    def __array__(self, dtype: np.typing.DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[...], dtype)

    def __len__(self) -> int:
        return self.shape[0]

    @cached_property
    def _abstract(self) -> jax.ShapeDtypeStruct:
        return jax.eval_shape(self.tie.read, jax.ShapeDtypeStruct(self.source.shape, self.source.dtype))

    @property
    def shape(self) -> tuple[int, ...]:
        return self._abstract.shape

    @property
    def dtype(self) -> np.dtype:
        return self._abstract.dtype

    def __repr__(self) -> str:
        return f"{quoted(self.name)}: {quoted(self.tie.shown())} in {quoted(self.source.stored.name)}"
